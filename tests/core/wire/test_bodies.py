"""Request bodies on the socket: in bits, in chunks, one behind the other, too large."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from headrace.core.listener.http1 import Http1Protocol
from headrace.core.listener.http1_gather import GatheringTransport
from headrace.core.listener.plain_head import plain_head
from headrace.core.pieces import Pieces
from headrace.core.testing.server_process import ServerProcess
from headrace.core.wire.app import MAX_BODY_BYTES

MIB = 1024 * 1024


def head(operation: str, *lines: str) -> bytes:
    return "\r\n".join(
        [
            "POST / HTTP/1.1",
            "Host: localhost",
            f"X-Amz-Target: Kinesis_20131202.{operation}",
            "Content-Type: application/x-amz-json-1.1",
            "X-Amz-Date: 20261122T000000Z",
            "Authorization: AWS4-HMAC-SHA256 Credential=a/20261122/us-east-1/kinesis/aws4_request, "
            "SignedHeaders=host, Signature=0",
            *lines,
            "\r\n",
        ]
    ).encode()


def sized(operation: str, body: bytes) -> bytes:
    return head(operation, f"Content-Length: {len(body)}") + body


def put(size: int) -> bytes:
    return json.dumps(
        {"StreamName": "s", "PartitionKey": "k", "Data": "A" * (size * 4 // 3 // 4 * 4)}
    ).encode()


@contextmanager
def connected(server: ServerProcess) -> Iterator[socket.socket]:
    address = ("127.0.0.1", int(server.endpoint.rpartition(":")[2]))
    with closing(socket.create_connection(address, 20)) as sock:
        yield sock


def answers(sock: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Status and body of so many answers, which came on one connection."""
    found = []
    with sock.makefile("rb") as lines:
        for _ in range(count):
            status = int(lines.readline().split()[1])
            length = 0
            while (line := lines.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            found.append((status, lines.read(length)))
    return found


def create_stream(sock: socket.socket) -> None:
    body = json.dumps({"StreamName": "s", "ShardCount": 1}).encode()
    sock.sendall(sized("CreateStream", body))
    assert answers(sock, 1) == [(200, b"")]


def test_a_body_that_comes_byte_by_byte_and_in_large_bits_is_taken_whole(
    server: ServerProcess,
) -> None:
    with connected(server) as sock:
        create_stream(sock)
        for request, step in (
            (sized("PutRecord", put(300)), 7),
            (sized("PutRecord", put(MIB)), 99_999),
        ):
            for at in range(0, len(request), step):
                sock.sendall(request[at : at + step])
            ((status, body),) = answers(sock, 1)
            assert status == 200 and b"SequenceNumber" in body


def test_a_chunked_body_is_taken_whole(server: ServerProcess) -> None:
    with connected(server) as sock:
        create_stream(sock)
        body = put(MIB // 2)
        sock.sendall(head("PutRecord", "Transfer-Encoding: chunked"))
        for at in range(0, len(body), 70_000):
            part = body[at : at + 70_000]
            sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        sock.sendall(b"0\r\n\r\n")
        assert answers(sock, 1)[0][0] == 200


def test_requests_sent_one_behind_the_other_are_answered_in_order(server: ServerProcess) -> None:
    with connected(server) as sock:
        create_stream(sock)
        summary = json.dumps({"StreamName": "s"}).encode()
        sock.sendall(
            sized("PutRecord", put(200_000))
            + sized("DescribeStreamSummary", summary)
            + sized("PutRecord", put(100))
        )
        first, second, third = answers(sock, 3)
        assert b"SequenceNumber" in first[1] and b"SequenceNumber" in third[1]
        assert b"StreamDescriptionSummary" in second[1]


def test_a_body_said_to_be_too_large_is_refused_before_it_is_sent(server: ServerProcess) -> None:
    with connected(server) as sock:
        sock.sendall(head("PutRecord", f"Content-Length: {MAX_BODY_BYTES + 1}"))
        assert answers(sock, 1)[0][0] == 413


def test_a_body_that_is_too_large_is_refused_in_json_whatever_it_is(
    server: ServerProcess,
) -> None:
    with connected(server) as sock:
        text = head("PutRecord", f"Content-Length: {MAX_BODY_BYTES + 1}").replace(
            b"x-amz-json", b"x"
        )
        sock.sendall(text)
        ((status, body),) = answers(sock, 1)
        assert status == 413 and json.loads(body)["__type"] == "RequestEntityTooLargeException"


def test_a_body_that_turns_out_too_large_is_refused_without_being_gathered(
    server: ServerProcess,
) -> None:
    assert Http1Protocol.gathered_bytes >= MAX_BODY_BYTES >= Http1Protocol.plain_bytes
    with connected(server) as sock:
        sock.sendall(head("PutRecord", "Transfer-Encoding: chunked"))
        chunk = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)
        for _ in range(Http1Protocol.gathered_bytes // MIB + 2):
            sock.sendall(chunk)
        assert answers(sock, 1)[0][0] == 413


def test_a_body_is_asked_for_where_the_client_waits_to_be_asked(server: ServerProcess) -> None:
    with connected(server) as sock:
        create_stream(sock)
        body = put(100)
        sock.sendall(head("PutRecord", f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert answers(sock, 1)[0][0] == 200


class Sent:
    """What reached the transport below, by system call; and that it was closed."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.calls.append(b"".join(parts))

    def close(self) -> None:
        self.calls.append(b"closed")


SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
STREAMED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_head_goes_with_its_body() -> None:
    sent = Sent()
    transport = GatheringTransport(sent)
    transport.write(SIZED)
    transport.write(b"abc")
    transport.write(SIZED)
    transport.write(Pieces([b"a", b"bc"]))
    assert sent.calls == [SIZED + b"abc"] * 2


def test_a_head_without_a_body_to_come_is_not_kept() -> None:
    sent = Sent()
    transport = GatheringTransport(sent)
    transport.write(STREAMED)
    assert sent.calls == [STREAMED]
    transport.write(b"3\r\nabc\r\n")
    transport.write(SIZED)
    transport.let_go()
    transport.let_go()
    transport.write(SIZED)
    transport.close()
    assert sent.calls == [STREAMED, b"3\r\nabc\r\n", SIZED, SIZED, b"closed"]


def test_the_head_alone_is_answered_at_once(server: ServerProcess) -> None:
    with connected(server) as sock:
        for _ in range(2):
            sock.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                came = sock.recv(4096)
                assert came, answer
                answer += came
            assert answer.startswith(b"HTTP/1.1 ")


def test_plain_requests_are_answered_as_others_are(server: ServerProcess) -> None:
    """Which way a request goes (see `listener.http1`) is not for the client to know."""
    summary = json.dumps({"StreamName": "s"}).encode()
    requests = [
        (b"", sized("DescribeStreamSummary", summary)),
        (b"", sized("DescribeStreamSummary", b"{}")),
        (b"", sized("DescribeStreamSummary", b"")),
        (b"", sized("NoSuchOperation", summary)),
        (b"", sized("DescribeStreamSummary", summary).replace(b"Authorization", b"X-None")),
        (b"", sized("DescribeStreamSummary", summary).replace(b"x-amz-json-1.1", b"json")),
        (b"", sized("DescribeStreamSummary", summary).replace(b"x-amz-json-1.1", b"xml")),
        (b"Origin: http://localhost\r\n", sized("DescribeStreamSummary", summary)),
        (b"Origin: http://elsewhere.example\r\n", sized("DescribeStreamSummary", summary)),
    ]
    with connected(server) as sock:
        create_stream(sock)
        for line, request in requests:
            first, _, rest = request.partition(b"\r\n")
            assert plain_head(first + b"\r\n" + line + rest) is not None
            said = []
            # which a parser must look at, and nobody else minds
            for other in (b"", b"Proxy-Connection: keep-alive\r\n"):
                sock.sendall(first + b"\r\n" + line + other + rest)
                said.append(_without_the_unique(sock.recv(10_000)))
            assert said[0] == said[1]


def _without_the_unique(answer: bytes) -> bytes:
    return re.sub(
        rb"(\r\nx-amzn-requestid: [0-9a-f-]{24})[0-9a-f]{12}|\r\ndate: [^\r]*", rb"\1", answer
    )
