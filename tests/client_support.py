"""What the tests of the client side share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.core.client import StreamClient
from headrace.core.model.records import Record
from headrace.core.part import StreamTarget
from headrace.core.retry import Backoff

QUICK = Backoff(initial_ms=1, max_ms=20)


def through(endpoint: str, *, timeout_ms: int = 5_000) -> StreamClient:
    return StreamClient(StreamTarget(endpoint=endpoint), timeout_ms=timeout_ms)


async def until(condition: Callable[[], object], *, within_s: float = 20) -> None:
    """Wait for something other tasks bring about."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - whatever it is, it has no event
            await asyncio.sleep(0.005)


async def read_all(client: StreamClient, stream: str) -> list[list[Record]]:
    """All records there are, by shard."""
    found = []
    for shard in await client.list_shards(stream):
        records: list[Record] = []
        iterator: str | None = await client.get_shard_iterator(
            stream, shard.shard_id, "TRIM_HORIZON"
        )
        while iterator is not None:
            result = await client.get_records(iterator)
            records += result.records
            iterator = result.next_iterator
            if not result.records and not result.millis_behind_latest:
                break
        found.append(records)
    return found
