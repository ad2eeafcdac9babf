"""One HTTP/2 stream as one ASGI request: its body coming in, its answer going out."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from headrace.core.limits import KIB
from headrace.core.listener.guard import MAX_STILL_LOOKS, MIN_PROGRESS_BYTES, Guard
from headrace.core.pieces import Pieces

Message = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]
App = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

# What an application may be ahead of its peer before its `send` waits.
SEND_AHEAD_BYTES = 256 * KIB

# RFC 9113 8.2.2: what HTTP/1.1 says about a connection has no place in a stream.
_OF_CONNECTIONS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)

_log = logging.getLogger("headrace.core")


class Connection(Protocol):
    """What a stream needs of its connection."""

    def acknowledge(self, stream_id: int, size: int) -> None: ...
    def send_headers(self, stream_id: int, headers: Headers) -> None: ...
    def wants_to_send(self, stream: Http2Stream) -> None: ...
    def reset(self, stream: Http2Stream) -> None: ...


class Http2Stream:
    """A request and its answer. The connection feeds it and takes its output a frame at a time."""

    def __init__(
        self, stream_id: int, scope: dict[str, Any], connection: Connection, guard: Guard
    ) -> None:
        self.stream_id = stream_id
        self.has_ended = False  # the peer has sent all it will
        self.is_queued = False  # the connection knows that it has output
        self._scope = scope
        self._connection = connection
        self._guard = guard
        self._is_gone = False
        self._is_over = False  # the application has returned
        self._body: list[bytes] = []
        self._unacknowledged_bytes = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._seen: tuple[int, int, bool] | None = None
        self._still_count = 0  # looks at which nothing of the answer had been taken
        self._has_told_end = False
        self._news = asyncio.Event()
        self._is_started = False
        self._is_answered = False
        self._output: deque[memoryview] = deque()
        self._output_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    # the connection's side: in

    def take(self, data: bytes, size: int) -> bool:
        """Body bytes that count as `size` in the window. False when nobody wants them."""
        if self._is_answered or self._is_over:
            return False
        self._body.append(data)
        self._received_bytes += len(data)
        self._guard.held_bytes += len(data)
        self._unacknowledged_bytes += size
        self._news.set()
        return True

    def end(self) -> None:
        """The body is whole."""
        self.has_ended = True
        self._news.set()

    def disconnect(self) -> None:
        """The stream or its connection is gone: nobody will read the answer."""
        self._is_gone = True
        self._output.clear()
        self._guard.held_bytes -= self._output_bytes
        self._output_bytes = 0
        self._news.set()
        self._room.set()

    # the connection's side: out

    @property
    def has_bytes(self) -> bool:
        return bool(self._output)

    def standstill(self, *, is_blocked: bool) -> str | None:
        """What has not moved since this was last asked, and should have.

        `is_blocked`: the peer does not let anything be sent to it on this stream.
        """
        before = self._seen
        self._seen = (self._received_bytes, self._sent_bytes, self.has_bytes)
        if before is None:
            return None
        received_bytes, sent_bytes, had_bytes = before
        is_still = is_blocked and had_bytes and self.has_bytes and self._sent_bytes == sent_bytes
        self._still_count = self._still_count + 1 if is_still else 0
        if self._still_count >= (1 if self._is_answered else MAX_STILL_LOOKS):
            return "it does not take its answer"
        came_bytes = self._received_bytes - received_bytes
        waits_for_body = not (self.has_ended or self._body or self._is_answered)
        if waits_for_body and came_bytes < MIN_PROGRESS_BYTES:
            return "a body that comes too slowly"
        return None

    @property
    def has_output(self) -> bool:
        """Bytes, or the end of the answer, which needs no window."""
        return not self._is_gone and (bool(self._output) or self._is_answered)

    def next_output(self, size: int) -> tuple[memoryview | bytes, bool]:
        """The next bytes, at most `size`, and whether they are the answer's last."""
        if not self._output:
            return b"", self._is_answered
        data = self._output[0]
        if len(data) > size:
            self._output[0], data = data[size:], data[:size]
        else:
            self._output.popleft()
        self._output_bytes -= len(data)
        self._sent_bytes += len(data)
        self._guard.held_bytes -= len(data)
        if self._output_bytes < SEND_AHEAD_BYTES:
            self._room.set()
        return data, self._is_answered and not self._output

    # the application's side

    async def run(self, app: App) -> None:
        """Let the application answer. Whatever it does, the stream comes to an end."""
        try:
            await app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._connection.reset(self)
            raise
        except Exception:
            _log.exception(
                "an error in answering %s %s", self._scope["method"], self._scope["path"]
            )
        else:
            if self._is_answered or self._is_gone:
                return
            _log.error("no answer to %s %s", self._scope["method"], self._scope["path"])
        finally:
            if self._body:
                self._acknowledge()
            self._is_over = True
            self._guard.held_bytes -= self._received_bytes
            self._received_bytes = 0
        if self._is_gone or self._is_answered:
            return
        if self._is_started:
            self._connection.reset(self)
            return
        await self._send({"type": "http.response.start", "status": 500, "headers": []})
        await self._send({"type": "http.response.body"})

    async def _receive(self) -> Message:
        while not (self._is_gone or self._is_answered):
            if self._body or (self.has_ended and not self._has_told_end):
                body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
                self._acknowledge()
                self._has_told_end = self.has_ended
                return {"type": "http.request", "body": body, "more_body": not self.has_ended}
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    def _acknowledge(self) -> None:
        self._body = []
        size, self._unacknowledged_bytes = self._unacknowledged_bytes, 0
        self._connection.acknowledge(self.stream_id, size)

    async def _send(self, message: Message) -> None:
        if self._is_gone:
            await asyncio.sleep(0)  # an application that only sends would take the loop for itself
            return
        kind = message["type"]
        if kind == "http.response.start" and not self._is_started:
            self._is_started = True
            headers = [(b":status", b"%d" % message["status"])]
            for name, value in message.get("headers", ()):
                name = name.lower()
                if name not in _OF_CONNECTIONS:
                    headers.append((name, value))
            self._connection.send_headers(self.stream_id, headers)
            return
        if kind != "http.response.body" or not self._is_started or self._is_answered:
            raise RuntimeError(f"{kind} is out of place in an answer")
        body = message.get("body", b"")
        if body and self._scope["method"] != "HEAD":
            if isinstance(body, Pieces):  # small pieces would make as many DATA frames
                body = body.join()
            self._output.append(memoryview(body))
            self._output_bytes += len(body)
            self._guard.held_bytes += len(body)
        if not message.get("more_body", False):
            self._is_answered = True
            self._news.set()
        if self._output or self._is_answered:
            self._connection.wants_to_send(self)
        if self._output_bytes >= SEND_AHEAD_BYTES and not self._is_answered:
            self._room.clear()
            await self._room.wait()
