"""Answers of megabytes, in pieces: whole at every reader, however slow, over every listener."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.core.testing.server_process import ServerProcess

COUNT = 700
SHARD = "shardId-000000000000"
HEADERS = {
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Date": "20260101T000000Z",
    "Authorization": (
        "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/kinesis/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
    ),
}


def content(i: int) -> bytes:
    return hashlib.shake_128(b"%d" % i).digest(9_000 + i % 7)


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[ServerProcess]:
    """Holds 700 records of 9 KB, in frames of 100: GetRecords answers 8 MiB."""
    data = tmp_path_factory.mktemp("server") / "data"
    arguments = ("--tls",) if request.param == "tls" else ()
    with ServerProcess(data, arguments=arguments) as process:
        connection = connect(process)
        call(connection, "CreateStream", StreamName="s", ShardCount=1)
        while "ACTIVE" not in json.dumps(call(connection, "DescribeStream", StreamName="s")):
            pass
        for first in range(0, COUNT, 100):
            records = [
                {"Data": b64encode(content(i)).decode(), "PartitionKey": "k"}
                for i in range(first, first + 100)
            ]
            call(connection, "PutRecords", StreamName="s", Records=records)
        connection.close()
        yield process


def connect(process: ServerProcess) -> http.client.HTTPConnection:
    scheme, _, address = process.endpoint.partition("://")
    if scheme == "http":
        return http.client.HTTPConnection(address, timeout=30)
    trust = ssl.create_default_context(cafile=process.target.certificate)
    return http.client.HTTPSConnection(address, timeout=30, context=trust)


def send(connection: http.client.HTTPConnection, operation: str, request: dict[str, Any]) -> None:
    target = {"X-Amz-Target": f"Kinesis_20131202.{operation}"}
    connection.request("POST", "/", json.dumps(request), HEADERS | target)


def call(connection: http.client.HTTPConnection, operation: str, **request: Any) -> dict[str, Any]:
    send(connection, operation, request)
    raw = connection.getresponse().read()
    answer: dict[str, Any] = json.loads(raw) if raw else {}
    return answer


def iterator(connection: http.client.HTTPConnection) -> str:
    answer = call(
        connection,
        "GetShardIterator",
        StreamName="s",
        ShardId=SHARD,
        ShardIteratorType="TRIM_HORIZON",
    )
    return str(answer["ShardIterator"])


def check(raw: bytes) -> None:
    records = json.loads(raw)["Records"]
    assert [b64decode(record["Data"]) for record in records] == [content(i) for i in range(COUNT)]


def test_slow_readers_get_all_of_it_and_hold_up_nobody(server: ServerProcess) -> None:
    slow = [connect(server) for _ in range(3)]
    for connection in slow:
        at = iterator(connection)
        send(connection, "GetRecords", {"ShardIterator": at})
    answers = [connection.getresponse() for connection in slow]
    bodies = [b""] * len(slow)
    quick = connect(server)
    for turn in range(30):
        for i, answer in enumerate(answers):
            bodies[i] += answer.read(4096)
        if turn % 10 == 0:  # what others are sent meanwhile must not turn up in theirs
            got = call(quick, "GetRecords", ShardIterator=iterator(quick), Limit=350)
            assert len(got["Records"]) == 350
    for i, answer in enumerate(answers):
        bodies[i] += answer.read()
        assert len(bodies[i]) == int(answer.headers["Content-Length"]) > 8_000_000
        check(bodies[i])
    for connection in slow:  # the connections are as good as new
        check_again = call(connection, "GetRecords", ShardIterator=iterator(connection), Limit=1)
        assert len(check_again["Records"]) == 1
        connection.close()
    quick.close()


def test_a_reader_that_goes_away_in_the_middle_is_nobodys_trouble(server: ServerProcess) -> None:
    for _ in range(3):
        connection = connect(server)
        send(connection, "GetRecords", {"ShardIterator": iterator(connection)})
        assert connection.getresponse().read(1000)
        connection.close()
    after = connect(server)
    send(after, "GetRecords", {"ShardIterator": iterator(after)})
    check(after.getresponse().read())
    after.close()
    assert "Traceback" not in server.log_text
