"""ListShards: pages, tokens that expire, and the shards of a certain time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from api_support import (
    ACCOUNT,
    TOP,
    Raw,
    boto3_client,
    create,
    hash_range,
    list_shards,
    refused,
    reply_is,
    server_here,
    shards_of,
)
from headrace.core.client import StreamClient
from headrace.core.errors import ResourceNotFound
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess

HALF = str(2**127)
HOUR_MS = 3_600_000


def numbers(shards: list[dict[str, Any]]) -> list[int]:
    return [int(shard["ShardId"][-12:]) for shard in shards]


# Serialization


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"MaxResults": []}, "Start of list found where not expected"),
        ({"ShardFilter": "AT_LATEST"}, "Expected null"),
        (
            {"StreamName": "s", "ShardFilter": {"Type": "AT_TIMESTAMP", "Timestamp": "now"}},
            "class java.lang.String can not be converted to milliseconds since epoch",
        ),
    ],
)
def test_wire_29_wrong_types(raw: Raw, body: object, message: str) -> None:
    reply_is(raw.call("ListShards", body), "SerializationException", message)


# Validation


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        kinesis.list_shards(StreamName="none")


def test_wire_26_neither_token_nor_name(kinesis: Any) -> None:
    with refused("InvalidArgumentException", "Either NextToken or StreamName should be provided."):
        kinesis.list_shards()


def test_wire_26_token_and_name_together(kinesis: Any, name: str) -> None:
    create(kinesis, name, 2)
    token = kinesis.list_shards(StreamName=name, MaxResults=1)["NextToken"]
    with refused(
        "InvalidArgumentException", "NextToken and StreamName cannot be provided together."
    ):
        kinesis.list_shards(StreamName=name, NextToken=token)
    with refused("InvalidArgumentException"):
        kinesis.list_shards(NextToken=token, ExclusiveStartShardId="shardId-000000000001")


def test_a_token_is_of_one_stream_not_of_its_name(
    kinesis: Any, name: str, server: ServerProcess
) -> None:
    create(kinesis, name, 2)
    token = kinesis.list_shards(StreamName=name, MaxResults=1)["NextToken"]
    with contextlib.closing(boto3_client(server.endpoint, region="eu-west-1")) as elsewhere:
        create(elsewhere, name, 2)
        with refused("InvalidArgumentException"):
            elsewhere.list_shards(NextToken=token)
    kinesis.delete_stream(StreamName=name)
    create(kinesis, name, 2)
    with refused("InvalidArgumentException"):
        kinesis.list_shards(NextToken=token)


def token_of(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "é",
        "A" * 100_000,
        token_of(None),
        token_of(["s"]),
        token_of([[1, 2, None], 3]),
        token_of([["s", "u", "shardId-000000000000", "AT_LATEST"], 1]),
        token_of([["s", "u", "shardId-000000000000", {"Kind": 1}], 1]),
        token_of([["s", "u", "shardId-000000000000", None], "1"]),
        base64.b64encode(b"[" * 100_000).decode(),
    ],
    ids=range(10),
)
def test_what_is_no_token(kinesis: Any, token: str) -> None:
    with refused("InvalidArgumentException", "Invalid NextToken."):
        kinesis.list_shards(NextToken=token)


@pytest.mark.parametrize("kind", ["AFTER_SHARD_ID", "AT_TIMESTAMP", "FROM_TIMESTAMP"])
def test_a_filter_that_lacks_its_member(kinesis: Any, name: str, kind: str) -> None:
    create(kinesis, name)
    with refused("InvalidArgumentException"):
        kinesis.list_shards(StreamName=name, ShardFilter={"Type": kind})


# Behaviour


def test_an_answer_to_the_byte(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    reply = raw.call("ListShards", {"StreamName": name})
    assert list(reply.json) == ["Shards"]
    (shard,) = reply.json["Shards"]
    assert set(shard) == {"ShardId", "HashKeyRange", "SequenceNumberRange"}
    assert set(shard["SequenceNumberRange"]) == {"StartingSequenceNumber"}


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_pages(kinesis: Any, name: str, size: int) -> None:
    create(kinesis, name, 10)
    assert numbers(list_shards(kinesis, StreamName=name, MaxResults=size)) == list(range(10))
    assert len(kinesis.list_shards(StreamName=name, MaxResults=size)["Shards"]) == min(size, 10)


def test_wire_26_the_paginator_repeats_the_name_and_is_refused(kinesis: Any, name: str) -> None:
    """As on AWS, where it never gets past the first page either."""
    create(kinesis, name, 3)
    paginator = kinesis.get_paginator("list_shards")
    assert len(paginator.paginate(StreamName=name).build_full_result()["Shards"]) == 3
    with refused(
        "InvalidArgumentException", "NextToken and StreamName cannot be provided together."
    ):
        list(paginator.paginate(StreamName=name, PaginationConfig={"PageSize": 2}))


def test_a_thousand_shards_a_page(kinesis: Any, name: str) -> None:
    create(kinesis, name, 1001)
    first = kinesis.list_shards(StreamName=name)
    assert len(first["Shards"]) == 1000
    rest = kinesis.list_shards(NextToken=first["NextToken"])
    assert numbers(rest["Shards"]) == [1000]
    assert "NextToken" not in rest
    assert len(kinesis.list_shards(StreamName=name, MaxResults=10_000)["Shards"]) == 1000


def test_after_a_shard(kinesis: Any, name: str) -> None:
    create(kinesis, name, 12)
    after = {"ExclusiveStartShardId": "shardId-000000000009"}
    assert numbers(kinesis.list_shards(StreamName=name, **after)["Shards"]) == [10, 11]
    after = {"ExclusiveStartShardId": "shardId-9"}  # wire.md 6
    assert numbers(kinesis.list_shards(StreamName=name, **after)["Shards"]) == [10, 11]
    by_filter = {"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000009"}
    assert numbers(kinesis.list_shards(StreamName=name, ShardFilter=by_filter)["Shards"]) == [
        10,
        11,
    ]


def test_a_filter_holds_for_all_pages(kinesis: Any, name: str) -> None:
    create(kinesis, name, 4)
    kinesis.split_shard(
        StreamName=name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**125)
    )
    wanted = {"Type": "AT_LATEST"}
    found = list_shards(kinesis, StreamName=name, ShardFilter=wanted, MaxResults=2)
    assert numbers(found) == [1, 2, 3, 4, 5]


def test_parents_are_named(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.split_shard(StreamName=name, ShardToSplit="0", NewStartingHashKey=HALF)
    kinesis.merge_shards(StreamName=name, ShardToMerge="1", AdjacentShardToMerge="2")
    parents = [
        (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
        for shard in shards_of(kinesis, name)
    ]
    first, left, right = (f"shardId-{i:012d}" for i in range(3))
    assert parents == [(None, None), (first, None), (first, None), (left, right)]


async def test_the_shards_of_a_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def listed(kind: str, at_ms: int | None = None) -> list[int]:
            wanted: dict[str, Any] = {"Type": kind}
            if at_ms is not None:
                wanted["Timestamp"] = at_ms / 1000
            answer = await client.call("ListShards", {"StreamName": "s", "ShardFilter": wanted})
            return numbers(answer["Shards"])

        start_ms = clock.now_ms()
        await client.ensure_stream("s", shards=1)
        clock.step_wall(10_000)
        split_ms = clock.now_ms()
        at = {"StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": HALF}
        await client.call("SplitShard", at)
        clock.step_wall(10_000)
        merge_ms = clock.now_ms()
        pair = {"StreamName": "s", "ShardToMerge": "1", "AdjacentShardToMerge": "2"}
        await client.call("MergeShards", pair)
        clock.step_wall(10_000)

        # the stream is younger than its retention: its horizon is where it began, KCL counts on it
        assert await listed("AT_TRIM_HORIZON") == [0]
        assert await listed("AT_TIMESTAMP", start_ms - 5_000) == [0]
        assert await listed("AT_TIMESTAMP", 0) == [0]
        assert await listed("FROM_TRIM_HORIZON") == [0, 1, 2, 3]
        assert await listed("AT_LATEST") == [3]
        assert await listed("AT_TIMESTAMP", start_ms + 5_000) == [0]
        assert await listed("AT_TIMESTAMP", split_ms + 5_000) == [1, 2]
        assert await listed("AT_TIMESTAMP", merge_ms + 5_000) == [3]
        assert await listed("FROM_TIMESTAMP", start_ms) == [0, 1, 2, 3]
        assert await listed("FROM_TIMESTAMP", split_ms + 5_000) == [1, 2, 3]
        assert await listed("FROM_TIMESTAMP", merge_ms + 5_000) == [3]
        clock.step_wall(24 * 3_600_000)
        assert await listed("FROM_TRIM_HORIZON") == [3]
        assert await listed("AT_TRIM_HORIZON") == [3]


async def test_closed_shards_leave_with_their_last_record(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def there(expected: str) -> None:
            """Wait until those shards are listed: the clock does not wait for the disk."""
            async with asyncio.timeout(10):
                found = ""
                while found != expected:
                    found = "".join(s.shard_id[-1] for s in await client.list_shards("s"))

        await client.ensure_stream("s", shards=2)
        await client.put_records("s", [PutEntry(b"0", "k", "0"), PutEntry(b"1", "k", str(TOP))])
        for shard, at in (("0", 2**126), ("1", 3 * 2**126)):
            request = {"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": str(at)}
            await client.call("SplitShard", request)
            await clock.advance(HOUR_MS)
        token = await client.get_shard_iterator("s", "0", "TRIM_HORIZON")
        await clock.advance(22 * HOUR_MS - 60_000)
        await there("012345")
        await clock.advance(HOUR_MS // 2)
        await there("12345")
        await clock.advance(HOUR_MS)
        await there("2345")
        with pytest.raises(ResourceNotFound, match="shardId-000000000000 in stream s"):
            await client.get_shard_iterator("s", "0", "TRIM_HORIZON")
        clock.step_wall(-25 * HOUR_MS)  # within the token's five minutes, but the shard is gone
        with pytest.raises(ResourceNotFound, match="shardId-000000000000 in stream s"):
            await client.get_records(token)
        # numbers are not given again
        request = {"StreamName": "s", "ShardToMerge": "2", "AdjacentShardToMerge": "3"}
        await client.call("MergeShards", request)
        await there("23456")


async def test_at_every_time_the_shards_cover_all_hash_keys(tmp_path: Path) -> None:
    """Also when reshards follow each other faster than the seconds that shards are dated in."""
    clock = ManualClock(1_790_000_000_100)
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=2)
        start_ms = clock.now_ms()
        for operation, request in (
            ("SplitShard", {"ShardToSplit": "0", "NewStartingHashKey": str(2**126)}),  # 2, 3
            ("SplitShard", {"ShardToSplit": "2", "NewStartingHashKey": str(2**125)}),  # 4, 5
            ("MergeShards", {"ShardToMerge": "3", "AdjacentShardToMerge": "1"}),  # 6
            ("MergeShards", {"ShardToMerge": "5", "AdjacentShardToMerge": "6"}),  # 7
            ("MergeShards", {"ShardToMerge": "4", "AdjacentShardToMerge": "7"}),  # 8
        ):
            await client.call(operation, {"StreamName": "s", **request})
            clock.step_wall(100)
        clock.step_wall(20_000)
        for at_ms in range(start_ms, clock.now_ms(), 250):
            wanted = {"Type": "AT_TIMESTAMP", "Timestamp": at_ms / 1000}
            answer = await client.call("ListShards", {"StreamName": "s", "ShardFilter": wanted})
            reached = -1
            for start, end in sorted(map(hash_range, answer["Shards"])):
                assert start <= reached + 1, at_ms - start_ms
                reached = max(reached, end)
            assert reached == 2**128 - 1, at_ms - start_ms
