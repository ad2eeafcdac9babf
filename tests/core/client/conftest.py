"""One server for all tests of the client side; each test has a stream of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headrace.core.client import StreamClient
from headrace.core.testing.faulty_proxy import FaultyProxy
from headrace.core.testing.server_process import ServerProcess

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("stream")
    with ServerProcess(folder / "data") as process:
        yield process


@pytest.fixture
async def direct(shared_server: ServerProcess) -> AsyncIterator[StreamClient]:
    """A client without anything in between."""
    async with StreamClient(shared_server.target) as client:
        yield client


@pytest.fixture
async def stream(direct: StreamClient) -> str:
    """The name of a new stream of two shards."""
    name = f"s{next(_numbers)}"
    await direct.ensure_stream(name, shards=2)
    return name


@pytest.fixture
async def proxy(shared_server: ServerProcess) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(shared_server.endpoint) as faulty:
        yield faulty
