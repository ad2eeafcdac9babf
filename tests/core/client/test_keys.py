"""Signed requests against a server that checks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_support import read_all
from headrace.core.access_key import AccessKey
from headrace.core.client import StreamClient
from headrace.core.errors import InvalidSignature, ServiceError
from headrace.core.leases import StreamLeases
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.producer import Producer
from headrace.core.server import Server, ServerConfig
from headrace.core.testing.faulty_proxy import FaultyProxy


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[str]:
    """The endpoint of a server with one key, `id` / `secret`."""
    config = ServerConfig(port=0, data=tmp_path / "data", access_keys={"id": AccessKey("secret")})
    server = Server(config)
    await server.start()
    yield server.endpoint
    await server.stop()


def with_keys(endpoint: str, secret: str = "secret") -> StreamClient:
    return StreamClient(
        StreamTarget(endpoint=endpoint, access_key_id="id", secret_access_key=secret)
    )


async def test_everything_the_client_sends_is_signed(locked: str) -> None:
    """Small and large bodies, a producer's headers, extensions, a port in the Host header."""
    async with FaultyProxy(locked) as proxy:
        for endpoint in (locked, proxy.endpoint):
            async with with_keys(endpoint) as client:
                await client.ensure_stream("s", shards=1)
                for size_bytes in (1, 700, 900_000):
                    await Producer(client, "s").put_batch(
                        [PutEntry(bytes(size_bytes), "ключ")] * 3,
                        producer_id=f"file:{size_bytes}",
                        sequences=[7, 8, 1 << 200],
                    )
                await StreamLeases(client, "app", "s", "w").heartbeat()
    async with with_keys(locked) as client:
        assert [len(records) for records in await read_all(client, "s")] == [9]


async def test_without_keys_the_error_says_what_is_needed(locked: str) -> None:
    async with StreamClient(StreamTarget(endpoint=locked)) as client:
        with pytest.raises(ServiceError, match="give an access key id and its secret"):
            await client.ensure_stream("s", shards=1)


async def test_with_a_wrong_secret_the_error_is_raised_at_once(locked: str) -> None:
    async with with_keys(locked, "guess") as client:
        with pytest.raises(InvalidSignature):
            await Producer(client, "s").put_batch([PutEntry(b"x", "k")])
