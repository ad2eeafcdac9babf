"""What a server knows of producers lasts: through splits, merges, restarts, segments and time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.hashing import hash_key
from headrace.core.model.records import ProducerStamp, PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess
from idempotence_support import KEYS, names, put, stored, stored_data

DAY_MS = 24 * 3_600_000

# Splits, merges and restarts


async def reshard(client: StreamClient, stream: str, what: str) -> None:
    """`split 1` cuts shard 1 in the middle, `merge 1 2` joins two."""
    verb, *numbers = what.split()
    if verb == "split":
        shards = {shard.shard_id: shard for shard in await client.list_shards(stream)}
        keys = shards[f"shardId-{int(numbers[0]):012d}"].hash_key_range
        await client.call(
            "SplitShard",
            {
                "StreamName": stream,
                "ShardToSplit": numbers[0],
                "NewStartingHashKey": str((keys.start + keys.end + 1) // 2),
            },
        )
    else:
        await client.call(
            "MergeShards",
            {
                "StreamName": stream,
                "ShardToMerge": numbers[0],
                "AdjacentShardToMerge": numbers[1],
            },
        )


STORY = ["split 1", "merge 0 4", "split 5", "merge 8 2", "split 9"]


async def test_across_splits_and_merges(client: StreamClient, name: str) -> None:
    await client.ensure_stream(name, shards=4)
    await put(client, name, range(16))
    for i, what in enumerate(STORY):
        await reshard(client, name, what)
        results = await put(client, name, range(16 * (i + 2)))
        found = await stored(client, name)
        numbers = {shard: {r.sequence_number for r in rs} for shard, rs in found.items()}
        assert all(r.sequence_number in numbers[r.shard_id or ""] for r in results)
    assert await stored_data(client, name) == names(range(96))


@pytest.mark.crash
@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_across_splits_merges_and_restarts(tmp_path: Path, end: str) -> None:
    with ServerProcess(tmp_path / "data") as process:
        async with StreamClient(process.target) as client:
            await client.ensure_stream("s", shards=4)
        upto = 0
        for what in STORY:
            async with StreamClient(process.target) as client:
                for half in range(2):
                    if half:
                        await reshard(client, "s", what)
                    upto += 16
                    await put(client, "s", range(max(upto - 40, 0), upto))
            getattr(process, end)()
            process.start()
        async with StreamClient(process.target) as client:
            results = await put(client, "s", range(upto))
            found = await stored(client, "s")
            numbers = {shard: {r.sequence_number for r in rs} for shard, rs in found.items()}
            # also what a restart remembers is a record that is there
            assert all(r.sequence_number in numbers[r.shard_id or ""] for r in results)
            assert await stored_data(client, "s") == names(range(upto))


@pytest.mark.crash
async def test_killed_in_the_middle_of_a_put(tmp_path: Path) -> None:
    """Nobody knows what of the last request was stored, so all of it is sent again."""
    chance = random.Random(20261122)
    with ServerProcess(tmp_path / "data") as process:
        async with StreamClient(process.target) as client:
            await client.ensure_stream("s", shards=4)
        upto = 0
        for _ in range(6):
            async with StreamClient(process.target) as client:
                putting = asyncio.create_task(put(client, "s", range(upto, upto + 64)))
                await asyncio.sleep(chance.uniform(0, 0.02))
                process.kill()
                await asyncio.gather(putting, return_exceptions=True)
            process.start()
            async with StreamClient(process.target) as client:
                await put(client, "s", range(upto, upto + 64))
            upto += 64
        async with StreamClient(process.target) as client:
            assert await stored_data(client, "s") == names(range(upto))
            for records in (await stored(client, "s")).values():
                order = [int(record.data) for record in records]
                assert order == sorted(order)


# Segments and time


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def small(tmp_path: Path, clock: ManualClock) -> AsyncIterator[StreamClient]:
    """A client on a server whose segments hold little, with stream `s` of four shards."""
    options = StreamLogOptions(segment_bytes=30_000)
    async with (
        server_here(tmp_path / "data", clock, log_options=options) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=4)
        yield client


async def fill(client: StreamClient, count: int = 1) -> None:
    """Seal a segment with records of nobody's."""
    for _ in range(count):
        await client.put_records("s", [PutEntry(bytes(25_000), key) for key in KEYS[:4]])


