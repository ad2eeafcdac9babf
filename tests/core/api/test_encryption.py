"""StartStreamEncryption, StopStreamEncryption: what they show, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2
import pytest

from api_support import CBOR, Raw, b64, create, iterator, read_shard, refused, server_here
from headrace.core.client import StreamClient
from headrace.core.errors import LimitExceeded
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock

KEY = "alias/aws/kinesis"


def start(kinesis: Any, name: str) -> None:
    kinesis.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId=KEY)


def test_descriptions_name_the_key(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    for describe, key in (
        (kinesis.describe_stream, "StreamDescription"),
        (kinesis.describe_stream_summary, "StreamDescriptionSummary"),
    ):
        plain = describe(StreamName=name)[key]
        assert plain["EncryptionType"] == "NONE"
        assert "KeyId" not in plain
        start(kinesis, name)
        found = describe(StreamName=name)[key]
        assert (found["EncryptionType"], found["KeyId"]) == ("KMS", KEY)
        kinesis.stop_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId=KEY)
        assert describe(StreamName=name)[key] == plain


def test_wire_34_only_encrypted_streams_answer_with_encryption_type(
    kinesis: Any, raw: Raw, name: str
) -> None:
    create(kinesis, name)
    records = [{"Data": b"2", "PartitionKey": "a"}]

    def put() -> list[str | None]:
        one = kinesis.put_record(StreamName=name, Data=b"1", PartitionKey="a")
        several = kinesis.put_records(StreamName=name, Records=records)
        entries = [{"Data": b"3", "PartitionKey": "a"}]
        body = {"StreamName": name, "Records": entries}
        in_cbor = raw.call("PutRecords", body, content_type=CBOR).cbor
        one_cbor = raw.call("PutRecord", {"StreamName": name, **entries[0]}, content_type=CBOR).cbor
        return [a.get("EncryptionType") for a in (one, several, in_cbor, one_cbor)]

    assert put() == [None] * 4
    start(kinesis, name)
    assert put() == ["KMS"] * 4
    kinesis.stop_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId=KEY)
    assert put() == [None] * 4
    # each record says how it was put, whatever the stream is now
    expected = [None] * 4 + ["KMS"] * 4 + [None] * 4
    found = read_shard(kinesis, name)
    assert [record.get("EncryptionType") for record in found] == expected
    assert [record["Data"] for record in found] == [b"1", b"2", b"3", b"3"] * 3
    token = iterator(kinesis, name)
    reply = raw.call("GetRecords", {"ShardIterator": token}, content_type=CBOR)
    assert [record.get("EncryptionType") for record in reply.cbor["Records"]] == expected


def test_idempotent_puts_are_marked_too(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    start(kinesis, name)
    headers = {"X-Headrace-Producer": "p", "X-Headrace-Producer-Sequences": "1"}
    body = {"StreamName": name, "Records": [{"Data": b64(b"x"), "PartitionKey": "a"}]}
    assert raw.call("PutRecords", body, headers=headers).json["EncryptionType"] == "KMS"
    (record,) = read_shard(kinesis, name)
    assert record["EncryptionType"] == "KMS"


def test_none_is_no_type_to_start_or_stop(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    for operation in (kinesis.start_stream_encryption, kinesis.stop_stream_encryption):
        with refused("InvalidArgumentException"):
            operation(StreamName=name, EncryptionType="NONE", KeyId=KEY)


def test_wire_1_unknown_stream(kinesis: Any, name: str) -> None:
    with refused(
        "ResourceNotFoundException", f"Stream {name} under account 123456789012 not found."
    ):
        start(kinesis, name)


def test_the_answer_is_empty_in_cbor_as_well(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    body = cbor2.dumps({"StreamName": name, "EncryptionType": "KMS", "KeyId": KEY})
    reply = raw.call("StartStreamEncryption", body, content_type=CBOR)
    assert (reply.status, reply.body) == (200, b"")


async def test_each_of_the_two_may_be_done_25_times_a_day(tmp_path: Path) -> None:
    request = {"StreamName": "s", "EncryptionType": "KMS", "KeyId": KEY}
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, limits="aws") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        for operation in ("StartStreamEncryption", "StopStreamEncryption"):
            for _ in range(25):
                await client.call(operation, request)
                await clock.advance(1000)
            with pytest.raises(LimitExceeded, match=f"{operation} was called 25 times"):
                await client.call(operation, request)
