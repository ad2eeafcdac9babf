"""The HTTP around the operations: headers, other methods, strangers, CBOR."""

from __future__ import annotations

import base64
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cbor2
import pytest

from api_support import (
    CBOR,
    JSON,
    SIGNED,
    Raw,
    b64,
    create,
    iterator,
    read_shard,
    reply_is,
    server_here,
)
from headrace.core.client import StreamClient
from headrace.core.part import StreamTarget
from headrace.core.testing.server_process import ServerProcess

TARGET = {"X-Amz-Target": "Kinesis_20131202.ListStreams"}
FIRST = "shardId-000000000000"


# Headers


@pytest.mark.parametrize(
    ("operation", "body", "status"),
    [("ListStreams", {}, 200), ("DescribeStream", {"StreamName": "none"}, 400)],
)
def test_wire_33_the_headers_of_an_answer(
    raw: Raw, operation: str, body: object, status: int
) -> None:
    one, two = raw.call(operation, body), raw.call(operation, body)
    for reply in (one, two):
        assert reply.status == status
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            reply.headers["x-amzn-requestid"],
        )
        assert 64 <= len(base64.b64decode(reply.headers["x-amz-id-2"])) <= 80
        assert reply.headers["content-type"] == JSON
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert "date" in reply.headers
        assert "server" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers
    assert one.headers["x-amzn-requestid"] != two.headers["x-amzn-requestid"]


def test_header_names_and_content_types_in_any_case(raw: Raw) -> None:
    headers = {**SIGNED, "CONTENT-TYPE": "Application/X-Amz-Json-1.1; charset=utf-8"}
    reply = raw.send("POST", "/", b"{}", {**headers, "x-AMZ-target": TARGET["X-Amz-Target"]})
    assert reply.status == 200


# Not an operation


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("PUT", "/"), ("DELETE", "/"), ("GET", "/x"), ("POST", "/x"), ("OPTIONS", "/")],
)
def test_wire_31_no_known_route(raw: Raw, method: str, path: str) -> None:
    reply = raw.send(method, path, None, {})
    assert reply.status == 403
    assert "x-amzn-requestid" in reply.headers
    assert "x-amz-id-2" in reply.headers
    assert reply.body.decode() == (
        "<AccessDeniedException>\n"
        "  <Message>Unable to determine service/operation name to be authorized</Message>\n"
        "</AccessDeniedException>\n"
    )


def test_wire_31_a_content_type_of_no_protocol(raw: Raw) -> None:
    for content_type in ("text/plain", "application/x-amz-json-1.0", ""):
        headers = {**SIGNED, **TARGET, "Content-Type": content_type}
        reply = raw.send("POST", "/", b"{}", headers)
        assert reply.status == 403
        assert b"<AccessDeniedException>" in reply.body


@pytest.mark.parametrize(
    "target",
    ["", "Kinesis_20131202.", "Kinesis_20131202.Nothing", "DynamoDB_20120810.ListTables", "x"],
)
def test_an_unknown_target(raw: Raw, target: str) -> None:
    headers = {**SIGNED, "Content-Type": JSON, "X-Amz-Target": target}
    reply_is(raw.send("POST", "/", b"{}", headers), "UnknownOperationException")


def test_wire_30_an_empty_body(raw: Raw) -> None:
    headers = {**SIGNED, "Content-Type": CBOR}
    reply = raw.send("POST", "/", b"", headers)
    assert (reply.status, reply.cbor) == (400, {"__type": "UnknownOperationException"})
    headers = {**SIGNED, **TARGET, "Content-Type": JSON}
    reply_is(raw.send("POST", "/", b"", headers), "SerializationException")
    headers["X-Amz-Target"] = "Kinesis_20131202.X"
    reply_is(raw.send("POST", "/", b"", headers), "UnknownOperationException")
    reply = raw.send("POST", "/", b"", {})  # with nothing to tell by how it is to be answered
    assert (reply.status, reply.cbor) == (400, {"__type": "UnknownOperationException"})


