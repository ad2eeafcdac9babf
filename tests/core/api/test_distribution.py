"""UpdateStreamRecordDistributionStrategy: records spread evenly, partition keys optional."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from api_support import Raw, b64, create, read_stream, refused


@pytest.fixture
def spread(kinesis: Any, name: str) -> str:
    """An on-demand stream (four shards) of strategy AUTO."""
    kinesis.create_stream(
        StreamName=name,
        StreamModeDetails={"StreamMode": "ON_DEMAND"},
        RecordDistributionStrategy="AUTO",
    )
    return name


def arn(kinesis: Any, stream: str) -> str:
    found: str = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"][
        "StreamARN"
    ]
    return found


def test_one_key_goes_to_all_shards_alike(kinesis: Any, spread: str) -> None:
    entries = [
        {"Data": b"%d" % i, "PartitionKey": "same", "ExplicitHashKey": "0"} for i in range(40)
    ]
    answer = kinesis.put_records(StreamName=spread, Records=entries)
    assert sorted(Counter(r["ShardId"] for r in answer["Records"]).values()) == [10] * 4
    found = read_stream(kinesis, spread)
    assert [len(records) for records in found.values()] == [10] * 4
    assert {r["PartitionKey"] for records in found.values() for r in records} == {"same"}
    by_number = {r["SequenceNumber"]: r["Data"] for rs in found.values() for r in rs}
    assert [by_number[r["SequenceNumber"]] for r in answer["Records"]] == [
        entry["Data"] for entry in entries
    ]


def test_single_puts_take_turns(kinesis: Any, spread: str) -> None:
    shards = [
        kinesis.put_record(StreamName=spread, Data=b"x", PartitionKey="k")["ShardId"]
        for _ in range(8)
    ]
    assert sorted(Counter(shards).values()) == [2, 2, 2, 2]


def test_a_record_without_a_key_has_none_when_read(kinesis: Any, raw: Raw, spread: str) -> None:
    body = {"StreamName": spread, "Records": [{"Data": b64(b"a")}, {"Data": b64(b"b")}]}
    assert raw.call("PutRecords", body).json["FailedRecordCount"] == 0
    assert raw.call("PutRecord", {"StreamName": spread, "Data": b64(b"c")}).status == 200
    kinesis.put_records(
        StreamName=spread, Records=[{"Data": b"d", "PartitionKey": "k"}, {"Data": b"e"}]
    )
    found = {
        r["Data"]: r.get("PartitionKey") for rs in read_stream(kinesis, spread).values() for r in rs
    }
    assert found == {b"a": None, b"b": None, b"c": None, b"d": "k", b"e": None}


@pytest.mark.parametrize("key", [None, "k"])
def test_idempotent_puts_are_stored_once(
    kinesis: Any, raw: Raw, spread: str, key: str | None
) -> None:
    entry = {} if key is None else {"PartitionKey": key}
    body = {
        "StreamName": spread,
        "Records": [{"Data": b64(b"%d" % i), **entry} for i in range(20)],
    }
    headers = {
        "X-Headrace-Producer": "p",
        "X-Headrace-Producer-Sequences": "0" + ",1" * 19,
    }
    assert raw.call("PutRecords", body, headers=headers).status == 200
    assert raw.call("PutRecords", body, headers=headers).status == 200
    data = [r["Data"] for rs in read_stream(kinesis, spread).values() for r in rs]
    assert sorted(data) == sorted(b"%d" % i for i in range(20))


def test_keys_are_wanted_again_after_switching_back(kinesis: Any, raw: Raw, spread: str) -> None:
    kinesis.update_stream_record_distribution_strategy(
        StreamARN=arn(kinesis, spread), RecordDistributionStrategy="USER_PARTITION_KEY"
    )
    reply = raw.call(
        "PutRecords",
        {
            "StreamName": spread,
            "Records": [{"Data": "YQ==", "PartitionKey": "k"}, {"Data": "YQ=="}],
        },
    )
    assert reply.json == {
        "__type": "ValidationException",
        "message": "1 validation error detected: Value null at 'records.2.member.partitionKey' "
        "failed to satisfy constraint: Member must not be null",
    }
    shards = {
        kinesis.put_record(StreamName=spread, Data=b"x", PartitionKey="k")["ShardId"]
        for _ in range(4)
    }
    assert len(shards) == 1


def test_provisioned_streams_take_no_auto(kinesis: Any, name: str) -> None:
    text = "The record distribution strategy AUTO is only supported for streams in ON_DEMAND mode."
    with refused("InvalidArgumentException", text):
        create(kinesis, name, RecordDistributionStrategy="AUTO")
    create(kinesis, name)
    with refused("InvalidArgumentException", text):
        kinesis.update_stream_record_distribution_strategy(
            StreamARN=arn(kinesis, name), RecordDistributionStrategy="AUTO"
        )
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert "RecordDistributionStrategy" not in summary


def test_a_spread_stream_does_not_become_provisioned(kinesis: Any, spread: str) -> None:
    summary = kinesis.describe_stream_summary(StreamName=spread)["StreamDescriptionSummary"]
    assert summary["RecordDistributionStrategy"] == "AUTO"
    with refused("ValidationException"):
        kinesis.update_stream_mode(
            StreamARN=arn(kinesis, spread), StreamModeDetails={"StreamMode": "PROVISIONED"}
        )
