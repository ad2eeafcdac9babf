"""MergeShards: one shard in place of two that lie side by side."""

from __future__ import annotations

from typing import Any

import pytest

from api_support import (
    ACCOUNT,
    TOP,
    Raw,
    create,
    hash_range,
    read_shard,
    refused,
    reply_is,
    shards_of,
)

IDS = [f"shardId-{i:012d}" for i in range(10)]


def merge(kinesis: Any, name: str, one: int, other: int) -> None:
    kinesis.merge_shards(StreamName=name, ShardToMerge=IDS[one], AdjacentShardToMerge=IDS[other])


# Serialization


@pytest.mark.parametrize("member", ["ShardToMerge", "AdjacentShardToMerge"])
def test_wire_29_wrong_types(raw: Raw, member: str) -> None:
    request = {"StreamName": "s", "ShardToMerge": "0", "AdjacentShardToMerge": "1", member: {}}
    reply_is(
        raw.call("MergeShards", request),
        "SerializationException",
        "Start of structure or map found where not expected.",
    )


# Validation


def test_wire_23_members_that_are_missing(unchecked: Any) -> None:
    with refused(
        "ValidationException",
        "2 validation errors detected: "
        "Value null at 'shardToMerge' failed to satisfy constraint: Member must not be null; "
        "Value null at 'adjacentShardToMerge' failed to satisfy constraint: "
        "Member must not be null",
    ):
        unchecked.merge_shards(StreamName="s")


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        merge(kinesis, "none", 0, 1)


@pytest.mark.parametrize("pair", [(0, 7), (7, 0)])
def test_wire_7_no_such_shard(kinesis: Any, name: str, pair: tuple[int, int]) -> None:
    create(kinesis, name, 2)
    with refused(
        "ResourceNotFoundException",
        f"Could not find shard shardId-000000000007 in stream {name} under account {ACCOUNT}.",
    ):
        merge(kinesis, name, *pair)


@pytest.mark.parametrize("pair", [(0, 2), (1, 0), (2, 0), (1, 1)])
def test_wire_11_what_is_not_adjacent_in_this_order(
    kinesis: Any, name: str, pair: tuple[int, int]
) -> None:
    create(kinesis, name, 3)
    one, other = (IDS[i] for i in pair)
    with refused(
        "InvalidArgumentException",
        f"Shards {one} and {other} in stream {name} under account {ACCOUNT} are not an adjacent "
        "pair of shards eligible for merging",
    ):
        merge(kinesis, name, *pair)
    assert len(shards_of(kinesis, name)) == 3


def test_wire_10_a_shard_is_merged_once(kinesis: Any, name: str) -> None:
    create(kinesis, name, 3)
    merge(kinesis, name, 0, 1)
    for pair, closed in (((0, 1), 0), ((1, 2), 1)):
        with refused(
            "InvalidArgumentException",
            f"Shard {IDS[closed]} in stream {name} under account {ACCOUNT} has already been "
            "merged or split, and thus is not eligible for merging or splitting.",
        ):
            merge(kinesis, name, *pair)
    with refused("InvalidArgumentException"):  # the child lies before it
        merge(kinesis, name, 2, 3)
    merge(kinesis, name, 3, 2)
    assert len(shards_of(kinesis, name)) == 5


# Behaviour


def test_parents_and_child(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name, 2)
    reply = raw.call(
        "MergeShards",
        {"StreamName": name, "ShardToMerge": IDS[0], "AdjacentShardToMerge": IDS[1]},
    )
    assert (reply.status, reply.body) == (200, b"")
    left, right, child = shards_of(kinesis, name)
    assert hash_range(child) == (0, TOP)
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (IDS[0], IDS[1])
    for parent in (left, right):
        end = int(parent["SequenceNumberRange"]["EndingSequenceNumber"])
        assert int(child["SequenceNumberRange"]["StartingSequenceNumber"]) > end


def test_records_before_and_after(kinesis: Any, name: str) -> None:
    create(kinesis, name, 2)
    answers = []
    for data, hash_key in ((b"left", 0), (b"right", TOP), (None, 0), (b"low", 0), (b"high", TOP)):
        if data is None:
            merge(kinesis, name, 0, 1)
            continue
        answers.append(
            kinesis.put_record(
                StreamName=name, Data=data, PartitionKey="k", ExplicitHashKey=str(hash_key)
            )
        )
    assert [answer["ShardId"] for answer in answers] == [IDS[0], IDS[1], IDS[2], IDS[2]]
    numbers = [int(answer["SequenceNumber"]) for answer in answers]
    assert max(numbers[:2]) < min(numbers[2:])
    assert [[r["Data"] for r in read_shard(kinesis, name, i)] for i in range(3)] == [
        [b"left"],
        [b"right"],
        [b"low", b"high"],
    ]


def test_a_split_undone_and_done_again(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    shard, count = 0, 1
    for turn in range(8):
        kinesis.put_record(StreamName=name, Data=b"%d" % turn, PartitionKey="k")
        kinesis.split_shard(
            StreamName=name,
            ShardToSplit=f"shardId-{shard:012d}",
            NewStartingHashKey=str(2**127),
        )
        kinesis.merge_shards(
            StreamName=name,
            ShardToMerge=f"shardId-{count:012d}",
            AdjacentShardToMerge=f"shardId-{count + 1:012d}",
        )
        shard, count = count + 2, count + 3
    shards = shards_of(kinesis, name)
    assert len(shards) == 1 + 8 * 3
    assert hash_range(shards[-1]) == (0, TOP)
    found = [record["Data"] for s in shards for record in read_shard(kinesis, name, s["ShardId"])]
    assert found == [b"%d" % turn for turn in range(8)]