@pytest.mark.parametrize("operation", ["PutRecord", "PutRecords", "GetRecords"])
def test_the_operations_that_move_records_look_at_every_member(
    kinesis: Any, raw: Raw, name: str, operation: str
) -> None:
    create(kinesis, name)
    entry: dict[str, Any] = {"Data": b64(b"x"), "PartitionKey": "k"}
    request: dict[str, Any] = {
        "PutRecord": {"StreamName": name, **entry},
        "PutRecords": {"StreamName": name, "Records": [entry]},
        "GetRecords": {"ShardIterator": iterator(kinesis, name)},
    }[operation]
    members = kinesis.meta.service_model.operation_model(operation).input_shape.members

    def refusals_of(member: str, value: object) -> set[str]:
        wrong = {**request, member: value}
        as_json = raw.call(operation, wrong).json
        as_cbor = raw.call(operation, wrong, content_type=CBOR).cbor
        return {as_json["__type"], as_cbor["__type"]}

    for member, shape in members.items():
        assert refusals_of(member, {"Not": "this"}) == {"SerializationException"}
        if "pattern" in shape.metadata:
            assert refusals_of(member, "\t!") == {"ValidationException"}
    assert raw.call(operation, {**request, "NotOfTheModel": 1}).status == 200
    assert len(read_shard(kinesis, name)) == (operation != "GetRecords")


def test_health(raw: Raw) -> None:
    reply = raw.send("GET", "/healthz")
    assert (reply.status, reply.json["ok"]) == (200, True)


# Strangers


def test_wire_32_an_unsigned_request(raw: Raw) -> None:
    headers = {"Content-Type": JSON, **TARGET}
    reply = raw.send("POST", "/", b"{}", headers)
    reply_is(reply, "MissingAuthenticationTokenException", "Missing Authentication Token")


def test_wire_32_every_missing_part_is_named(raw: Raw) -> None:
    headers = {"Content-Type": JSON, **TARGET, "Authorization": "AWS4-HMAC-SHA256 X=1"}
    reply_is(
        raw.send("POST", "/", b"{}", headers),
        "IncompleteSignatureException",
        "Authorization header requires 'Credential' parameter. "
        "Authorization header requires 'Signature' parameter. "
        "Authorization header requires 'SignedHeaders' parameter. "
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        "Authorization=AWS4-HMAC-SHA256 X=1",
    )


# CBOR


