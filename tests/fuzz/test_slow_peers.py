"""Peers that send slowly, or take nothing, or go: nobody is waited for for ever."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api_support import boto3_client, create
from fuzz.frames import HELLO, request, settings, window
from fuzz.impatient import IDLE_S, PATIENCE_S, Impatient, impatient_server
from fuzz.sockets import GOOD, HEAD, SOON_S, dialled, heard, is_closed
from fuzz.steadiness import Gaps, assert_steady
from fuzz.vitals import until
from headrace.core.listener.guard import MAX_STILL_LOOKS

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def drip(endpoint: str, begin: bytes, piece: bytes) -> float:
    """Seconds until the server has had enough of one piece after the other."""
    began = time.monotonic()
    with dialled(endpoint) as sock:
        sock.sendall(begin)
        while not is_closed(sock):
            assert time.monotonic() - began < 10 * PATIENCE_S + 10, "for ever"
            with contextlib.suppress(ConnectionError):
                sock.sendall(piece)
            time.sleep(PATIENCE_S / 10)
        return time.monotonic() - began


DRIPS = {
    "line": (b"POST /", b"a"),
    "headers": (HEAD, b"X-A: b\r\n"),
    "header": (HEAD + b"X-Long: ", b"a"),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b"a"),
    "chunks": (CHUNKED, b"1\r\na\r\n"),
    "extension": (CHUNKED + b"1;x=", b"y"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Trailer: a\r\n"),
    "line ends": (GOOD, b"\r\n"),
}


def test_slow_senders_are_given_up(impatient: Impatient) -> None:
    with ThreadPoolExecutor(len(DRIPS)) as pool:
        took = {
            name: pool.submit(drip, impatient.endpoint, *parts) for name, parts in DRIPS.items()
        }
        for name, future in took.items():
            assert future.result() > PATIENCE_S / 2, name
    impatient.comes_to_rest()


def test_a_large_body_that_comes_steadily_is_waited_for(impatient: Impatient) -> None:
    body = b" " * 200_000 + b"{}"
    pieces = [body[at : at + 10_000] for at in range(0, len(body), 10_000)]  # a second of them

    def is_waited_for(gaps: Gaps) -> bool:
        with dialled(impatient.endpoint) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
            for piece in pieces:
                gaps.note()
                sock.sendall(piece)
                time.sleep(PATIENCE_S / 6)
            return sock.recv(100).startswith(b"HTTP/1.1 200")
        return False

    assert_steady(is_waited_for, PATIENCE_S)


def test_a_body_nobody_wants_is_not_waited_for_for_ever(impatient: Impatient) -> None:
    with dialled(impatient.endpoint) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % 10**12)
        assert sock.recv(100).startswith(b"HTTP/1.1 413")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 20:
                sock.sendall(b"x" * 50_000)
                time.sleep(0.01)
        assert time.monotonic() - began < SOON_S


def test_a_reader_that_takes_nothing_is_given_up(impatient: Impatient) -> None:
    with dialled(impatient.endpoint) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.sendall(GOOD)
        sock.recv(10)
        for _ in range(3_000):  # answers of 300 bytes, until the socket is full
            try:
                sock.settimeout(0.5)
                sock.sendall(GOOD * 10)
            except OSError:
                break
        until(lambda: not impatient.state.connections, "it is given up")
    impatient.comes_to_rest()


def test_a_connection_without_requests_is_closed(impatient: Impatient) -> None:
    began = time.monotonic()
    with dialled(impatient.endpoint) as silent, dialled(impatient.endpoint) as used:
        used.sendall(GOOD)
        for sock in (silent, used):
            heard(sock, IDLE_S + SOON_S)
            assert time.monotonic() - began > IDLE_S * 0.8


# Event streams


SUBSCRIBED_BYTES = 8_000_000  # more than sockets take


def subscriptions(server: Impatient, count: int) -> list[bytes]:
    """The bodies of as many SubscribeToShard, each of a shard of its own with records in it."""
    kinesis = boto3_client(server.endpoint)
    create(kinesis, "s", shards=count)
    arn = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]
    for shard in kinesis.list_shards(StreamName="s")["Shards"]:
        key = shard["HashKeyRange"]["StartingHashKey"]
        record = {"Data": b"x" * 1_000_000, "PartitionKey": "k", "ExplicitHashKey": key}
        for _ in range(SUBSCRIBED_BYTES // 1_000_000 if count < 8 else 1):
            assert kinesis.put_records(StreamName="s", Records=[record])["FailedRecordCount"] == 0
    kinesis.close()
    return [
        json.dumps(
            {
                "ConsumerARN": consumer["ConsumerARN"],
                "ShardId": f"shardId-{shard:012d}",
                "StartingPosition": {"Type": "TRIM_HORIZON"},
            }
        ).encode()
        for shard in range(count)
    ]


def subscribe(body: bytes) -> bytes:
    head = HEAD.replace(b"ListStreams", b"SubscribeToShard")
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_subscriptions_dropped_half_way(tmp_path: Path) -> None:
    with impatient_server(tmp_path / "stream") as server:
        for shard, body in enumerate(subscriptions(server, 8)):
            with dialled(server.endpoint) as sock:
                sock.sendall(subscribe(body))
                assert sock.recv(1_000).startswith(b"HTTP/1.1 200")
                assert shard % 2 or len(sock.recv(50_000)) > 0
                if shard % 3 == 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if shard % 3 == 1:
                    sock.sendall(b"garbage\r\n\r\n")
        server.comes_to_rest()


def test_a_busy_consumer_keeps_its_subscription(tmp_path: Path) -> None:
    """It takes nothing for longer than any other answer may lie there; then everything is there."""
    with (
        impatient_server(tmp_path / "stream", idle_s=60) as server,
        contextlib.ExitStack() as stack,
    ):
        one, other = subscriptions(server, 2)
        wide = window(0, 2**31 - 65_536) + settings((4, 2**31 - 1))
        busy = [stack.enter_context(dialled(server.endpoint)) for _ in range(2)]
        busy[0].sendall(subscribe(one))
        busy[1].sendall(HELLO + wide + request(1, "SubscribeToShard", other))
        until(lambda: len(server.state.tasks) == 2, "they are served")
        time.sleep(5 * PATIENCE_S)
        for sock in busy:
            sock.settimeout(10)
            came_bytes = 0
            while came_bytes < SUBSCRIBED_BYTES * 4 // 3:  # base64
                part = sock.recv(1 << 20)
                assert part, "it was given up"
                came_bytes += len(part)
            sock.close()
        server.comes_to_rest()


@pytest.mark.slow
def test_a_consumer_that_is_gone_does_not(tmp_path: Path) -> None:
    with impatient_server(tmp_path / "stream") as server:
        [body] = subscriptions(server, 1)
        with dialled(server.endpoint) as sock:
            sock.sendall(subscribe(body))
            until(server.is_quiet, "it is given up", 2 * MAX_STILL_LOOKS * PATIENCE_S)
