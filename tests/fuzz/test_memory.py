"""What is kept for peers in memory is bounded over all connections, whatever each of them does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_support import boto3_client, create, iterator
from fuzz import frames
from fuzz.frames import HELLO, frame
from fuzz.impatient import Impatient, impatient_server
from fuzz.sockets import GOOD, HEAD, dialled, heard, statuses
from fuzz.vitals import until

MIB = 1 << 20
MOST_BYTES = 8 * MIB


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Impatient]:
    """A server that keeps eight mebibytes for all its peers, and waits long for them."""
    with impatient_server(
        tmp_path / "stream", max_held_bytes=MOST_BYTES, patience_s=5, idle_s=60
    ) as found:
        yield found
        found.comes_to_rest()


def test_half_sent_bodies_of_many_are_refused(small: Impatient) -> None:
    """Twenty times a mebibyte of a body that goes no further: the ninth is one too many."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(dialled(small.endpoint)) for _ in range(20)]
        for sock in connections:
            with contextlib.suppress(ConnectionError):
                sock.sendall(HEAD + b"Content-Length: 10000000\r\n\r\n" + b" " * MIB)
            time.sleep(0.02)
            assert small.held_bytes < MOST_BYTES + 2 * MIB
        refused = 0
        for sock in connections:
            sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError, ConnectionError):
                answer = sock.recv(1_000)
                refused += statuses(answer) == [503] or not answer
        assert 8 <= refused <= 13
    until(lambda: small.held_bytes == 0, "it is given back")
    with dialled(small.endpoint) as sock:
        sock.sendall(GOOD)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_half_sent_bodies_over_http2_too(small: Impatient) -> None:
    refused = frame(frames.RST_STREAM, 0, 0, b"\0\0\0\x07")[-4:]
    with dialled(small.endpoint) as sock:
        sock.sendall(HELLO)
        for n in range(20):
            stream = 2 * n + 1
            sock.sendall(frame(frames.HEADERS, 4, stream, frames.fields("ListStreams")))
            for _ in range(10):
                sock.sendall(frame(frames.DATA, 0, stream, b" " * 100_000))
            time.sleep(0.02)
            assert small.held_bytes < MOST_BYTES + 2 * MIB
        sock.settimeout(1)
        answer = b""
        with contextlib.suppress(TimeoutError):
            while len(answer) < 10_000:
                answer += sock.recv(100_000)
        assert answer.count(refused) >= 8
    until(lambda: small.held_bytes == 0, "it is given back")


def read_of_four_mebibytes(server: Impatient) -> bytes:
    """The body of a GetRecords that is answered with so much."""
    kinesis = boto3_client(server.endpoint)
    create(kinesis, "large")
    for _ in range(4):
        kinesis.put_record(StreamName="large", Data=b"x" * (MIB - 10), PartitionKey="k")
    token: str = iterator(kinesis, "large", "shardId-000000000000", "TRIM_HORIZON")
    kinesis.close()
    return b'{"ShardIterator":"%s"}' % token.encode()


def test_answers_nobody_takes_are_counted(small: Impatient) -> None:
    body = read_of_four_mebibytes(small)
    read = HEAD.replace(b"ListStreams", b"GetRecords")
    read += b"Content-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(20):
            sock = stack.enter_context(dialled(small.endpoint))
            sock.sendall(read)
            found.append(sock.recv(12))
            assert small.held_bytes < MOST_BYTES + 8 * MIB
        assert b"HTTP/1.1 503" in found
    until(lambda: small.held_bytes == 0, "it is given back")
    with dialled(small.endpoint) as sock:
        sock.sendall(read.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert len(heard(sock, 10)) > 4 * MIB


def test_subscriptions_nobody_reads_are_counted(small: Impatient) -> None:
    """Each may have a mebibyte under way for as long as it lasts, over HTTP/1.1 too."""
    kinesis = boto3_client(small.endpoint)
    create(kinesis, "wide")
    for _ in range(8):  # more than the system keeps for a socket
        kinesis.put_record(StreamName="wide", Data=b"x" * (MIB - 10), PartitionKey="k")
    arn = kinesis.describe_stream_summary(StreamName="wide")["StreamDescriptionSummary"][
        "StreamARN"
    ]
    consumers = [
        kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=f"c{n}")["Consumer"]
        for n in range(16)
    ]
    kinesis.close()
    with contextlib.ExitStack() as stack:
        sockets = []
        for consumer in consumers:
            sock = stack.enter_context(dialled(small.endpoint, receive_bytes=4096))
            sock.sendall(subscribe(consumer["ConsumerARN"]))
            if sock.recv(12) == b"HTTP/1.1 503":
                break
            sockets.append(sock)
            until(lambda: small.held_bytes > len(sockets) * MIB, "the answer is counted")
        assert len(sockets) <= MOST_BYTES // MIB
        before_bytes = small.held_bytes
        heard_last = b""
        while b'"MillisBehindLatest":0' not in heard_last:
            heard_last = heard_last[-100:] + sockets[0].recv(MIB)
        until(lambda: small.held_bytes < before_bytes - MIB // 2, "who reads is let off")
    until(lambda: small.held_bytes == 0, "it is given back")


def subscribe(consumer_arn: str) -> bytes:
    body = b'{"ConsumerARN":"%s","ShardId":"shardId-000000000000","StartingPosition":%s}' % (
        consumer_arn.encode(),
        b'{"Type":"TRIM_HORIZON"}',
    )
    head = HEAD.replace(b"ListStreams", b"SubscribeToShard")
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_answers_nobody_takes_are_given_up(tmp_path: Path) -> None:
    """Over either protocol, the socket full, the connection kept open by the peer."""
    with impatient_server(tmp_path / "stream") as server:
        body = read_of_four_mebibytes(server)
        read = HEAD.replace(b"ListStreams", b"GetRecords")
        read += b"Content-Length: %d\r\n\r\n" % len(body) + body
        wide = HELLO + frames.window(0, 2**31 - 65_536) + frames.settings((4, 2**31 - 1))
        reads = b"".join(frames.request(2 * n + 1, "GetRecords", body) for n in range(5))
        with contextlib.ExitStack() as stack:
            for text in (read, read + GOOD * 5, read.replace(b"1.1", b"1.0", 1), wide + reads):
                stack.enter_context(dialled(server.endpoint)).sendall(text)
            until(lambda: server.held_bytes > 4 * MIB, "they are answered")
            server.comes_to_rest()
