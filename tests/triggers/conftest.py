"""Fixtures of the triggers' tests: functions in files, and workers that run them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from headrace.core.client import StreamClient
from headrace.core.part import StreamTarget
from headrace.core.retry import Backoff
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess
from headrace.core.troubles import Troubles
from headrace.triggers.config import BatchConfig
from headrace.triggers.function import FunctionFile
from headrace.triggers.invoke import Function
from headrace.triggers.outbox import Outlet
from headrace.triggers.protocol import Start
from headrace.triggers.retry import FIRST_BACKOFF_MS, MAX_BACKOFF_MS
from headrace.triggers.runner import TriggerTools
from headrace.triggers.stats import TriggerStats
from headrace.triggers.testing import MemoryLease
from headrace.triggers.worker_pool import WorkerPool
from shard_support import RECORDING, MakeShard, Shard
from triggers_support import MakePool, Pipeline, WriteFunction


@pytest.hookimpl(optionalhook=True)  # of pytest-asyncio 1.4; before that, asyncio's own loop
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The pipeline runs on uvloop; processes, pipes and sockets are tested on asyncio's as well."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name.startswith("test_worker"):
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture
def write_function(tmp_path: Path) -> WriteFunction:
    """Write source to `functions/<name>.py`, return its path."""

    def write(source: str, name: str = "function") -> Path:
        path = tmp_path / "functions" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    return write


@pytest.fixture
async def make_pool(tmp_path: Path) -> AsyncIterator[MakePool]:
    """A WorkerPool on a file; closed at the end."""
    pools: list[WorkerPool] = []

    def make(
        path: Path,
        *,
        memory_bytes: int | None = None,
        size: int = 1,
        load_timeout_ms: int = 60_000,
    ) -> WorkerPool:
        start = Start(
            file=str(path),
            attribute="handler",
            function_name="function-handler",
            function_arn="arn:aws:lambda:us-east-1:123456789012:function:function-handler",
            source_stream="source",
            memory_bytes=memory_bytes,
        )
        pool = WorkerPool(
            FunctionFile(path),
            start,
            size=size,
            region="us-east-1",
            load_timeout_ms=load_timeout_ms,
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.close()


@pytest.fixture
def pipeline(tmp_path: Path, server: ServerProcess) -> Iterator[Pipeline]:
    pipeline = Pipeline(tmp_path / "pipeline", server)
    yield pipeline
    pipeline.close()


@pytest.fixture
async def streams(client: StreamClient) -> AsyncIterator[StreamClient]:
    """The client, with a stream `in` of two shards and `out` of two."""
    await client.ensure_stream("in", shards=2)
    await client.ensure_stream("out", shards=2)
    yield client


@pytest.fixture
async def make_shard(
    tmp_path: Path, write_function: WriteFunction, make_pool: MakePool
) -> AsyncIterator[MakeShard]:
    """Start a runner whose handler records its calls and then does `act`."""
    client = StreamClient(StreamTarget())
    shards: list[Shard] = []

    def make(
        act: str = "pass",
        *,
        size: int = 100,
        retries: int = 3,
        reports: bool = False,
        timeout_ms: int = 20_000,
        lease: MemoryLease | None = None,
        letters: Path | None = None,
        source: str | None = None,
        seam: Callable[[str], None] = lambda _step: None,
    ) -> Shard:
        clock = ManualClock()
        calls = tmp_path / "calls"
        path = write_function(source or RECORDING.format(calls=str(calls), act=act))
        tools = TriggerTools(
            function=Function(
                trigger="function-handler",
                arn="arn:aws:lambda:us-east-1:123456789012:function:function-handler",
                pool=make_pool(path),
                timeout_ms=timeout_ms,
                retries=retries,
                reports_item_failures=reports,
            ),
            file=FunctionFile(path),
            batch=BatchConfig(size=size),
            letters=letters or tmp_path / "dead-letters",
            outlet=Outlet(client, "trigger-function-handler", clock),
            stats=TriggerStats(),
            troubles=Troubles(logging.getLogger("headrace.triggers"), clock),
            clock=clock,
            backoff=Backoff(initial_ms=FIRST_BACKOFF_MS, max_ms=MAX_BACKOFF_MS, chance=lambda: 0.0),
            seam=seam,
        )
        shards.append(Shard(lease or MemoryLease(clock=clock), tools, calls))
        return shards[-1]

    yield make
    for shard in shards:
        shard.task.cancel()
        await asyncio.gather(shard.task, return_exceptions=True)
    await client.close()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Every worker a test started is gone when it ends."""
    yield
    left = [pid for pid in _children() if b"headrace.triggers.worker" in _command(pid)]
    assert not left, f"workers left behind: {left}"


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
