"""GetRecords: every record once, in order, however it is cut into answers."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest

from api_support import (
    ACCOUNT,
    Raw,
    boto3_client,
    create,
    iterator,
    read_from,
    refused,
    reply_is,
    server_here,
    shards_of,
)
from headrace.core.client import StreamClient
from headrace.core.errors import ExpiredIterator, InvalidArgument
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess

FIRST = "shardId-000000000000"
HOUR_MS = 3_600_000


def put(kinesis: Any, stream: str, *data: bytes) -> None:
    kinesis.put_records(
        StreamName=stream, Records=[{"Data": one, "PartitionKey": "k"} for one in data]
    )


# Serialization


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("ShardIterator", {}, "Start of structure or map found where not expected."),
        ("Limit", "5", "class java.lang.String can not be converted to an Integer"),
        ("Limit", True, "class java.lang.Boolean can not be converted to an Integer"),
    ],
)
def test_wire_29_wrong_types(raw: Raw, member: str, value: object, message: str) -> None:
    reply_is(
        raw.call("GetRecords", {"ShardIterator": "x", member: value}),
        "SerializationException",
        message,
    )


# Validation


@pytest.mark.parametrize(("limit", "bound"), [(0, "greater than or equal to 1"), (10_001, None)])
def test_wire_23_a_limit_out_of_bounds(unchecked: Any, limit: int, bound: str | None) -> None:
    with refused(
        "ValidationException",
        f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
        f"Member must have value {bound or 'less than or equal to 10000'}",
    ):
        unchecked.get_records(ShardIterator="x", Limit=limit)


@pytest.mark.parametrize(
    "token", ["x", "é", "AAAA", "A" * 512, '"', '""', "=" * 8, "AAAAAAAAAAAAAAAAAAAAAA=="]
)
def test_wire_18_what_is_no_iterator(kinesis: Any, token: str) -> None:
    with refused("InvalidArgumentException", "Invalid ShardIterator."):
        kinesis.get_records(ShardIterator=token)


def test_wire_18_an_iterator_that_was_changed(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    token = iterator(kinesis, name)
    for i in range(0, len(token), 7):
        other = "B" if token[i] == "A" else "A"
        with refused("InvalidArgumentException", "Invalid ShardIterator."):
            kinesis.get_records(ShardIterator=token[:i] + other + token[i + 1 :])


def test_wire_18_an_iterator_of_another_store(kinesis: Any, name: str, tmp_path: Path) -> None:
    create(kinesis, name)
    with ServerProcess(tmp_path / "other") as other:
        there = boto3_client(other.endpoint)
        create(there, name)
        with refused("InvalidArgumentException", "Invalid ShardIterator."):
            kinesis.get_records(ShardIterator=iterator(there, name))


def test_an_iterator_of_another_region(server: ServerProcess, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    there = boto3_client(server.endpoint, region="eu-west-1")
    with refused("InvalidArgumentException", "Invalid ShardIterator."):
        there.get_records(ShardIterator=iterator(kinesis, name))


def test_an_iterator_of_a_deleted_stream(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    token = iterator(kinesis, name)
    kinesis.delete_stream(StreamName=name)
    with refused("ResourceNotFoundException"):
        kinesis.get_records(ShardIterator=token)


async def test_wire_19_an_iterator_lives_for_300_seconds(tmp_path: Path) -> None:
    clock = ManualClock(1_790_000_000_000)  # Mon Sep 21 2026, 14:13:20
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        token = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        clock.step_wall(300_000)
        renewed = (await client.get_records(token)).next_iterator
        clock.step_wall(1)
        with pytest.raises(ExpiredIterator) as caught:
            await client.get_records(token)
        assert caught.value.message == (
            "Iterator expired. The iterator was created at time Mon Sep 21 14:13:20 UTC 2026 "
            "while right now it is Mon Sep 21 14:18:20 UTC 2026 which is further in the future "
            "than the tolerated delay of 300000 milliseconds."
        )
        assert renewed is not None
        assert (await client.get_records(renewed)).records == []
        clock.step_wall(-HOUR_MS)  # a clock set back does no harm
        assert (await client.get_records(renewed)).next_iterator is not None


def test_a_dry_run(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused("DryRunOperationException"):
        kinesis.get_records(ShardIterator=iterator(kinesis, name), DryRun=True)


# Behaviour


def test_an_empty_shard(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    reply = raw.call("GetRecords", {"ShardIterator": iterator(kinesis, name)})
    assert reply.status == 200
    assert set(reply.json) == {"Records", "NextShardIterator", "MillisBehindLatest"}
    assert (reply.json["Records"], reply.json["MillisBehindLatest"]) == ([], 0)


def test_wire_34_the_answer_to_the_byte(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    put(kinesis, name, b"\x00\xff", b"")
    reply = raw.call("GetRecords", {"ShardIterator": iterator(kinesis, name)})
    pattern = (
        r'\{"Records":\['
        r'\{"ApproximateArrivalTimestamp":\d{10}\.\d{3},"Data":"AP8=","PartitionKey":"k",'
        r'"SequenceNumber":"\d{56}"\},'
        r'\{"ApproximateArrivalTimestamp":\d{10}\.\d{3},"Data":"","PartitionKey":"k",'
        r'"SequenceNumber":"\d{56}"\}\],'
        r'"MillisBehindLatest":0,"NextShardIterator":"[A-Za-z0-9+/=]+"\}'
    )
    assert re.fullmatch(pattern, reply.body.decode())


def test_arrival_is_now(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(milliseconds=1)
    put(kinesis, name, b"x")
    after = datetime.datetime.now(datetime.UTC)
    (record,) = read_from(kinesis, iterator(kinesis, name))
    assert before <= record["ApproximateArrivalTimestamp"] <= after


def test_wire_20_every_next_iterator_differs(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    token = iterator(kinesis, name)
    seen = {token}
    for i in range(20):
        if i == 10:
            put(kinesis, name, b"x")
        token = kinesis.get_records(ShardIterator=token)["NextShardIterator"]
        assert token not in seen
        seen.add(token)


def test_wire_20_an_iterator_in_the_quotes_it_was_printed_with(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    put(kinesis, name, b"x")
    token = iterator(kinesis, name)
    assert len(kinesis.get_records(ShardIterator=f'"{token}"')["Records"]) == 1


def test_the_same_iterator_gives_the_same_records(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    put(kinesis, name, b"1", b"2", b"3")
    token = iterator(kinesis, name)
    first = kinesis.get_records(ShardIterator=token, Limit=2)["Records"]
    put(kinesis, name, b"4")
    assert kinesis.get_records(ShardIterator=token, Limit=2)["Records"] == first


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 100])
def test_every_limit_gives_all_records_once(kinesis: Any, name: str, limit: int) -> None:
    create(kinesis, name)
    data = [b"%d" % i for i in range(25)]
    for start, end in ((0, 3), (3, 4), (4, 14), (14, 25)):
        put(kinesis, name, *data[start:end])
    found: list[Any] = []
    token = iterator(kinesis, name)
    while len(found) < 25:
        answer = kinesis.get_records(ShardIterator=token, Limit=limit)
        assert len(answer["Records"]) == min(limit, 25 - len(found))
        found += [record["Data"] for record in answer["Records"]]
        token = answer["NextShardIterator"]
    assert found == data
    last = kinesis.get_records(ShardIterator=token)
    assert (last["Records"], last["MillisBehindLatest"]) == ([], 0)


def test_ten_thousand_records_at_once_and_the_rest_after(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    for first in range(0, 10_500, 500):
        put(kinesis, name, *(b"%d" % i for i in range(first, first + 500)))
    answer = kinesis.get_records(ShardIterator=iterator(kinesis, name))
    assert [int(record["Data"]) for record in answer["Records"]] == list(range(10_000))
    rest = kinesis.get_records(ShardIterator=answer["NextShardIterator"])["Records"]
    assert [int(record["Data"]) for record in rest] == list(range(10_000, 10_500))


def test_an_answer_has_at_most_10_mib(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    sizes = [900_000 + i for i in range(30)]
    for first in range(0, 30, 10):
        put(kinesis, name, *map(bytes, sizes[first : first + 10]))
    found: list[Any] = []
    token = iterator(kinesis, name)
    while len(found) < 30:
        answer = kinesis.get_records(ShardIterator=token)
        assert 0 < sum(len(record["Data"]) for record in answer["Records"]) <= 10 * 1024 * 1024
        found += [len(record["Data"]) for record in answer["Records"]]
        token = answer["NextShardIterator"]
    assert found == sizes


async def test_how_far_behind_the_latest(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        for data in (b"1", b"2", b"3"):
            await client.put_records("s", [PutEntry(data, "k")])
            await clock.advance(1000)
        token: str | None = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        behind: list[int] = []
        while token and len(behind) < 4:
            got = await client.get_records(token, limit=1)
            behind.append(got.millis_behind_latest)
            token = got.next_iterator
        # what is next after the first record has waited for 2 s, then for 1 s, then nothing is
        assert behind == [2000, 1000, 0, 0]


async def test_what_has_expired_is_not_given(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        for hour in range(30):
            await client.put_records("s", [PutEntry(b"%d" % hour, "k")])
            clock.step_wall(HOUR_MS)
        token = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        found = (await client.get_records(token)).records
        # now is hour 30; what arrived at hour 6 has just turned 24 hours old
        assert [int(record.data) for record in found] == list(range(6, 30))
        clock.step_wall(1)
        found = (await client.get_records(token)).records
        assert found[0].data in (b"6", b"7")  # looked up once a second
        clock.step_wall(2 * HOUR_MS)
        token = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        found = (await client.get_records(token, limit=3)).records
        assert [int(record.data) for record in found] == [9, 10, 11]
        clock.step_wall(100 * HOUR_MS)
        token = await client.get_shard_iterator("s", FIRST, "TRIM_HORIZON")
        got = await client.get_records(token)
        assert (got.records, got.millis_behind_latest) == ([], 0)
        assert got.next_iterator is not None
        await client.put_records("s", [PutEntry(b"new", "k")])
        got = await client.get_records(got.next_iterator)
        assert [record.data for record in got.records] == [b"new"]


def test_the_end_of_a_closed_shard_names_its_children(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    put(kinesis, name, b"1", b"2")
    kinesis.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
    whole = raw.call("GetRecords", {"ShardIterator": iterator(kinesis, name)}).json
    assert "NextShardIterator" not in whole
    assert (len(whole["Records"]), whole["MillisBehindLatest"]) == (2, 0)
    assert whole["ChildShards"] == [
        {
            "ShardId": shard["ShardId"],
            "ParentShards": [FIRST],
            "HashKeyRange": shard["HashKeyRange"],
        }
        for shard in shards_of(kinesis, name)[1:]
    ]
    # not at its end yet: no children named
    part = kinesis.get_records(ShardIterator=iterator(kinesis, name), Limit=1)
    assert "ChildShards" not in part
    rest = kinesis.get_records(ShardIterator=part["NextShardIterator"])
    assert [record["Data"] for record in rest["Records"]] == [b"2"]
    assert len(rest["ChildShards"]) == 2
    # nothing after it, and nothing at LATEST
    latest = kinesis.get_records(ShardIterator=iterator(kinesis, name, kind="LATEST"))
    assert latest["Records"] == []
    assert len(latest["ChildShards"]) == 2


def test_a_reader_waiting_at_the_tail_is_told_of_the_end(kinesis: Any, name: str) -> None:
    create(kinesis, name, 2)
    put(kinesis, name, b"x")
    tokens = [iterator(kinesis, name, shard) for shard in (0, 1)]
    tokens = [kinesis.get_records(ShardIterator=token)["NextShardIterator"] for token in tokens]
    kinesis.merge_shards(
        StreamName=name, ShardToMerge=FIRST, AdjacentShardToMerge="shardId-000000000001"
    )
    for token in tokens:
        answer = kinesis.get_records(ShardIterator=token)
        assert answer.get("NextShardIterator") is None
        (child,) = answer["ChildShards"]
        assert child["ShardId"] == "shardId-000000000002"
        assert child["ParentShards"] == [FIRST, "shardId-000000000001"]


def test_the_arn_may_be_given_too(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    arn = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}"
    assert "Records" in kinesis.get_records(ShardIterator=iterator(kinesis, name), StreamARN=arn)


async def test_an_iterator_from_the_future_of_the_log_is_harmless(tmp_path: Path) -> None:
    """A sequence number of the right form, but of no record: there is nothing there (yet)."""
    async with (
        server_here(tmp_path / "s") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        (result,) = await client.put_records("s", [PutEntry(b"x", "k")])
        assert result.sequence_number is not None
        beyond = str(int(result.sequence_number) + (1 << 120))
        token = await client.get_shard_iterator(
            "s", FIRST, "AT_SEQUENCE_NUMBER", sequence_number=beyond
        )
        assert (await client.get_records(token)).records == []
        with pytest.raises(InvalidArgument):
            await client.get_shard_iterator(
                "s", FIRST, "AT_SEQUENCE_NUMBER", sequence_number=str(2**186 - 1)
            )
