"""The loops of a running agent: events as hints, looks between scans, scans as the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.api import BaseObserver

from client_support import until
from headrace.agent.agent import Agent
from headrace.agent.config import AgentConfig
from headrace.agent.testing import RecordingSink
from headrace.core.clock import SystemClock

Start = Callable[..., AbstractAsyncContextManager[tuple[Agent, RecordingSink]]]


@pytest.fixture
def running(tmp_path: Path) -> Start:
    """An agent that runs on `tmp_path/logs` for as long as a block."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "data").mkdir()

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[tuple[Agent, RecordingSink]]:
        sink = RecordingSink()
        flow = {"files": str(tmp_path / "logs" / "**" / "*.log*"), "stream": "lines"}
        agent = Agent(
            AgentConfig.model_validate({"flows": [flow], **settings}),
            data=tmp_path / "data",
            base=tmp_path,
            clock=SystemClock(),
            putter=lambda _: sink,
        )
        agent.open()
        running = asyncio.create_task(agent.run())
        try:
            yield agent, sink
            await agent.stop()
            async with asyncio.timeout(20):
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await agent.close()

    return run


async def test_an_event_brings_a_new_file_on_long_before_the_next_scan(
    tmp_path: Path, running: Start
) -> None:
    log = tmp_path / "logs" / "a.log"
    log.write_bytes(b"first\n")
    async with running(scan_interval="1h") as (_, sink):
        await until(lambda: sink.lines == [b"first"])
        log.rename(f"{log}.1")
        log.write_bytes(b"second\n")
        await until(lambda: sink.lines == [b"first", b"second"])


async def test_lines_of_a_busy_file_do_not_wait_for_a_scan(tmp_path: Path, running: Start) -> None:
    log = tmp_path / "logs" / "a.log"
    log.write_bytes(b"0\n")
    async with running(scan_interval="1h") as (_, sink):
        for number in range(1, 6):
            await until(lambda count=number: len(sink.lines) == count)  # type: ignore[misc]
            with log.open("ab") as file:
                file.write(b"%d\n" % number)
        await until(lambda: len(sink.lines) == 6)


async def test_without_events_scanning_finds_everything(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: BaseObserver) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(BaseObserver, "start", refuse)
    log = tmp_path / "logs" / "deep" / "er" / "a.log"
    async with running(scan_interval="50ms") as (_, sink):
        await asyncio.sleep(0.1)
        log.parent.mkdir(parents=True)
        log.write_bytes(b"first\n")
        await until(lambda: sink.lines == [b"first"])
        log.rename(f"{log}.1")
        log.write_bytes(b"second\n")
        await until(lambda: sink.lines == [b"first", b"second"])


async def test_stopping_while_the_stream_is_away_ends_in_time(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.agent.agent.STOP_GRACE_MS", 200)
    (tmp_path / "logs" / "a.log").write_bytes(b"first\n")
    async with running() as (agent, sink):
        sink.go_away()
        await until(lambda: agent.health().figures["lag_bytes"] == 6 and sink.put_count == 1)
    assert sink.lines == []
    async with running() as (_, sink):
        await until(lambda: sink.lines == [b"first"])


async def test_positions_are_stored_without_anybody_asking(tmp_path: Path, running: Start) -> None:
    (tmp_path / "logs" / "a.log").write_bytes(b"first\n")
    async with running() as (agent, sink):
        await until(lambda: sink.lines == [b"first"])
        await until(lambda: [p.offset for p in agent.store.load()] == [6])