async def test_a_segment_sealed_before_the_first_producer_came(small: StreamClient) -> None:
    """Nobody's memory was joined across shards then: one shard's sequence stood for the others'."""
    await fill(small, 3)
    for _ in range(3):
        await put(small, "s", range(17))  # the shard that comes first has the last as well
    shards = await stored(small, "s")
    found = [r.data for records in shards.values() for r in records if len(r.data) < 100]
    assert sorted(map(int, found)) == list(range(17))


async def test_a_late_shard_is_not_taken_for_stored(small: StreamClient) -> None:
    """As after a crash between the frames of a window: one shard has its records, one not."""
    await fill(small, 3)
    await small.put_records("s", [PutEntry(b"5", KEYS[5])], producer=ProducerStamp("p", 0, [5]))
    await put(small, "s", range(8))
    found = {r.data for records in (await stored(small, "s")).values() for r in records}
    # in the shard of 5 what comes before it is taken for stored: a producer puts in order
    home = hash_key(KEYS[5]) >> 126
    expected = {i for i in range(8) if i >= 5 or hash_key(KEYS[i]) >> 126 != home}
    assert {int(data) for data in found if len(data) < 100} == expected
    assert len(expected) > 3


async def test_memory_moves_from_segment_to_segment(small: StreamClient) -> None:
    for i in range(6):
        await put(small, "s", range(16 * i, 16 * i + 16))
        await fill(small)
    await put(small, "s", range(96))
    shards = await stored(small, "s")
    found = [r.data for records in shards.values() for r in records if len(r.data) < 100]
    assert sorted(map(int, found)) == list(range(96))


async def test_memory_outlives_the_records(
    small: StreamClient, clock: ManualClock, tmp_path: Path
) -> None:
    await put(small, "s", range(16))
    await clock.advance(3 * DAY_MS)
    await fill(small, 3)
    await clock.advance(3 * DAY_MS)  # the first segments are gone by now
    await put(small, "s", range(16))
    assert {r.data for rs in (await stored(small, "s")).values() for r in rs} <= {b""}


async def test_seven_days_of_silence_end_it(small: StreamClient, clock: ManualClock) -> None:
    await put(small, "s", range(16))
    await clock.advance(7 * DAY_MS + 1)
    await fill(small, 2)  # it is forgotten when a segment is sealed
    await put(small, "s", range(16))
    found = [r.data for rs in (await stored(small, "s")).values() for r in rs]
    assert sorted(int(data) for data in found if len(data) < 100) == list(range(16))


async def test_a_restart_reads_memory_from_snapshot_and_frames(tmp_path: Path) -> None:
    options = StreamLogOptions(segment_bytes=20_000)
    for turn in range(5):
        async with (
            server_here(tmp_path / "data", log_options=options) as server,
            StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
        ):
            await client.ensure_stream("s", shards=4)
            for i in range(16 * turn, 16 * turn + 16, 4):
                await put(client, "s", range(max(i - 9, 0), i + 4))
                if turn % 2:
                    await fill(client)
            results = await put(client, "s", range(16 * turn + 16))
            found = await stored(client, "s")
            numbers = {shard: {r.sequence_number for r in rs} for shard, rs in found.items()}
            assert all(r.sequence_number in numbers[r.shard_id or ""] for r in results)
            small_data = [r.data for rs in found.values() for r in rs if len(r.data) < 100]
            assert sorted(map(int, small_data)) == list(range(16 * turn + 16))
