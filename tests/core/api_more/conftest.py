"""One server a module: every test works on streams of its own name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from api_support import Raw, boto3_client, raw_to
from headrace.core.testing.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("api") / "stream") as process:
        yield process


@pytest.fixture(scope="module")
def kinesis(server: ServerProcess) -> Iterator[Any]:
    client = boto3_client(server.endpoint)
    yield client
    client.close()


@pytest.fixture(scope="module")
def unchecked(server: ServerProcess) -> Iterator[Any]:
    """boto3 that leaves it to the server to find what is wrong with a request."""
    client = boto3_client(server.endpoint, parameter_validation=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def raw(server: ServerProcess) -> Iterator[Raw]:
    with raw_to(server.endpoint) as connection:
        yield connection


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A stream name that no other test has."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name)[-128:]
