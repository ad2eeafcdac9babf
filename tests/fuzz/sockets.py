"""Bytes to a port and what comes back, with nothing that knows HTTP in between."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from fuzz.exchange import SIGNATURE
from fuzz.impatient import PATIENCE_S

HEAD = (
    b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\n"
    b"X-Amz-Date: 20261122T160000Z\r\nContent-Type: application/x-amz-json-1.1\r\n"
    b"Authorization: " + SIGNATURE + b"\r\n"
)
GOOD = HEAD + b"Content-Length: 2\r\n\r\n{}"
SOON_S = 3 * PATIENCE_S + 5  # a bound holds once to twice its time; and some for a busy machine


@contextlib.contextmanager
def dialled(endpoint: str, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """`receive_bytes` is about what the system keeps of answers nobody reads."""
    parts = urlsplit(endpoint)
    with socket.socket() as sock:
        sock.settimeout(20)
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect((parts.hostname or "", parts.port or 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


def heard(sock: socket.socket, timeout_s: float = SOON_S) -> bytes:
    """All that comes until the server closes the connection, which it must in that time."""
    sock.settimeout(timeout_s)
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def said(endpoint: str, *parts: bytes, timeout_s: float = SOON_S) -> list[int]:
    """Statuses of what comes back for some bytes until the connection is closed."""
    with dialled(endpoint) as sock:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        return statuses(heard(sock, timeout_s))


def is_closed(sock: socket.socket) -> bool:
    sock.settimeout(0.001)
    try:
        while sock.recv(100_000):
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
