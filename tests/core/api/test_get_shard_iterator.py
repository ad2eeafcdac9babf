"""GetShardIterator: five ways to say where to begin, each exact to the record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api_support import (
    ACCOUNT,
    Raw,
    create,
    iterator,
    read_from,
    read_shard,
    refused,
    reply_is,
    server_here,
)
from headrace.core.client import StreamClient
from headrace.core.errors import InvalidArgument
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock

FIRST = "shardId-000000000000"


# Serialization


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("ShardId", [], "Start of list found where not expected"),
        (
            "ShardIteratorType",
            1,
            "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted "
            "to an String",
        ),
        (
            "Timestamp",
            "yesterday",
            "class java.lang.String can not be converted to milliseconds since epoch",
        ),
    ],
)
def test_wire_29_wrong_types(raw: Raw, member: str, value: object, message: str) -> None:
    request = {"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST", member: value}
    reply_is(raw.call("GetShardIterator", request), "SerializationException", message)


# Validation


def test_wire_23_an_unknown_type(unchecked: Any) -> None:
    with refused(
        "ValidationException",
        "1 validation error detected: Value 'NOW' at 'shardIteratorType' failed to satisfy "
        "constraint: Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, "
        "AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]",
    ):
        iterator(unchecked, "s", kind="NOW")


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        iterator(kinesis, "none")


def test_wire_8_no_such_shard(kinesis: Any, name: str) -> None:
    create(kinesis, name, 2)
    with refused(
        "ResourceNotFoundException",
        f"Shard shardId-000000000005 in stream {name} under account {ACCOUNT} does not exist",
    ):
        iterator(kinesis, name, 5)
    for text in ("shardId", "shardId-9999999999999", "4294967296"):
        with refused("ResourceNotFoundException"):
            iterator(kinesis, name, text)


@pytest.mark.parametrize("text", ["0", "shardId-0", "shardId-00", "anything-0", FIRST])
def test_wire_6_ways_to_name_a_shard(kinesis: Any, name: str, text: str) -> None:
    create(kinesis, name)
    kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    assert len(read_shard(kinesis, name, text)) == 1


@pytest.mark.parametrize("kind", ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"])
def test_wire_12_a_sequence_number_is_missing(kinesis: Any, name: str, kind: str) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "
        "StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        f"Request specified {kind} and no StartingSequenceNumber.",
    ):
        iterator(kinesis, name, kind=kind)


@pytest.mark.parametrize("kind", ["TRIM_HORIZON", "LATEST"])
def test_wire_12_a_sequence_number_too_many(kinesis: Any, name: str, kind: str) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "
        "StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        f"Request specified {kind} and also a StartingSequenceNumber.",
    ):
        iterator(kinesis, name, kind=kind, StartingSequenceNumber="1")


def test_wire_13_a_sequence_number_of_another_shard(kinesis: Any, name: str) -> None:
    create(kinesis, name, 6)
    number = kinesis.put_record(
        StreamName=name, Data=b"", PartitionKey="k", ExplicitHashKey=str(2**128 - 1)
    )["SequenceNumber"]
    with refused(
        "InvalidArgumentException",
        "Invalid StartingSequenceNumber. It encodes shardId-000000000005, while it was used in a "
        "call to a shard with shardId-000000000000",
    ):
        iterator(kinesis, name, kind="AT_SEQUENCE_NUMBER", StartingSequenceNumber=number)


@pytest.mark.parametrize("number", ["0", "1", "5" * 56, "9" * 129])
def test_wire_14_what_is_no_sequence_number(kinesis: Any, name: str, number: str) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        f"StartingSequenceNumber {number} used in GetShardIterator on shard {FIRST} in stream "
        f"{name} under account {ACCOUNT} is invalid.",
    ):
        iterator(kinesis, name, kind="AT_SEQUENCE_NUMBER", StartingSequenceNumber=number)


def test_wire_15_a_timestamp_is_missing(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current "
        "request has no timestamp parameter.",
    ):
        iterator(kinesis, name, kind="AT_TIMESTAMP")


async def test_wire_16_a_timestamp_in_the_future(tmp_path: Path) -> None:
    clock = ManualClock(1_790_000_000_123)
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        assert await client.get_shard_iterator("s", FIRST, "AT_TIMESTAMP", at_ms=clock.now_ms())
        with pytest.raises(InvalidArgument) as caught:
            await client.get_shard_iterator("s", FIRST, "AT_TIMESTAMP", at_ms=1_790_000_000_124)
        assert caught.value.message == (
            "The timestampInMillis parameter cannot be greater than the "
            "currentTimestampInMillis. timestampInMillis: 1790000000124, "
            "currentTimestampInMillis: 1790000000123"
        )


def test_wire_17_after_the_end_of_a_closed_shard(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    kinesis.split_shard(StreamName=name, ShardToSplit="0", NewStartingHashKey=str(2**127))
    ranges = kinesis.list_shards(StreamName=name)["Shards"][0]["SequenceNumberRange"]
    end = ranges["EndingSequenceNumber"]
    with refused(
        "InvalidArgumentException",
        "Invalid SequenceNumber for ShardIteratorType AFTER_SEQUENCE_NUMBER, SequenceNumber has "
        "reached max possible value for the shard.",
    ):
        iterator(kinesis, name, kind="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=end)
    at_end = iterator(kinesis, name, kind="AT_SEQUENCE_NUMBER", StartingSequenceNumber=end)
    assert read_from(kinesis, at_end) == []


# Behaviour


@pytest.mark.parametrize("limit", [1, 3, 10_000])
def test_at_and_after_every_record_of_many_frames(kinesis: Any, name: str, limit: int) -> None:
    create(kinesis, name)
    numbers: list[str] = []
    for size in (1, 4, 2, 1):  # a request is a frame here: nobody else puts
        answer = kinesis.put_records(
            StreamName=name,
            Records=[{"Data": b"x", "PartitionKey": "k"} for _ in range(size)],
        )
        numbers += [result["SequenceNumber"] for result in answer["Records"]]
    for i, number in enumerate(numbers):
        for kind, first in (("AT_SEQUENCE_NUMBER", i), ("AFTER_SEQUENCE_NUMBER", i + 1)):
            token = iterator(kinesis, name, kind=kind, StartingSequenceNumber=number)
            found = [r["SequenceNumber"] for r in read_from(kinesis, token, limit)]
            assert found == numbers[first:], (i, kind)


def test_at_the_starting_sequence_number_is_the_beginning(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    (shard,) = kinesis.list_shards(StreamName=name)["Shards"]
    start = shard["SequenceNumberRange"]["StartingSequenceNumber"]
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        token = iterator(kinesis, name, kind=kind, StartingSequenceNumber=start)
        assert len(read_from(kinesis, token)) == 1


def test_latest_gives_what_comes_after(kinesis: Any, name: str) -> None:
    create(kinesis, name, 2)

    def put(data: bytes, hash_key: int) -> None:
        kinesis.put_record(
            StreamName=name, Data=data, PartitionKey="k", ExplicitHashKey=str(hash_key)
        )

    put(b"before", 0)
    token = iterator(kinesis, name, kind="LATEST")
    assert kinesis.get_records(ShardIterator=token)["Records"] == []
    put(b"other shard", 2**128 - 1)
    put(b"after", 0)
    put(b"and more", 0)
    assert [r["Data"] for r in read_from(kinesis, token)] == [b"after", b"and more"]


async def test_at_timestamp_is_exact_to_the_millisecond(tmp_path: Path) -> None:
    start_ms = 1_790_000_000_997
    clock = ManualClock(start_ms)
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        # over the edge of a second, some milliseconds with two frames, some with none
        for i, step_ms in enumerate([1, 1, 0, 1, 3, 0, 0, 1, 994]):
            clock.step_wall(step_ms)
            await client.put_records(
                "s", [PutEntry(b"%d %d" % (i, clock.now_ms()), "k"), PutEntry(b"", "k")]
            )
        token = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        whole = (await client.get_records(token)).records
        assert all(
            record.approximate_arrival_ms == int(record.data.split()[1])
            for record in whole
            if record.data
        )
        for at_ms in range(start_ms - 2, start_ms + 12):
            if at_ms <= clock.now_ms():
                token = await client.get_shard_iterator("s", FIRST, "AT_TIMESTAMP", at_ms=at_ms)
                found = (await client.get_records(token)).records
                expected = [r for r in whole if r.approximate_arrival_ms >= at_ms]
                assert found == expected, at_ms - start_ms
        for at_ms in (0, 1, -5):
            token = await client.get_shard_iterator("s", FIRST, "AT_TIMESTAMP", at_ms=at_ms)
            assert (await client.get_records(token)).records == whole


async def test_a_clock_that_goes_back_does_not_turn_arrivals_round(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        for step_ms in (0, -60_000, 10, -3_600_000, 5):
            clock.step_wall(step_ms)
            await client.put_records("s", [PutEntry(b"", "k")])
        token = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        found = (await client.get_records(token)).records
        arrivals = [record.approximate_arrival_ms for record in found]
        numbers = [int(record.sequence_number) for record in found]
        assert len(found) == 5
        assert arrivals == sorted(arrivals)
        assert numbers == sorted(numbers)


def test_iterators_differ_each_time(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    tokens = {iterator(kinesis, name) for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) <= 512 for token in tokens)


def test_a_dry_run(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused("DryRunOperationException"):
        iterator(kinesis, name, DryRun=True)


async def test_many_at_once(tmp_path: Path) -> None:
    async with (
        server_here(tmp_path / "s") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        tokens = await asyncio.gather(
            *(client.get_shard_iterator("s", FIRST, "LATEST") for _ in range(100))
        )
        assert len(set(tokens)) == 100
