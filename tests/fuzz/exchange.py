"""One request and its answer over a kept connection, and what an answer may be."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import cbor2

from fuzz.wire_form import CBOR, JSON

EVENT_STREAM = "application/vnd.amazon.eventstream"
# What any operation may answer: the "common errors" of the API, and of the gateway before it.
COMMON = frozenset(
    {
        "AccessDeniedException", "DryRunOperationException", "IncompleteSignatureException",
        "InvalidSignatureException", "MissingAuthenticationTokenException",
        "RequestEntityTooLargeException", "SerializationException", "UnknownOperationException",
        "UnrecognizedClientException", "ValidationException",
    }
)  # fmt: skip
# What the operations of leases answer beyond these.
OWN = frozenset({"LeaseLostException", "ResourceNotFoundException", "InvalidArgumentException"})
OWN_TARGETS = ("Headrace_20261122.",)
SIGNATURE = (
    b"AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/kinesis/aws4_request, "
    b"SignedHeaders=host;x-amz-date, Signature=" + b"0" * 64
)

Headers = list[tuple[bytes, bytes]]


def usual_headers(target: str, content_type: str) -> Headers:
    return [
        (b"Host", b"127.0.0.1"),
        (b"X-Amz-Date", b"20261122T160000Z"),
        (b"Authorization", SIGNATURE),
        (b"Content-Type", content_type.encode()),
        (b"X-Amz-Target", target.encode()),
    ]


@dataclass(frozen=True)
class Reply:
    status: int
    content_type: str
    body: bytes

    @property
    def value(self) -> Any:
        """The body decoded, by its own content type."""
        if not self.body:
            return {}
        if self.content_type == CBOR:
            seconds = {1: lambda value, immutable: value}  # AWS's are milliseconds
            return cbor2.CBORDecoder(io.BytesIO(self.body), semantic_decoders=seconds).decode()
        return json.loads(self.body)


class Exchange:
    """A connection that is opened again whenever it was closed."""

    def __init__(self, endpoint: str, *, timeout_s: float = 30) -> None:
        parts = urlsplit(endpoint)
        self.address = (parts.hostname or "", parts.port or 0)
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None

    def ask(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Reply | None:
        """The answer, or None when the server closed the connection instead."""
        lines = [b"POST / HTTP/1.1", *(b"%s: %s" % pair for pair in headers)]
        lines.append(b"Content-Length: %d" % len(body))
        return self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def send(self, request: bytes, method: str = "POST") -> Reply | None:
        """Bytes as they are, and one answer."""
        sock = self._sock
        if sock is None:
            sock = self._sock = socket.create_connection(self.address, self._timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = http.client.HTTPResponse(sock, method=method)
        with contextlib.suppress(ConnectionError):  # it may answer and close before the end
            sock.sendall(request)
        try:
            answer.begin()
            content_type = answer.headers.get("content-type", "")
            reply = Reply(answer.status, content_type, self._body(answer, content_type))
        except (ConnectionError, http.client.HTTPException):
            self.close()
            return None
        finally:
            answer.close()
        if answer.will_close or content_type == EVENT_STREAM:
            self.close()
        return reply

    @staticmethod
    def _body(answer: http.client.HTTPResponse, content_type: str) -> bytes:
        """Of an event stream only its beginning: the rest takes five minutes."""
        return answer.read(16) if content_type == EVENT_STREAM else answer.read()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def complaint(reply: Reply | None, target: str, declared: frozenset[str]) -> str | None:
    """What is wrong with an answer to a Kinesis request; None when it is one AWS could give."""
    if reply is None:
        return None
    if reply.status == 200:
        if reply.content_type not in (EVENT_STREAM, JSON, CBOR, "application/json"):
            return f"a good answer of type {reply.content_type!r}"
        return None
    if not 400 <= reply.status < 500:
        return f"status {reply.status}: {reply.body[:300]!r}"
    if reply.content_type not in (JSON, CBOR):
        known = b"<AccessDeniedException>" in reply.body or b"400 Bad Request" in reply.body
        return None if known else f"status {reply.status} with {reply.body[:300]!r}"
    code = reply.value.get("__type")
    allowed = COMMON | declared | (OWN if target.startswith(OWN_TARGETS) else frozenset())
    fenced = code == "ProducerFencedException" and ".PutRecord" in target
    if code not in allowed and not fenced:
        return f"{code} is not among the errors of {target}: {reply.value}"
    if len(reply.body) > 100_000:
        return f"an error of {len(reply.body)} bytes"
    return None
