"""Idempotent put: whatever is sent again, and however often, is stored once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from api_support import Raw, create, read_stream, reply_is, server_here
from headrace.core.client import StreamClient
from headrace.core.errors import ProducerFenced
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.hashing import hash_key
from headrace.core.model.records import ProducerStamp, PutEntry, PutResult, Record
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess

DAY_MS = 24 * 3_600_000
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


@pytest.fixture
async def stream(client: StreamClient, name: str) -> str:
    await client.ensure_stream(name, shards=4)
    return name


# What is stored and what is not


async def test_sent_again(client: StreamClient, stream: str) -> None:
    first = await put(client, stream, range(40))
    for _ in range(3):
        again = await put(client, stream, range(40))
    assert await stored_data(client, stream) == names(range(40))
    shards = await stored(client, stream)
    numbers = {shard: [r.sequence_number for r in rs] for shard, rs in shards.items()}
    for one, other in zip(first, again, strict=True):
        # answered as success, with a record that is there, in the shard that it is in
        assert other.error_code is None
        assert one.shard_id == other.shard_id
        assert other.shard_id is not None
        assert other.sequence_number in numbers[other.shard_id]


async def test_batches_that_overlap(client: StreamClient, stream: str) -> None:
    for start, end in ((0, 10), (5, 15), (0, 20), (19, 21), (20, 40), (0, 40)):
        await put(client, stream, range(start, end))
    assert await stored_data(client, stream) == names(range(40))


async def test_sequences_with_gaps(client: StreamClient, stream: str) -> None:
    """As byte offsets have them; what lies in a gap afterwards is taken for stored."""
    offsets = [0, 100, 2**31, 2**53 + 1, 2**63, 2**64 + 5, 10**40]
    await put(client, stream, offsets)
    await put(client, stream, offsets)
    await put(client, stream, [*offsets, 10**79])
    assert await stored_data(client, stream) == names([*offsets, 10**79])


async def test_a_sequence_twice_in_a_request(client: StreamClient, stream: str) -> None:
    results = await put(client, stream, [1, 1, 2, 3, 3, 3])
    assert all(result.sequence_number for result in results)
    assert await stored_data(client, stream) == names([1, 2, 3])


async def test_producers_do_not_know_each_other(client: StreamClient, stream: str) -> None:
    for producer in ("a", "b", "a/b", "~" * 256):
        await put(client, stream, range(5), producer=producer)
        await put(client, stream, range(5), producer=producer)
    await client.put_records(stream, [PutEntry(b"3", KEYS[3])])  # and one without a name
    found = await stored_data(client, stream)
    assert [found.count(str(i)) for i in range(5)] == [4, 4, 4, 5, 4]


async def test_streams_do_not_know_each_other(client: StreamClient, stream: str) -> None:
    await client.ensure_stream(f"{stream}-2", shards=4)
    for one in (stream, f"{stream}-2"):
        await put(client, one, range(5))
        assert await stored_data(client, one) == names(range(5))


async def test_many_senders_of_the_same(client: StreamClient, stream: str) -> None:
    await asyncio.gather(*(put(client, stream, range(100)) for _ in range(10)))
    assert await stored_data(client, stream) == names(range(100))


async def test_order_is_kept_per_key(client: StreamClient, stream: str) -> None:
    for start in range(0, 200, 20):
        await put(client, stream, range(max(start - 15, 0), start + 20))
    for records in (await stored(client, stream)).values():
        order = [int(record.data) for record in records]
        assert order == sorted(order)


# Epochs


async def test_a_lower_epoch_is_fenced_and_stores_nothing(
    client: StreamClient, stream: str
) -> None:
    await put(client, stream, range(16), epoch=3)
    with pytest.raises(ProducerFenced):
        await put(client, stream, range(16, 32), epoch=2)
    with pytest.raises(ProducerFenced):
        await put(client, stream, range(16), epoch=0)
    assert await stored_data(client, stream) == names(range(16))
    await put(client, stream, range(16, 20), epoch=3)
    assert await stored_data(client, stream) == names(range(20))


async def test_a_higher_epoch_starts_over(client: StreamClient, stream: str) -> None:
    await put(client, stream, range(100, 116), mark="a")
    await put(client, stream, range(16), epoch=1, mark="b")
    await put(client, stream, range(16), epoch=1, mark="c")
    await put(client, stream, range(16), epoch=2**63 - 1, mark="d")
    found = await stored_data(client, stream)
    assert sorted(found) == sorted(
        [f"{i}a" for i in range(100, 116)] + [f"{i}{mark}" for mark in "bd" for i in range(16)]
    )


# Headers


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X-Headrace-Producer": ""}, "ValidationException"),
        ({"X-Headrace-Producer": "a b"}, "ValidationException"),
        ({"X-Headrace-Producer": "x" * 257}, "ValidationException"),
        ({"X-Headrace-Producer": "ü"}, "ValidationException"),
        ({"X-Headrace-Producer-Epoch": "-1"}, "ValidationException"),
        ({"X-Headrace-Producer-Epoch": "x"}, "ValidationException"),
        ({"X-Headrace-Producer-Epoch": str(2**63)}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": ""}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "1,x"}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "-1,1"}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "1" * 81 + ",1"}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "1"}, "InvalidArgumentException"),
        ({"X-Headrace-Producer-Sequences": "1,1,1"}, "InvalidArgumentException"),
        ({"X-Headrace-Producer-Sequences": "5,-1"}, "InvalidArgumentException"),
    ],
)
def test_headers_that_make_no_sense(
    raw: Raw, kinesis: Any, name: str, headers: dict[str, str], code: str
) -> None:
    create(kinesis, name)
    records = [{"Data": "", "PartitionKey": "k"}] * 2
    good = {
        "X-Headrace-Producer": "p",
        "X-Headrace-Producer-Epoch": "0",
        "X-Headrace-Producer-Sequences": "1,1",
    }
    body = {"StreamName": name, "Records": records}
    reply = raw.call("PutRecords", body, headers={**good, **headers})
    assert (reply.status, reply.json["__type"]) == (400, code)
    assert read_stream(kinesis, name) == {"shardId-000000000000": []}
    assert raw.call("PutRecords", body, headers=good).status == 200


def test_a_single_record_with_a_stamp(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    headers = {"X-Headrace-Producer": "p", "X-Headrace-Producer-Sequences": "7"}
    body = {"StreamName": name, "Data": "eA==", "PartitionKey": "k"}
    one, two = (raw.call("PutRecord", body, headers=headers) for _ in range(2))
    assert one.json == two.json
    assert len(read_stream(kinesis, name)["shardId-000000000000"]) == 1


def test_the_longest_headers(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    body = {"StreamName": name, "Records": [{"Data": "", "PartitionKey": "k"}] * 500}
    sequences = ",".join(["1" + "0" * 60] * 500)  # deltas as large as the first: 30 KB
    headers = {"X-Headrace-Producer": "p", "X-Headrace-Producer-Sequences": sequences}
    for _ in range(2):
        reply = raw.call("PutRecords", body, headers=headers)
        assert reply.status == 200, reply.body
    assert len(read_stream(kinesis, name)["shardId-000000000000"]) == 500


def test_a_fenced_producer_is_told_so(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    body = {"StreamName": name, "Records": [{"Data": "", "PartitionKey": "k"}]}

    def headers(epoch: int) -> dict[str, str]:
        return {
            "X-Headrace-Producer": "p",
            "X-Headrace-Producer-Epoch": str(epoch),
            "X-Headrace-Producer-Sequences": "1",
        }

    assert raw.call("PutRecords", body, headers=headers(5)).status == 200
    reply_is(
        raw.call("PutRecords", body, headers=headers(4)),
        "ProducerFencedException",
        "Producer p has written with epoch 5; this request has epoch 4.",
    )


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


async def test_across_splits_and_merges(client: StreamClient, stream: str) -> None:
    await put(client, stream, range(16))
    for i, what in enumerate(STORY):
        await reshard(client, stream, what)
        results = await put(client, stream, range(16 * (i + 2)))
        found = await stored(client, stream)
        numbers = {shard: {r.sequence_number for r in rs} for shard, rs in found.items()}
        assert all(r.sequence_number in numbers[r.shard_id or ""] for r in results)
    assert await stored_data(client, stream) == names(range(96))


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
