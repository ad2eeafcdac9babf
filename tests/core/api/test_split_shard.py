"""SplitShard: two shards in place of one, while puts and reads go on."""

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

FIRST = "shardId-000000000000"
HALF = 2**127


def split(kinesis: Any, name: str, shard: str = FIRST, at: int = HALF) -> None:
    kinesis.split_shard(StreamName=name, ShardToSplit=shard, NewStartingHashKey=str(at))


# Serialization


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("ShardToSplit", False, "class java.lang.Boolean can not be converted to an String"),
        (
            "NewStartingHashKey",
            2**127,
            "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted "
            "to an String",
        ),
    ],
)
def test_wire_29_wrong_types(raw: Raw, member: str, value: object, message: str) -> None:
    request = {"StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": "9", member: value}
    reply_is(raw.call("SplitShard", request), "SerializationException", message)


# Validation


def test_wire_23_members_that_are_missing(unchecked: Any) -> None:
    with refused(
        "ValidationException",
        "2 validation errors detected: "
        "Value null at 'shardToSplit' failed to satisfy constraint: Member must not be null; "
        "Value null at 'newStartingHashKey' failed to satisfy constraint: "
        "Member must not be null",
    ):
        unchecked.split_shard(StreamName="s")


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        split(kinesis, "none")


def test_wire_7_no_such_shard(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused(
        "ResourceNotFoundException",
        f"Could not find shard shardId-000000000005 in stream {name} under account {ACCOUNT}.",
    ):
        split(kinesis, name, "shardId-5")


@pytest.mark.parametrize("offset", ["start", "start+1", "end", "end+1", "below", "far beyond"])
def test_wire_9_where_a_shard_cannot_be_split(kinesis: Any, name: str, offset: str) -> None:
    create(kinesis, name, 3)
    start, end = hash_range(shards_of(kinesis, name)[1])
    at = {
        "start": start,
        "start+1": start + 1,
        "end": end,
        "end+1": end + 1,
        "below": 5,
        "far beyond": 10**39 - 1,
    }[offset]
    with refused(
        "InvalidArgumentException",
        f"NewStartingHashKey {at} used in SplitShard() on shard shardId-000000000001 in stream "
        f"{name} under account {ACCOUNT} is not both greater than one plus the shard's "
        f"StartingHashKey {start} and less than the shard's EndingHashKey {end}.",
    ):
        split(kinesis, name, "shardId-000000000001", at)
    assert len(shards_of(kinesis, name)) == 3


@pytest.mark.parametrize("offset", [2, -1])
def test_wire_9_the_smallest_halves(kinesis: Any, name: str, offset: int) -> None:
    create(kinesis, name)
    at = offset if offset > 0 else TOP + offset
    split(kinesis, name, at=at)
    assert [hash_range(shard) for shard in shards_of(kinesis, name)[1:]] == [
        (0, at - 1),
        (at, TOP),
    ]


def test_wire_10_a_shard_is_split_once(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    split(kinesis, name)
    with refused(
        "InvalidArgumentException",
        f"Shard {FIRST} in stream {name} under account {ACCOUNT} has already been merged or "
        "split, and thus is not eligible for merging or splitting.",
    ):
        split(kinesis, name, at=HALF + 5)
    assert len(shards_of(kinesis, name)) == 3


# Behaviour


def test_parent_and_children(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    reply = raw.call(
        "SplitShard",
        {"StreamName": name, "ShardToSplit": FIRST, "NewStartingHashKey": str(HALF)},
    )
    assert (reply.status, reply.body) == (200, b"")
    parent, left, right = shards_of(kinesis, name)
    assert hash_range(parent) == (0, TOP)  # a closed shard keeps its range
    assert (hash_range(left), hash_range(right)) == ((0, HALF - 1), (HALF, TOP))
    for child in (left, right):
        assert child["ParentShardId"] == FIRST
        assert "AdjacentParentShardId" not in child
        assert "EndingSequenceNumber" not in child["SequenceNumberRange"]
        # wire.md 35: a child's numbers exceed its parent's
        start = int(child["SequenceNumberRange"]["StartingSequenceNumber"])
        assert start > int(parent["SequenceNumberRange"]["EndingSequenceNumber"])


def test_records_go_to_the_children_and_their_numbers_exceed_the_parents(
    kinesis: Any, name: str
) -> None:
    create(kinesis, name)

    def put(data: bytes, hash_key: int) -> dict[str, Any]:
        answer: dict[str, Any] = kinesis.put_record(
            StreamName=name, Data=data, PartitionKey="k", ExplicitHashKey=str(hash_key)
        )
        return answer

    old = [put(b"old", hash_key) for hash_key in (0, TOP)]
    split(kinesis, name)
    left, right = put(b"left", HALF - 1), put(b"right", HALF)
    assert [answer["ShardId"][-1] for answer in (*old, left, right)] == ["0", "0", "1", "2"]
    assert max(int(answer["SequenceNumber"]) for answer in old) < min(
        int(answer["SequenceNumber"]) for answer in (left, right)
    )
    end = shards_of(kinesis, name)[0]["SequenceNumberRange"]["EndingSequenceNumber"]
    assert int(old[1]["SequenceNumber"]) < int(end) < int(left["SequenceNumber"])
    assert [record["Data"] for record in read_shard(kinesis, name, 0)] == [b"old", b"old"]
    assert [record["Data"] for record in read_shard(kinesis, name, 1)] == [b"left"]
    assert [record["Data"] for record in read_shard(kinesis, name, 2)] == [b"right"]


def test_wire_6_a_short_id(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    split(kinesis, name, "anything-0")
    assert len(shards_of(kinesis, name)) == 3


def test_generations_within_a_second_keep_their_order(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    numbers = []
    for generation in range(12):
        shard = f"shardId-{2 * generation:012d}"
        answer = kinesis.put_record(
            StreamName=name, Data=b"%d" % generation, PartitionKey="k", ExplicitHashKey=str(TOP)
        )
        assert answer["ShardId"] == shard
        numbers.append(int(answer["SequenceNumber"]))
        split(kinesis, name, shard, TOP + 1 - (TOP + 1 >> generation + 1))
    assert numbers == sorted(numbers)
    for generation in range(12):
        (record,) = read_shard(kinesis, name, 2 * generation)
        assert record["Data"] == b"%d" % generation
    described = shards_of(kinesis, name)
    starts = {s["ShardId"]: s["SequenceNumberRange"] for s in described}
    for child in described:
        if "ParentShardId" in child:
            end = int(starts[child["ParentShardId"]]["EndingSequenceNumber"])
            assert int(child["SequenceNumberRange"]["StartingSequenceNumber"]) > end
