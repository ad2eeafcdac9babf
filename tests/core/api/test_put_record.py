"""PutRecord: every byte and every key comes back as it went in, or is refused in AWS's words."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from api_support import (
    ACCOUNT,
    TOP,
    Raw,
    b64,
    create,
    iterator,
    read_shard,
    read_stream,
    refused,
    reply_is,
)

MIB = 1024 * 1024
NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"


# Serialization


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("Data", 1, f"{NUMBER} can not be converted to a Blob"),
        ("Data", [], "Start of list found where not expected"),
        ("PartitionKey", True, "class java.lang.Boolean can not be converted to an String"),
        ("ExplicitHashKey", 5, f"{NUMBER} can not be converted to an String"),
        ("StreamName", {}, "Start of structure or map found where not expected."),
        ("SequenceNumberForOrdering", 1.5, f"{NUMBER} can not be converted to an String"),
    ],
)
def test_wire_29_wrong_types(raw: Raw, member: str, value: object, message: str) -> None:
    request = {"StreamName": "s", "Data": "", "PartitionKey": "k", member: value}
    reply_is(raw.call("PutRecord", request), "SerializationException", message)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("YWI", "Base64 encoded length is expected a multiple of 4 bytes but found: 3"),
        ("YQ=", "Base64 encoded length is expected a multiple of 4 bytes but found: 3"),
        ("YQ", "Base64 encoded length is expected a multiple of 4 bytes but found: 2"),
        ("=", "Base64 encoded length is expected a multiple of 4 bytes but found: 1"),
        ("YQ==YQ==", "Invalid Base64 character: '='"),
        ("Y=Q=", "Invalid Base64 character: '='"),
        ("====", "Invalid Base64 character: '='"),
        ("a-_b", "Invalid Base64 character: '-'"),  # the URL-safe alphabet
        ("YW I", "Invalid Base64 character: ' '"),
        ("YWI\n", "Invalid Base64 character: '\n'"),
        ("YWIé", "Invalid Base64 character: 'é'"),
        # bits set after the end of the data: not every reader would decode it (AWS's spelling)
        ("YR==", "Invalid last non-pad Base64 character dectected"),
        ("YWJ=", "Invalid last non-pad Base64 character dectected"),
    ],
)
def test_what_is_not_base64(raw: Raw, text: str, reason: str) -> None:
    for operation, request in (
        ("PutRecord", {"StreamName": "s", "Data": text, "PartitionKey": "k"}),
        ("PutRecords", {"StreamName": "s", "Records": [{"Data": text, "PartitionKey": "k"}]}),
        (
            "PutRecords",  # and beside good ones, with which its padding might add up
            {
                "StreamName": "s",
                "Records": [
                    {"Data": "YQ==", "PartitionKey": "k"},
                    {"Data": text, "PartitionKey": "k"},
                    {"Data": "YWI=", "PartitionKey": "k"},
                ],
            },
        ),
    ):
        reply_is(
            raw.call(operation, request),
            "SerializationException",
            f"'{text}' can not be converted to a Blob: {reason}",
        )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"StreamName":"s","Data":"","PartitionKey":"\xff"}',
        b'{"StreamName":"s","Data":"","PartitionKey":"\\ud800"}',
        b'{"StreamName":"s","Data":"","PartitionKey":"k"}}',
        b"[" * 100_000,
        b"null",
        b"\x00",
    ],
)
def test_what_is_not_json(raw: Raw, body: bytes) -> None:
    reply = raw.call("PutRecord", body)
    assert (reply.status, reply.json["__type"]) == (400, "SerializationException")


# Validation


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        kinesis.put_record(StreamName="none", Data=b"", PartitionKey="k")


def test_neither_name_nor_arn(kinesis: Any) -> None:
    with refused("InvalidArgumentException"):
        kinesis.put_record(Data=b"", PartitionKey="k")


@pytest.mark.parametrize(
    "arn",
    ["arn:aws:kinesis:us-east-1:123456789012:stream/", "nonsense", "arn:aws:s3:::bucket/key"],
)
def test_what_is_not_the_arn_of_a_stream(raw: Raw, arn: str) -> None:
    reply = raw.call("PutRecord", {"StreamARN": arn, "Data": "", "PartitionKey": "k"})
    assert (reply.status, reply.json["__type"]) == (400, "ValidationException")


def test_wire_23_members_that_are_missing(raw: Raw) -> None:
    reply_is(
        raw.call("PutRecord", {"StreamName": "s"}),
        "ValidationException",
        "1 validation error detected: Value null at 'data' failed to satisfy constraint: "
        "Member must not be null",
    )
    reply_is(
        raw.call("PutRecord", {"StreamName": "s", "Data": ""}),
        "ValidationException",
        "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: "
        "Member must not be null",
    )


@pytest.mark.parametrize(("key", "bound"), [("", "greater than or equal to 1"), ("k" * 257, None)])
def test_wire_23_a_partition_key_has_1_to_256_characters(
    unchecked: Any, key: str, bound: str | None
) -> None:
    with refused(
        "ValidationException",
        f"1 validation error detected: Value '{key}' at 'partitionKey' failed to satisfy "
        f"constraint: Member must have length {bound or 'less than or equal to 256'}",
    ):
        unchecked.put_record(StreamName="s", Data=b"", PartitionKey=key)


@pytest.mark.parametrize("text", ["", "-1", "01", "0x1", "1 ", "1\n", "1e3", "9" * 40, "\u0661"])
def test_what_is_not_a_hash_key(unchecked: Any, text: str) -> None:
    with refused(
        "ValidationException",
        f"1 validation error detected: Value '{text}' at 'explicitHashKey' failed to satisfy "
        r"constraint: Member must satisfy regular expression pattern: ^(0|([1-9]\d{0,38}))$",
    ):
        unchecked.put_record(StreamName="s", Data=b"", PartitionKey="k", ExplicitHashKey=text)


@pytest.mark.parametrize("key", [TOP + 1, 10**38 * 9])
def test_wire_21_hash_keys_end_at_2_to_the_128(kinesis: Any, name: str, key: int) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
        f"Specified value was {key}",
    ):
        kinesis.put_record(StreamName=name, Data=b"", PartitionKey="k", ExplicitHashKey=str(key))
    assert read_shard(kinesis, name) == []


@pytest.mark.parametrize("number", ["0", "1", "4" * 56, "9" * 129])
def test_wire_22_a_sequence_number_for_ordering_must_be_one(
    kinesis: Any, name: str, number: str
) -> None:
    create(kinesis, name)
    with refused(
        "InvalidArgumentException",
        f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {name} under "
        f"account {ACCOUNT} is invalid.",
    ):
        kinesis.put_record(
            StreamName=name, Data=b"", PartitionKey="k", SequenceNumberForOrdering=number
        )


def test_wire_22_nor_may_it_lie_in_the_future(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    given = kinesis.put_record(StreamName=name, Data=b"1", PartitionKey="k")["SequenceNumber"]
    # a later record's, and one of a shard that was made later
    for later in (int(given) + (1 << 100), int(given) + (86_400 << 148)):
        with refused("InvalidArgumentException"):
            kinesis.put_record(
                StreamName=name, Data=b"2", PartitionKey="k", SequenceNumberForOrdering=str(later)
            )
    for data in (b"2", b"3"):
        following = kinesis.put_record(
            StreamName=name, Data=data, PartitionKey="k", SequenceNumberForOrdering=given
        )["SequenceNumber"]
        assert int(following) > int(given)
        given = following
    assert [record["Data"] for record in read_shard(kinesis, name)] == [b"1", b"2", b"3"]


def test_wire_25_a_record_has_at_most_1_mib_with_its_key(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    key = "ключ"  # eight bytes
    with refused(
        "ValidationException",
        "1 validation error detected: Value at 'data' failed to satisfy constraint: "
        "Member must have length less than or equal to 1048576",
    ):
        kinesis.put_record(StreamName=name, Data=bytes(MIB - 7), PartitionKey=key)
    kinesis.put_record(StreamName=name, Data=bytes(MIB - 8), PartitionKey=key)
    (record,) = read_shard(kinesis, name)
    assert (record["Data"], record["PartitionKey"]) == (bytes(MIB - 8), key)


def test_wire_25_and_up_to_10_mib_where_the_stream_allows_it(kinesis: Any, name: str) -> None:
    create(kinesis, name, MaxRecordSizeInKiB=10_240)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["MaxRecordSizeInKiB"] == 10_240
    data = hashlib.shake_128(b"seed").digest(10 * MIB - 1)
    for key in ("k", "l"):
        kinesis.put_record(StreamName=name, Data=data, PartitionKey=key)
    with refused("ValidationException"):
        kinesis.put_record(StreamName=name, Data=data + b"x", PartitionKey="m")
    # each alone is as much as one answer holds
    first = kinesis.get_records(ShardIterator=iterator(kinesis, name))
    assert [record["PartitionKey"] for record in first["Records"]] == ["k"]
    assert first["MillisBehindLatest"] >= 0
    second = kinesis.get_records(ShardIterator=first["NextShardIterator"])
    assert [record["PartitionKey"] for record in second["Records"]] == ["l"]
    assert first["Records"][0]["Data"] == second["Records"][0]["Data"] == data


def test_a_dry_run_stores_nothing(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused("DryRunOperationException"):
        kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k", DryRun=True)
    assert read_shard(kinesis, name) == []


# Behaviour


def test_wire_34_the_answer_and_the_record(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    reply = raw.call("PutRecord", {"StreamName": name, "Data": "eA==", "PartitionKey": "k"})
    assert reply.status == 200
    assert set(reply.json) == {"SequenceNumber", "ShardId"}
    assert re.fullmatch(r"\d{56}", reply.json["SequenceNumber"])
    assert reply.json["ShardId"] == "shardId-000000000000"
    (record,) = read_shard(kinesis, name)
    assert set(record) == {
        "ApproximateArrivalTimestamp",
        "Data",
        "PartitionKey",
        "SequenceNumber",
    }
    assert record["SequenceNumber"] == reply.json["SequenceNumber"]


DATA = {
    "empty": b"",
    "one zero": b"\x00",
    "all bytes": bytes(range(256)),
    "looks like the end of a record": b'"},{"Data":"","PartitionKey":"forged"}],"x":[',
    "json": b'{"Data":"eA==","SequenceNumber":"1"}',
    "base64": b"eA==",
    "invalid utf-8": b"\xff\xfe\x80",
    "line feeds": b"a\r\nb\n\n",
}


def test_data_comes_back_to_the_byte(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    for data in DATA.values():
        kinesis.put_record(StreamName=name, Data=data, PartitionKey="k")
    assert [record["Data"] for record in read_shard(kinesis, name)] == list(DATA.values())


KEYS = [
    "k",
    " ",
    "\x00",
    "\x1f\x7f\x80\x9f",
    'quote " backslash \\ slash /',
    '","Data":"Zm9yZ2Vk',
    "\\u0041 \\n \\",
    "line\nfeed\r\ttab",
    "\u2028\u2029\ufeff\ufffd\uffff",
    "Grüße, 世界",
    "e\u0301 is not \u00e9",
    "👩‍👩‍👧‍👦" * 20,
    "\U0010ffff" * 256,
    "k" * 256,
]


def test_partition_keys_come_back_to_the_character(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name, 3)
    by_shard: dict[str, list[str]] = {}
    for key in KEYS:
        answer = kinesis.put_record(StreamName=name, Data=b"x", PartitionKey=key)
        by_shard.setdefault(answer["ShardId"], []).append(key)
        # the MD5 of its UTF-8 bytes decides
        hash_key = int.from_bytes(hashlib.md5(key.encode()).digest(), "big")
        assert int(answer["ShardId"][-12:]) == min(hash_key // (2**128 // 3), 2)
    found = {
        shard: [record["PartitionKey"] for record in records]
        for shard, records in read_stream(kinesis, name).items()
        if records
    }
    assert found == by_shard
    # unescaped in JSON as well: json.dumps of the test escapes all that is not ASCII
    body = json.dumps(
        {"StreamName": name, "Data": "", "PartitionKey": "ü\U0001f600"}, ensure_ascii=False
    )
    assert raw.call("PutRecord", body.encode()).status == 200


def test_explicit_hash_keys_at_the_ends_of_the_ranges(kinesis: Any, name: str) -> None:
    create(kinesis, name, 4)
    quarter = 2**126
    for hash_key, shard in (
        (0, 0),
        (quarter - 1, 0),
        (quarter, 1),
        (2 * quarter - 1, 1),
        (2 * quarter, 2),
        (3 * quarter - 1, 2),
        (3 * quarter, 3),
        (TOP, 3),
    ):
        answer = kinesis.put_record(
            StreamName=name, Data=b"", PartitionKey="k", ExplicitHashKey=str(hash_key)
        )
        assert answer["ShardId"] == f"shardId-{shard:012d}", hash_key


def test_a_stream_by_its_arn(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    arn = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}"
    kinesis.put_record(StreamARN=arn, Data=b"1", PartitionKey="k")
    kinesis.put_record(StreamARN=arn, StreamName=name, Data=b"2", PartitionKey="k")
    with refused("InvalidArgumentException"):
        kinesis.put_record(StreamARN=arn, StreamName="another", Data=b"3", PartitionKey="k")
    assert [record["Data"] for record in read_shard(kinesis, name)] == [b"1", b"2"]


def test_sequence_numbers_rise(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    numbers = [
        int(kinesis.put_record(StreamName=name, Data=b"", PartitionKey="k")["SequenceNumber"])
        for _ in range(20)
    ]
    assert numbers == sorted(set(numbers))
    assert [int(record["SequenceNumber"]) for record in read_shard(kinesis, name)] == numbers


def test_application_json_is_taken_too(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    body = {"StreamName": name, "Data": b64(b"x"), "PartitionKey": "k"}
    reply = raw.call("PutRecord", body, content_type="application/json")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
