"""DescribeStream and DescribeStreamSummary."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from api_support import ACCOUNT, Raw, create, refused, reply_is

BOTH = ["DescribeStream", "DescribeStreamSummary"]


def ids(answer: dict[str, Any]) -> list[int]:
    return [int(shard["ShardId"][-12:]) for shard in answer["StreamDescription"]["Shards"]]


# Serialization


@pytest.mark.parametrize("operation", BOTH)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (["a"], "Start of list found where not expected"),
        (True, "class java.lang.Boolean can not be converted to an String"),
    ],
)
def test_wire_29_wrong_types(raw: Raw, operation: str, name: object, message: str) -> None:
    reply_is(raw.call(operation, {"StreamName": name}), "SerializationException", message)


# Validation


@pytest.mark.parametrize("operation", BOTH)
def test_wire_1_no_such_stream(raw: Raw, operation: str) -> None:
    reply_is(
        raw.call(operation, {"StreamName": "none"}),
        "ResourceNotFoundException",
        f"Stream none under account {ACCOUNT} not found.",
    )


@pytest.mark.parametrize("operation", BOTH)
def test_neither_name_nor_arn(raw: Raw, operation: str) -> None:
    reply = raw.call(operation, {})
    assert (reply.status, reply.json["__type"]) == (400, "InvalidArgumentException")


@pytest.mark.parametrize(("limit", "bound"), [(0, "greater than or equal to 1"), (10_001, None)])
def test_wire_23_a_limit_out_of_bounds(unchecked: Any, limit: int, bound: str | None) -> None:
    with refused(
        "ValidationException",
        f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
        f"Member must have value {bound or 'less than or equal to 10000'}",
    ):
        unchecked.describe_stream(StreamName="s", Limit=limit)


# Behaviour


def test_all_that_a_description_says(kinesis: Any, name: str) -> None:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(milliseconds=1)
    create(kinesis, name, 2)
    description = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    created = description.pop("StreamCreationTimestamp")
    assert before <= created <= datetime.datetime.now(datetime.UTC)
    assert len(description.pop("Shards")) == 2
    common = {
        "StreamName": name,
        "StreamARN": f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }
    assert description == {**common, "HasMoreShards": False}
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary.pop("StreamCreationTimestamp") == created
    for member, value in {**common, "OpenShardCount": 2, "ConsumerCount": 0}.items():
        assert summary[member] == value


def test_the_summary_counts_open_shards_only(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.split_shard(StreamName=name, ShardToSplit="0", NewStartingHashKey=str(2**127))
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 2
    assert len(kinesis.describe_stream(StreamName=name)["StreamDescription"]["Shards"]) == 3


def test_pages_of_shards(kinesis: Any, name: str) -> None:
    create(kinesis, name, 7)
    first = kinesis.describe_stream(StreamName=name, Limit=3)
    assert (ids(first), first["StreamDescription"]["HasMoreShards"]) == ([0, 1, 2], True)
    exact = kinesis.describe_stream(
        StreamName=name, Limit=4, ExclusiveStartShardId="shardId-000000000002"
    )
    assert (ids(exact), exact["StreamDescription"]["HasMoreShards"]) == ([3, 4, 5, 6], False)
    beyond = kinesis.describe_stream(StreamName=name, ExclusiveStartShardId="shardId-000000000099")
    assert (ids(beyond), beyond["StreamDescription"]["HasMoreShards"]) == ([], False)
    # wire.md 6: the short form of an id
    assert ids(kinesis.describe_stream(StreamName=name, ExclusiveStartShardId="shardId-5")) == [6]


def test_the_paginator_and_the_page_of_a_hundred(kinesis: Any, name: str) -> None:
    create(kinesis, name, 205)
    whole = kinesis.describe_stream(StreamName=name)
    assert ids(whole) == list(range(100))
    assert whole["StreamDescription"]["HasMoreShards"]
    pages = kinesis.get_paginator("describe_stream").paginate(StreamName=name)
    assert [i for page in pages for i in ids(page)] == list(range(205))
    most = kinesis.describe_stream(StreamName=name, Limit=10_000)
    assert (ids(most), most["StreamDescription"]["HasMoreShards"]) == (list(range(100)), True)


def test_by_arn(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    arn = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}"
    assert kinesis.describe_stream(StreamARN=arn)["StreamDescription"]["StreamName"] == name
    assert kinesis.describe_stream_summary(StreamARN=arn, StreamName=name)
