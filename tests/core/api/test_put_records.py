"""PutRecords: up to 500 records and 10 MiB at once, all of them or none."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from api_support import ACCOUNT, TOP, Raw, create, read_shard, read_stream, refused, reply_is

MIB = 1024 * 1024


def entry(data: bytes = b"", key: str = "k", **more: Any) -> dict[str, Any]:
    return {"Data": data, "PartitionKey": key, **more}


# Serialization


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ("x", "Expected list or null"),
        ({}, "Start of structure or map found where not expected."),
        ([[]], "Start of list found where not expected"),
        (
            [{"Data": "", "PartitionKey": 1}],
            "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted "
            "to an String",
        ),
    ],
)
def test_wire_29_wrong_types(raw: Raw, records: object, message: str) -> None:
    reply_is(
        raw.call("PutRecords", {"StreamName": "s", "Records": records}),
        "SerializationException",
        message,
    )


# Validation


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        kinesis.put_records(StreamName="none", Records=[entry()])


def test_no_records(unchecked: Any) -> None:
    with refused(
        "ValidationException",
        "1 validation error detected: Value '[]' at 'records' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
    ):
        unchecked.put_records(StreamName="s", Records=[])


def test_wire_24_500_records_and_not_501(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    records = [entry(b"%d" % i) for i in range(501)]
    with refused(
        "ValidationException",
        "1 validation error detected: Value at 'records' failed to satisfy constraint: "
        "Member must have length less than or equal to 500",
    ):
        kinesis.put_records(StreamName=name, Records=records)
    assert read_shard(kinesis, name) == []
    answer = kinesis.put_records(StreamName=name, Records=records[:500])
    assert answer["FailedRecordCount"] == 0
    assert len(answer["Records"]) == 500
    assert [r["Data"] for r in read_shard(kinesis, name)] == [b"%d" % i for i in range(500)]


def test_wire_24_every_record_that_is_wrong_is_named(raw: Raw) -> None:
    records: list[dict[str, str]] = [
        {"Data": "", "PartitionKey": ""},
        {"Data": "", "PartitionKey": "k", "ExplicitHashKey": "x"},
        {"PartitionKey": "k"},
    ]
    reply = raw.call("PutRecords", {"StreamName": "s", "Records": records})
    assert reply.json["__type"] == "ValidationException"
    message = reply.json["message"]
    assert message.startswith("3 validation errors detected: ")
    for place in ("1.member.partitionKey", "2.member.explicitHashKey", "3.member.data"):
        assert f"at 'records.{place}' failed" in message


def test_wire_24_partition_keys_that_are_missing(raw: Raw) -> None:
    def line(number: int) -> str:
        return (
            f"Value null at 'records.{number}.member.partitionKey' failed to satisfy constraint: "
            "Member must not be null"
        )

    one = raw.call("PutRecords", {"StreamName": "s", "Records": [{"Data": ""}]})
    reply_is(one, "ValidationException", f"1 validation error detected: {line(1)}")
    mixed = [{"Data": "", "PartitionKey": "k"}, {"Data": ""}, {"Data": ""}]
    two = raw.call("PutRecords", {"StreamName": "s", "Records": mixed})
    reply_is(two, "ValidationException", f"2 validation errors detected: {line(2)}; {line(3)}")


def test_wire_24_records_over_1_mib_are_all_named_and_nothing_is_stored(
    kinesis: Any, name: str
) -> None:
    create(kinesis, name, 2)
    records = [
        entry(b"small"),
        entry(bytes(MIB)),
        entry(bytes(MIB - 1)),  # with its key just 1 MiB
        entry(bytes(MIB), "l"),
    ]
    with refused(
        "ValidationException",
        "2 validation errors detected: "
        "Value at 'records.2.member.data' failed to satisfy constraint: "
        "Member must have length less than or equal to 1048576; "
        "Value at 'records.4.member.data' failed to satisfy constraint: "
        "Member must have length less than or equal to 1048576",
    ):
        kinesis.put_records(StreamName=name, Records=records)
    with refused(
        "ValidationException",
        "1 validation error detected: Value at 'records.1.member.data' failed to satisfy "
        "constraint: Member must have length less than or equal to 1048576",
    ):
        kinesis.put_records(StreamName=name, Records=[entry(bytes(MIB))])
    assert set(map(len, read_stream(kinesis, name).values())) == {0}


def test_wire_25_10_mib_a_request_and_not_a_byte_more(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    size = MIB - 4
    full = [entry(bytes(size), "ü" + "k" * 2) for _ in range(10)]  # 4 bytes of key
    one_more = [*full[:9], entry(bytes(size), "k" * 5)]
    with refused("InvalidArgumentException"):
        kinesis.put_records(StreamName=name, Records=[*full, entry(b"x")])
    with refused("ValidationException"):
        kinesis.put_records(StreamName=name, Records=one_more)
    assert read_shard(kinesis, name) == []
    assert kinesis.put_records(StreamName=name, Records=full)["FailedRecordCount"] == 0
    assert [len(record["Data"]) for record in read_shard(kinesis, name)] == [size] * 10


def test_wire_25_keys_count_by_their_bytes(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    # 500 keys of 256 characters in four bytes each take 512,000 bytes
    data = (10 * MIB - 512_000) // 500
    records = [entry(bytes(data), "\U0001f600" * 256) for _ in range(500)]
    assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0
    rest = 10 * MIB - 512_000 - 500 * data
    records[0] = entry(bytes(data + rest + 1), "\U0001f600" * 256)
    with refused("InvalidArgumentException", "Records size exceeds 10 MB limit"):
        kinesis.put_records(StreamName=name, Records=records)


def test_a_body_beyond_all_limits(raw: Raw) -> None:
    reply = raw.call("PutRecords", b'{"Records":[' + bytes(16 * MIB))
    assert reply.status == 413
    assert reply.json["__type"] == "RequestEntityTooLargeException"


def test_wire_21_one_bad_hash_key_refuses_all(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
        f"Specified value was {TOP + 1}",
    ):
        kinesis.put_records(StreamName=name, Records=[entry(), entry(ExplicitHashKey=str(TOP + 1))])
    assert read_shard(kinesis, name) == []


# Behaviour


def test_wire_34_the_answer(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name, 2)
    records = [{"Data": "", "PartitionKey": str(i)} for i in range(10)]
    reply = raw.call("PutRecords", {"StreamName": name, "Records": records})
    assert reply.status == 200
    assert set(reply.json) == {"FailedRecordCount", "Records"}
    for record in reply.json["Records"]:
        assert set(record) == {"SequenceNumber", "ShardId"}
        assert re.fullmatch(r"\d{56}", record["SequenceNumber"])


def test_answers_stand_in_the_order_of_the_request(kinesis: Any, name: str) -> None:
    create(kinesis, name, 5)
    keys = [f"key {i % 37}" for i in range(500)]
    answer = kinesis.put_records(
        StreamName=name, Records=[entry(b"%d" % i, key) for i, key in enumerate(keys)]
    )
    found = read_stream(kinesis, name)
    place = {
        (shard, record["SequenceNumber"]): (int(record["Data"]), record["PartitionKey"])
        for shard, records in found.items()
        for record in records
    }
    assert len(place) == 500
    for i, (key, result) in enumerate(zip(keys, answer["Records"], strict=True)):
        assert place[result["ShardId"], result["SequenceNumber"]] == (i, key)
    for records in found.values():  # and within a shard they lie in that order too
        assert [int(r["Data"]) for r in records] == sorted(int(r["Data"]) for r in records)


def test_explicit_hash_keys_for_some(kinesis: Any, name: str) -> None:
    create(kinesis, name, 2)
    answer = kinesis.put_records(
        StreamName=name,
        Records=[
            entry(key="a", ExplicitHashKey="0"),
            entry(key="a"),
            entry(key="a", ExplicitHashKey=str(TOP)),
            entry(key="a", ExplicitHashKey=str(2**127)),
            entry(key="a", ExplicitHashKey=str(2**127 - 1)),
        ],
    )
    shards = [int(result["ShardId"][-1]) for result in answer["Records"]]
    assert shards == [0, shards[1], 1, 1, 0]
    assert shards[1] == 0  # MD5 of "a" begins with 0x0c


def test_all_kinds_of_data_and_keys_in_one_request(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    texts = ["", " ", "\x00", '"', "\\", "\n", "ü", "😀", "\u2028", json.dumps({"Data": "x"})]
    pairs = [(text.encode(), key) for text in texts for key in texts if key]
    kinesis.put_records(StreamName=name, Records=[entry(*pair) for pair in pairs])
    found = [(record["Data"], record["PartitionKey"]) for record in read_shard(kinesis, name)]
    assert found == pairs


def test_members_may_be_null_and_in_any_order(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    record = {"ExplicitHashKey": None, "PartitionKey": "k", "Data": "eA==", "More": [1]}
    body = {"Records": [record], "StreamARN": None, "DryRun": None, "StreamName": name}
    assert raw.call("PutRecords", body).status == 200
    assert len(read_shard(kinesis, name)) == 1
