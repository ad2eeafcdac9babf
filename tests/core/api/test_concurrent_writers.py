"""Many writers and readers at once, while shards split and merge under them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict

import pytest

from headrace.core.client import StreamClient
from headrace.core.errors import InvalidArgument
from headrace.core.model.records import PutEntry, Record
from headrace.core.model.shards import ShardInfo

WRITERS = 6
BATCHES = 25
KEYS = [f"key {i}" for i in range(12)]


async def write(
    client: StreamClient,
    stream: str,
    writer: int,
    acknowledged: list[bytes],
    enough: asyncio.Event | None = None,
) -> None:
    """Batches one after the other; the data says who, which key and which count of that key.

    With `enough` they go on until it is set.
    """
    counts: Counter[str] = Counter()
    for batch in itertools.count():
        if batch >= BATCHES and (enough is None or enough.is_set()):
            break
        entries = []
        for i in range(1 + (writer + batch) % 9):
            key = f"{KEYS[(batch + i) % len(KEYS)]} of {writer}"
            entries.append(PutEntry(f"{key};{counts[key]}".encode(), key))
            counts[key] += 1
        results = await client.put_records(stream, entries)
        assert all(result.error_code is None for result in results)
        acknowledged += [entry.data for entry in entries]


async def read(
    client: StreamClient, stream: str, shard: ShardInfo, done: asyncio.Event
) -> list[Record]:
    """A whole shard as it grows: to its end, or until the writers are done and it is read up."""
    token: str | None = await client.get_shard_iterator(stream, shard.shard_id, "TRIM_HORIZON")
    found: list[Record] = []
    while token is not None:
        is_last = done.is_set()
        got = await client.get_records(token, limit=7)
        found += got.records
        token = got.next_iterator
        if not got.records:
            if is_last:
                break
            await asyncio.sleep(0.002)
    return found


async def reshard(
    client: StreamClient, stream: str, done: asyncio.Event, enough: asyncio.Event
) -> None:
    """Split the widest shard and merge the first two in turn; four times are `enough`."""
    count = 0
    while not done.is_set():
        shards = [shard for shard in await client.list_shards(stream) if shard.is_open]
        shards.sort(key=lambda shard: shard.hash_key_range.start)
        if count % 2:
            request = {
                "ShardToMerge": shards[0].shard_id,
                "AdjacentShardToMerge": shards[1].shard_id,
            }
            await client.call("MergeShards", {"StreamName": stream, **request})
        else:
            widest = max(shards, key=lambda s: s.hash_key_range.end - s.hash_key_range.start)
            middle = (widest.hash_key_range.start + widest.hash_key_range.end) // 2
            request = {"ShardToSplit": widest.shard_id, "NewStartingHashKey": str(middle)}
            await client.call("SplitShard", {"StreamName": stream, **request})
        count += 1
        if count == 4:
            enough.set()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("shards", [1, 3])
async def test_order_per_writer_and_shard(client: StreamClient, name: str, shards: int) -> None:
    await client.ensure_stream(name, shards=shards)
    acknowledged: list[bytes] = []
    await asyncio.gather(*(write(client, name, i, acknowledged) for i in range(WRITERS)))
    done = asyncio.Event()
    done.set()
    found = [await read(client, name, s, done) for s in await client.list_shards(name)]
    assert sorted(acknowledged) == sorted(record.data for records in found for record in records)
    for records in found:
        numbers = [int(record.sequence_number) for record in records]
        assert numbers == sorted(set(numbers))
        check_order(records)


def check_order(records: list[Record]) -> None:
    """Each key's counts rise by one."""
    last: dict[str, int] = defaultdict(lambda: -1)
    for record in records:
        key, count = record.data.decode().split(";")
        assert record.partition_key == key
        assert int(count) == last[key] + 1, key
        last[key] += 1


async def test_nothing_is_lost_or_turned_round_by_resharding(
    client: StreamClient, name: str
) -> None:
    await client.ensure_stream(name, shards=2)
    acknowledged: list[bytes] = []
    enough, done, settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
    resharding = asyncio.create_task(reshard(client, name, done, enough))
    readers: dict[str, asyncio.Task[list[Record]]] = {}

    async def follow() -> None:
        """A reader for each shard as soon as it is there."""
        while True:
            is_last = settled.is_set()  # the shards change no more
            for shard in await client.list_shards(name):
                if shard.shard_id not in readers:
                    readers[shard.shard_id] = asyncio.create_task(read(client, name, shard, done))
            if is_last:
                return
            await asyncio.sleep(0.01)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(write(client, name, i, acknowledged, enough) for i in range(WRITERS))
        )
    await asyncio.sleep(0.05)
    done.set()
    await resharding
    settled.set()
    await following
    live = {shard_id: await task for shard_id, task in readers.items()}
    shards = await client.list_shards(name)
    assert set(live) == {shard.shard_id for shard in shards}
    # read while it grew, and read again now: the same
    for shard in shards:
        assert live[shard.shard_id] == await read(client, name, shard, done)
    # parents before children, which is the order of their numbers, every key is in order
    check_order(list(itertools.chain(*(live[shard.shard_id] for shard in shards))))
    assert sorted(acknowledged) == sorted(r.data for records in live.values() for r in records)


async def test_the_same_split_many_times_at_once(client: StreamClient, name: str) -> None:
    await client.ensure_stream(name, shards=1)
    calls = [
        client.call(
            "SplitShard",
            {
                "StreamName": name,
                "ShardToSplit": "0",
                "NewStartingHashKey": str(2**127 + 16 * i),
            },
        )
        for i in range(8)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(result == {} for result in results) == 1
    assert sum(isinstance(result, InvalidArgument) for result in results) == 7
    left, right = (s.hash_key_range for s in (await client.list_shards(name))[1:])
    assert (left.start, left.end + 1, right.end) == (0, right.start, 2**128 - 1)


async def test_the_same_name_created_many_times_at_once(client: StreamClient, name: str) -> None:
    calls = [
        client.call("CreateStream", {"StreamName": name, "ShardCount": i + 1}) for i in range(8)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(result == {} for result in results) == 1
    winner = next(i for i, result in enumerate(results) if result == {})
    assert len(await client.list_shards(name)) == winner + 1
