"""The event document, against what Lambda documents, and its 6 MB to the byte."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.model.records import Record
from headrace.triggers.event import MAX_EVENT_BYTES, Batch, EventSource, iso_ms, size_bytes

ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
NUMBER = "49590338271490256608559692538361571095921575989136588898"
SOURCE = EventSource(
    ARN, "shardId-000000000006", "arn:aws:iam::123456789012:role/lambda-role", "us-east-2"
)

# The example event of Lambda's developer guide, "Using AWS Lambda with Amazon Kinesis".
DOCUMENTED = {
    "Records": [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "1",
                "sequenceNumber": NUMBER,
                "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                "approximateArrivalTimestamp": 1545084650.987,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"shardId-000000000006:{NUMBER}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
            "awsRegion": "us-east-2",
            "eventSourceARN": ARN,
        }
    ]
}


def test_the_documented_example() -> None:
    record = Record(b"Hello, this is a test.", "1", NUMBER, 1_545_084_650_987)
    event = Batch((SOURCE.encode(record),)).event()
    assert json.loads(event) == DOCUMENTED
    assert list(json.loads(event)["Records"][0]) == list(DOCUMENTED["Records"][0])


def test_whole_seconds_stay_a_float() -> None:
    record = Record(b"", "1", NUMBER, 1_545_084_650_000)
    event = json.loads(Batch((SOURCE.encode(record),)).event())
    seconds = event["Records"][0]["kinesis"]["approximateArrivalTimestamp"]
    assert (type(seconds), seconds) == (float, 1545084650.0)


@given(st.lists(st.tuples(st.binary(max_size=50), st.text(min_size=1, max_size=256)), min_size=1))
def test_any_data_and_key_come_through_and_the_size_is_exact(
    contents: list[tuple[bytes, str]],
) -> None:
    batch = Batch(
        tuple(
            SOURCE.encode(Record(data, key.encode("utf-8", "replace").decode(), str(n), n))
            for n, (data, key) in enumerate(contents)
        )
    )
    event = batch.event()
    assert len(event) == size_bytes(batch.records)
    for (data, key), entry in zip(contents, json.loads(event)["Records"], strict=True):
        assert base64.b64decode(entry["kinesis"]["data"]) == data
        assert entry["kinesis"]["partitionKey"] == key.encode("utf-8", "replace").decode()


def test_only_a_record_over_6_mb_alone_is_oversized() -> None:
    frame = size_bytes((SOURCE.encode(Record(b"", "1", NUMBER, 1_545_084_650_987)),))
    largest = (MAX_EVENT_BYTES - frame) // 4 * 3
    for size, is_oversized in ((largest, False), (largest + 1, True)):
        record = Record(bytes(size), "1", NUMBER, 1_545_084_650_987)
        assert Batch((SOURCE.encode(record),)).is_oversized() is is_oversized


def test_times_are_written_as_lambda_writes_them() -> None:
    assert iso_ms(1_573_691_886_021) == "2019-11-14T00:38:06.021Z"
    assert iso_ms(1_573_691_886_000) == "2019-11-14T00:38:06.000Z"
