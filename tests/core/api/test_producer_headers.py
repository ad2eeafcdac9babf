"""The headers of an idempotent put on the wire: good, senseless and as long as they get."""

from __future__ import annotations

from typing import Any

import pytest

from api_support import Raw, create, read_stream, reply_is


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X-Headrace-Producer": ""}, "ValidationException"),
        ({"X-Headrace-Producer": "a b"}, "ValidationException"),
        ({"X-Headrace-Producer": "x" * 257}, "ValidationException"),
        ({"X-Headrace-Producer": "ü"}, "ValidationException"),
        ({"X-Headrace-Producer-Epoch": "-1"}, "ValidationException"),
        ({"X-Headrace-Producer-Epoch": "x"}, "ValidationException"),
        ({"X-Headrace-Producer-Epoch": str(2**63)}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": ""}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "1,x"}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "-1,1"}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "1" * 81 + ",1"}, "ValidationException"),
        ({"X-Headrace-Producer-Sequences": "1"}, "InvalidArgumentException"),
        ({"X-Headrace-Producer-Sequences": "1,1,1"}, "InvalidArgumentException"),
        ({"X-Headrace-Producer-Sequences": "5,-1"}, "InvalidArgumentException"),
    ],
)
def test_headers_that_make_no_sense(
    raw: Raw, kinesis: Any, name: str, headers: dict[str, str], code: str
) -> None:
    create(kinesis, name)
    records = [{"Data": "", "PartitionKey": "k"}] * 2
    good = {
        "X-Headrace-Producer": "p",
        "X-Headrace-Producer-Epoch": "0",
        "X-Headrace-Producer-Sequences": "1,1",
    }
    body = {"StreamName": name, "Records": records}
    reply = raw.call("PutRecords", body, headers={**good, **headers})
    assert (reply.status, reply.json["__type"]) == (400, code)
    assert read_stream(kinesis, name) == {"shardId-000000000000": []}
    assert raw.call("PutRecords", body, headers=good).status == 200


def test_a_single_record_with_a_stamp(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    headers = {"X-Headrace-Producer": "p", "X-Headrace-Producer-Sequences": "7"}
    body = {"StreamName": name, "Data": "eA==", "PartitionKey": "k"}
    one, two = (raw.call("PutRecord", body, headers=headers) for _ in range(2))
    assert one.json == two.json
    assert len(read_stream(kinesis, name)["shardId-000000000000"]) == 1


def test_the_longest_headers(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    body = {"StreamName": name, "Records": [{"Data": "", "PartitionKey": "k"}] * 500}
    sequences = ",".join(["1" + "0" * 60] * 500)  # deltas as large as the first: 30 KB
    headers = {"X-Headrace-Producer": "p", "X-Headrace-Producer-Sequences": sequences}
    for _ in range(2):
        reply = raw.call("PutRecords", body, headers=headers)
        assert reply.status == 200, reply.body
    assert len(read_stream(kinesis, name)["shardId-000000000000"]) == 500


def test_a_fenced_producer_is_told_so(raw: Raw, kinesis: Any, name: str) -> None:
    create(kinesis, name)
    body = {"StreamName": name, "Records": [{"Data": "", "PartitionKey": "k"}]}

    def headers(epoch: int) -> dict[str, str]:
        return {
            "X-Headrace-Producer": "p",
            "X-Headrace-Producer-Epoch": str(epoch),
            "X-Headrace-Producer-Sequences": "1",
        }

    assert raw.call("PutRecords", body, headers=headers(5)).status == 200
    reply_is(
        raw.call("PutRecords", body, headers=headers(4)),
        "ProducerFencedException",
        "Producer p has written with epoch 5; this request has epoch 4.",
    )