def test_cbor_there_and_back(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    data = bytes(range(256))
    put = raw.call(
        "PutRecord",
        {"StreamName": name, "Data": data, "PartitionKey": 'ü"\n'},
        content_type=CBOR,
    )
    assert put.status == 200
    assert put.headers["content-type"] == CBOR
    assert set(put.cbor) == {"ShardId", "SequenceNumber"}
    entries = [{"Data": b"", "PartitionKey": "k"}, {"Data": b"x", "PartitionKey": "l"}]
    many = raw.call("PutRecords", {"StreamName": name, "Records": entries}, content_type=CBOR)
    assert many.cbor["FailedRecordCount"] == 0
    got = raw.call("GetRecords", {"ShardIterator": iterator(kinesis, name)}, content_type=CBOR)
    answer = got.cbor
    assert set(answer) == {"Records", "NextShardIterator", "MillisBehindLatest"}
    assert [(r["Data"], r["PartitionKey"]) for r in answer["Records"]] == [
        (data, 'ü"\n'),
        (b"", "k"),
        (b"x", "l"),
    ]
    # the same through JSON
    assert [record["Data"] for record in read_shard(kinesis, name)] == [data, b"", b"x"]


def test_cbor_timestamps_are_integer_milliseconds_under_tag_1(
    kinesis: Any, raw: Raw, name: str
) -> None:
    create(kinesis, name)
    before_ms = time.time_ns() // 1_000_000
    kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    after_ms = time.time_ns() // 1_000_000
    token = iterator(kinesis, name)
    body = raw.call("GetRecords", {"ShardIterator": token}, content_type=CBOR).body
    arrived_ms = tagged(body, "ApproximateArrivalTimestamp")
    assert before_ms <= arrived_ms <= after_ms
    body = raw.call("DescribeStream", {"StreamName": name}, content_type=CBOR).body
    assert tagged(body, "StreamCreationTimestamp") <= before_ms

    def records_at(at_ms: int) -> int:
        request = {
            "StreamName": name,
            "ShardId": FIRST,
            "ShardIteratorType": "AT_TIMESTAMP",
            "Timestamp": cbor2.CBORTag(1, at_ms),  # as the Java SDK sends it
        }
        found = raw.call("GetShardIterator", request, content_type=CBOR).cbor
        got = raw.call("GetRecords", {"ShardIterator": found["ShardIterator"]}, content_type=CBOR)
        return len(got.cbor["Records"])

    assert records_at(arrived_ms) == 1
    while time.time_ns() // 1_000_000 <= arrived_ms:
        pass
    assert records_at(arrived_ms + 1) == 0


def tagged(body: bytes, member: str) -> int:
    """The integer after a member's name and tag 1, read off the bytes."""
    place = body.index(member.encode()) + len(member)
    assert body[place : place + 2] == b"\xc1\x1b"  # tag 1, an unsigned integer of 8 bytes
    return int.from_bytes(body[place + 2 : place + 10], "big")


def test_cbor_of_indefinite_length_as_jackson_writes_it(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)

    def text(value: str) -> bytes:
        return cbor2.dumps(value)

    body = (
        b"\xbf"  # a map without a length
        + text("Records")
        + b"\x9f"  # a list without a length
        + b"\xbf" + text("Data") + cbor2.dumps(b"x") + text("PartitionKey") + text("k") + b"\xff"
        + b"\xff" + text("StreamName") + text(name) + b"\xff"
    )  # fmt: skip
    assert raw.call("PutRecords", body, content_type=CBOR).status == 200
    assert [record["Data"] for record in read_shard(kinesis, name)] == [b"x"]


def test_cbor_errors(raw: Raw) -> None:
    reply = raw.call("DescribeStream", {"StreamName": "none"}, content_type=CBOR)
    assert reply.status == 400
    assert reply.headers["content-type"] == CBOR
    assert reply.cbor == {
        "__type": "ResourceNotFoundException",
        "message": "Stream none under account 123456789012 not found.",
    }
    reply = raw.call("PutRecord", {"StreamName": "s", "PartitionKey": "k"}, content_type=CBOR)
    assert reply.cbor["__type"] == "ValidationException"
    for body in (b"\xff", b"\xa1", b"\xbf\x61", cbor2.dumps({"StreamName": "s"}) + b"\x00"):
        reply = raw.call("DescribeStream", body, content_type=CBOR)
        assert reply.cbor == {"__type": "SerializationException"}, body


def test_cbor_at_the_end_of_a_closed_shard(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    kinesis.split_shard(StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
    token = iterator(kinesis, name)
    answer = raw.call("GetRecords", {"ShardIterator": token}, content_type=CBOR).cbor
    assert "NextShardIterator" not in answer
    assert len(answer["ChildShards"]) == 2


def test_cbor_answers_without_a_body(kinesis: Any, raw: Raw, name: str) -> None:
    reply = raw.call("CreateStream", {"StreamName": name, "ShardCount": 1}, content_type=CBOR)
    assert (reply.status, reply.body) == (200, b"")


# Connections


def connect(server: ServerProcess) -> socket.socket:
    parts = urlsplit(server.endpoint)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)


async def test_no_answer_waits_for_the_client_to_acknowledge_its_headers(tmp_path: Path) -> None:
    """On asyncio's own loop every answer took 40 ms: Nagle's algorithm was on."""
    async with (
        server_here(tmp_path / "s") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        took_s = []
        for _ in range(10):
            started = time.monotonic()
            await client.call("ListStreams", {})
            took_s.append(time.monotonic() - started)
        assert min(took_s) < 0.03, took_s


def test_a_client_that_leaves_in_the_middle_of_a_body(
    server: ServerProcess, kinesis: Any, name: str
) -> None:
    create(kinesis, name)
    head = "\r\n".join(
        [
            "POST / HTTP/1.1",
            "Host: x",
            f"Content-Type: {JSON}",
            "X-Amz-Target: Kinesis_20131202.PutRecord",
            *(f"{key}: {value}" for key, value in SIGNED.items()),
            "Content-Length: 1000",
            "",
            f'{{"StreamName":"{name}","Data":"","PartitionKey":"k"}}',
        ]
    )
    for _ in range(5):
        with connect(server) as connection:
            connection.sendall(head.encode())
    assert read_shard(kinesis, name) == []


def test_what_is_not_http(server: ServerProcess, kinesis: Any) -> None:
    for garbage in (b"\x00" * 100, b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n"):
        with connect(server) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert kinesis.list_streams()


def test_a_body_in_chunks(server: ServerProcess, kinesis: Any, name: str) -> None:
    """Go's and Rust's clients send large bodies so."""
    create(kinesis, name)
    body = f'{{"StreamName":"{name}","Data":"eA==","PartitionKey":"k"}}'.encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    head = "".join(
        f"{key}: {value}\r\n"
        for key, value in {
            **SIGNED,
            "Host": "x",
            "Content-Type": JSON,
            "X-Amz-Target": "Kinesis_20131202.PutRecord",
            "Transfer-Encoding": "chunked",
            "Connection": "close",
        }.items()
    )
    with connect(server) as connection:
        request = b"POST / HTTP/1.1\r\n" + head.encode() + b"\r\n" + chunks + b"0\r\n\r\n"
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [record["Data"] for record in read_shard(kinesis, name)] == [b"x"]
