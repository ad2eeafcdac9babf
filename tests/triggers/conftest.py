"""Fixtures of the triggers' tests: functions in files, and workers that run them."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from headrace.core.client import StreamClient
from headrace.core.testing.server_process import ServerProcess
from headrace.triggers.function import FunctionFile
from headrace.triggers.protocol import Start
from headrace.triggers.worker_pool import WorkerPool
from triggers_support import MakePool, Pipeline, WriteFunction


@pytest.hookimpl(optionalhook=True)  # of pytest-asyncio 1.4; before that, asyncio's own loop
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The pipeline runs on uvloop; processes, pipes and sockets are tested on asyncio's as well."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_worker.py":
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
