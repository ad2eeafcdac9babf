"""Idempotent puts for tests: records that carry their sequence, and what of them is stored."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.client import StreamClient
from headrace.core.model.records import ProducerStamp, PutEntry, PutResult, Record

KEYS = [f"key {i}" for i in range(16)]  # over four shards, several in each


async def put(
    client: StreamClient,
    stream: str,
    sequences: Sequence[int],
    *,
    producer: str = "p",
    epoch: int = 0,
    mark: str = "",
) -> list[PutResult]:
    """One record per sequence; its key is a function of its sequence, as the agent's is."""
    entries = [
        PutEntry(f"{sequence}{mark}".encode(), KEYS[sequence % len(KEYS)]) for sequence in sequences
    ]
    stamp = ProducerStamp(producer, epoch, list(sequences))
    return await client.put_records(stream, entries, producer=stamp)


async def stored(client: StreamClient, stream: str) -> dict[str, list[Record]]:
    """All records by shard."""
    found: dict[str, list[Record]] = {}
    for shard in await client.list_shards(stream):
        records = found[shard.shard_id] = []
        token: str | None = await client.get_shard_iterator(stream, shard.shard_id, "TRIM_HORIZON")
        while token is not None:
            got = await client.get_records(token)
            records += got.records
            token = got.next_iterator if got.records else None
    return found


async def stored_data(client: StreamClient, stream: str) -> list[str]:
    """All data, sorted by the sequence in it."""
    shards = await stored(client, stream)
    data = [record.data.decode() for records in shards.values() for record in records]
    return sorted(data, key=lambda text: int(text.rstrip("abcdefgh") or -1))


def names(sequences: Sequence[int]) -> list[str]:
    return [str(sequence) for sequence in sequences]
