"""HTTP load for the benchmarks of the stream: keep-alive connections, whole answers.

Bodies are made beforehand from a seed, so that nothing but sending and receiving is in the way.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import random
import selectors
import socket
import time
from dataclasses import dataclass

AUTH = (
    "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLEEXAMPLE00/20260101/us-east-1/kinesis/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=" + "0" * 64
)


def http(port: int, operation: str, body: bytes) -> bytes:
    return (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-amz-json-1.1\r\n"
        f"X-Amz-Target: Kinesis_20131202.{operation}\r\nX-Amz-Date: 20260101T000000Z\r\n"
        f"Authorization: {AUTH}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class Connection:
    """One keep-alive connection; whole answers only."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.want = -1

    def send(self, request: bytes) -> None:
        self.buffer.clear()
        self.want = -1
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what is there; True when the answer is whole."""
        self.buffer += self.socket.recv(1 << 20)
        if self.want < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.buffer[:end]).lower()
            at = head.index(b"content-length:") + 15
            self.body_at = end + 4
            self.want = self.body_at + int(head[at:].split(b"\r\n", 1)[0])
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(bytes(self.buffer[:600]).decode("latin-1"))
        return len(self.buffer) >= self.want

    def raw(self, operation: str, body: bytes) -> tuple[bytes, float]:
        started = time.perf_counter()
        self.send(http(self.port, operation, body))
        while not self.receive():
            pass
        return bytes(self.buffer[self.body_at :]), time.perf_counter() - started

    def call(self, operation: str, **request: object) -> dict[str, object]:
        raw = self.raw(operation, json.dumps(request).encode())[0]
        answer: dict[str, object] = json.loads(raw) if raw else {}
        return answer


@dataclass(frozen=True)
class Loaded:
    """What one stretch of load brought."""

    answers_per_s: float
    latencies_ms: list[float]


def _load(
    port: int, operation: str, bodies: list[bytes], connections: int, seconds: float
) -> Loaded:
    """A closed loop over some connections, for at least three answers on each.

    Counted is from as many answers on as there are connections, when the server has as much to do
    as it will, until the first that is not followed by another request; the rest is waited for, so
    that nothing of it is left for whoever is measured next. A connection's first request, which
    includes its being accepted, is in no latency.
    """
    requests = [http(port, operation, body) for body in bodies]
    poll = selectors.DefaultSelector()
    sent: dict[Connection, float] = {}
    answered: list[float] = []
    latencies: list[float] = []
    fresh = {Connection(port) for _ in range(connections)}
    n = 0
    until = time.perf_counter() + seconds
    for connection in fresh:
        poll.register(connection.socket, selectors.EVENT_READ, connection)
        sent[connection] = time.perf_counter()
        connection.send(requests[n % len(requests)])
        n += 1
    ended = False
    while sent:
        for key, _ in poll.select(1):
            connection = key.data
            if not connection.receive():
                continue
            now = time.perf_counter()
            began = sent.pop(connection)
            if connection in fresh:
                fresh.remove(connection)
            else:
                latencies.append((now - began) * 1e3)
            ended = ended or (now >= until and len(answered) >= 3 * connections)
            if ended:
                poll.unregister(connection.socket)
                connection.socket.close()
                continue
            answered.append(now)
            connection.send(requests[n % len(requests)])
            sent[connection] = now
            n += 1
    counted = answered[connections - 1 :]
    return Loaded((len(counted) - 1) / (counted[-1] - counted[0]), latencies)


_bodies: dict[str, list[bytes]] = {}


def _remember(bodies: dict[str, list[bytes]]) -> None:
    _bodies.update(bodies)


def _load_named(port: int, operation: str, name: str, connections: int, seconds: float) -> Loaded:
    return _load(port, operation, _bodies[name], connections, seconds)


class LoadProcess:
    """A process that sends load, so that what measures is in nobody's way.

    It is given all bodies once: making it, or sending it those, would be in the way as well.
    """

    def __init__(self, bodies: dict[str, list[bytes]]) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(1, _remember, (bodies,))

    def load(
        self, port: int, operation: str, name: str, connections: int, seconds: float
    ) -> Loaded:
        """Send the bodies of that name, over and over, for about so long."""
        return self._pool.apply(_load_named, (port, operation, name, connections, seconds))

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()


class Bodies:
    """Requests made from a seed."""

    def __init__(self, seed: int, stream: str = "bench") -> None:
        self._random = random.Random(seed)
        self._stream = stream

    def _record(self, size: int) -> dict[str, str]:
        return {
            "Data": base64.b64encode(self._random.randbytes(size)).decode(),
            "PartitionKey": f"{self._random.getrandbits(64):016x}",
        }

    def records(self, size: int, count: int = 16) -> list[bytes]:
        return [
            json.dumps(
                {"StreamName": self._stream, "Records": [self._record(size) for _ in range(500)]},
                separators=(",", ":"),
            ).encode()
            for _ in range(count)
        ]

    def single(self, size: int, count: int = 256) -> list[bytes]:
        return [
            json.dumps(
                {"StreamName": self._stream, **self._record(size)}, separators=(",", ":")
            ).encode()
            for _ in range(count)
        ]


def make_stream(port: int) -> None:
    connection = Connection(port)
    connection.call("CreateStream", StreamName="bench", ShardCount=4)
    while True:
        answer = connection.call("DescribeStreamSummary", StreamName="bench")
        summary = answer["StreamDescriptionSummary"]
        assert isinstance(summary, dict)
        if summary["StreamStatus"] == "ACTIVE":
            connection.socket.close()
            return
        time.sleep(0.02)


def fill(port: int, bodies: list[bytes], records: int) -> None:
    connection = Connection(port)
    for i in range(records // 500):
        connection.raw("PutRecords", bodies[i % len(bodies)])
    connection.socket.close()
