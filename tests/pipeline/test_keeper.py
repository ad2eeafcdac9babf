"""A supervisor in this process, with short times: what waits, hangs and is told no secrets."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from headrace.pipeline.config.pipeline_file import read_pipeline
from headrace.pipeline.keeper import KeeperSettings
from headrace.pipeline.logs import Prefixed
from headrace.pipeline.parts import PartTable
from headrace.pipeline.status import read_status
from headrace.pipeline.supervisor import Supervisor
from headrace.pipeline.testing import SCRIPTED

SETTINGS = KeeperSettings(grace_ms=2500, silent_ms=1500, restart_initial_ms=20)


class Run:
    def __init__(self, supervisor: Supervisor, task: asyncio.Task[None], log: io.StringIO) -> None:
        self.supervisor = supervisor
        self.task = task
        self.log = log

    def pid(self, part: str) -> int:
        found = next(p.pid for p in self.supervisor.status().parts if p.part == part)
        assert found is not None
        return found

    def state(self, part: str) -> str:
        return next(p.state for p in self.supervisor.status().parts if p.part == part)

    async def until_state(self, part: str, state: str) -> None:
        async with asyncio.timeout(20):
            while self.state(part) != state:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


Start = Callable[[str], AbstractAsyncContextManager[Run]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def run(text: str) -> AsyncIterator[Run]:
        file = tmp_path / "f.yaml"
        file.write_text(text.replace("JOURNAL", str(tmp_path / "journal")))
        parts, log = PartTable(SCRIPTED), io.StringIO()
        pipeline = read_pipeline(file, parts)
        supervisor = Supervisor(pipeline, parts, Prefixed(log, list(parts)), settings=SETTINGS)
        task = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(20):
                await supervisor.running.wait()
            yield Run(supervisor, task, log)
        finally:
            supervisor.stop()
            supervisor.stop()
            await task

    return run


async def test_a_part_that_does_not_drain_is_killed_after_its_grace(start: Start) -> None:
    text = "agent: {journal: JOURNAL, ignores_stop: true}\nstream: {journal: JOURNAL}\n"
    async with start(text) as run:
        run.supervisor.stop()
        await run.task
        assert not run.supervisor.was_forced
    said = run.log.getvalue()
    assert "agent did not drain within 2.5 s; killed" in said
    assert "stream drained in" in said, "the parts behind it still get their time"


async def test_a_part_that_hangs_is_called_silent(start: Start) -> None:
    async with start("agent: {journal: JOURNAL}\n") as run:
        pid = run.pid("agent")
        os.kill(pid, signal.SIGSTOP)
        try:
            await run.until_state("agent", "silent")
        finally:
            os.kill(pid, signal.SIGCONT)
        await run.until_state("agent", "running")


async def test_parts_still_needed_are_kept_alive_while_others_drain(
    start: Start, tmp_path: Path
) -> None:
    text = "agent: {journal: JOURNAL, ignores_stop: true}\nstream: {journal: JOURNAL}\n"
    async with start(text) as run:
        before = run.pid("stream")
        run.supervisor.stop()
        os.kill(before, signal.SIGKILL)
        await run.task
    assert "stream was killed by SIGKILL" in run.log.getvalue()
    assert read_status(tmp_path / "data").parts[0].restarts == 1


async def test_configuration_is_not_on_a_command_line(start: Start, tmp_path: Path) -> None:
    async with start("agent: {journal: JOURNAL, problem: hunter2}\n") as run:
        command = Path(f"/proc/{run.pid('agent')}/cmdline").read_bytes()
        environment = Path(f"/proc/{run.pid('agent')}/environ").read_bytes()
    assert b"run-part" in command
    assert b"hunter2" not in command + environment
    assert b"journal" not in command
