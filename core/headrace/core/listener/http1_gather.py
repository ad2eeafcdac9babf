"""HTTP/1.1 as uvicorn speaks it, with whole request bodies handed over at once.

uvicorn gives an application its body bit by bit: it stops reading after 64 KiB, wakes the
application, copies what came, reads on. The Kinesis API needs all of a body before it can begin,
so for a request of 0.7 MB that is a dozen turns of the loop and three copies too many (measured: a
third of a PutRecords of 500 x 1 KiB). Here a body is gathered, joined once and given in one
message; how much of that there may be on all connections is `guard`'s. An answer's body may be
`Pieces`: they reach the socket without being joined. And an answer's head and body, which uvicorn
sends one after the other, go together: one system call and one packet less.
"""

from __future__ import annotations

from typing import Any

from headrace.core.listener.http1_guard import GuardedHttp1Protocol
from headrace.core.pieces import Pieces

_MAX_PIECES = 1_024  # a chunk of one byte takes forty in a list


class GatheringHttp1Protocol(GuardedHttp1Protocol):
    """One connection. A body of more than `gathered_bytes` goes on as uvicorn gives it."""

    gathered_bytes = 16 * 1024 * 1024  # more than the application takes: it refuses such a body

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts: list[bytes] = []
        self._pieces: list[bytes] = []  # after the parts
        self._size = 0
        self._running: Any = None  # the cycle that was started last

    def connection_made(self, transport: Any) -> None:
        self._gathering = GatheringTransport(transport)
        super().connection_made(self._gathering)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True  # uvicorn tells only the last of those in line
            running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._parts = []
        self._pieces = []
        self._size = 0

    def on_body(self, body: bytes) -> None:
        self.has_moved()
        if self.cycle.response_complete:
            return  # the application did not want to know
        self._size += len(body)
        if self._size <= self.gathered_bytes:
            self._pieces.append(body)
            if len(self._pieces) > _MAX_PIECES:
                self._join_pieces()
            return
        self._hand_over()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._hand_over()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._gathering.let_go()  # of the head of an answer without a body
        super().on_response_complete()

    def _hand_over(self) -> None:
        """Give the application what was gathered, unless it has answered without it."""
        if self._parts:
            self._join_pieces()
        parts = self._parts or self._pieces
        self._parts, self._pieces = [], []
        if parts and not self.cycle.response_complete:
            whole = parts[0] if len(parts) == 1 else b"".join(parts)
            # uvicorn copies a bytearray to hand it on, but not bytes
            self.cycle.body = whole if not self.cycle.body else self.cycle.body + whole  # type: ignore[assignment]

    def _join_pieces(self) -> None:
        self._parts.append(b"".join(self._pieces))
        self._pieces = []


class GatheringTransport:
    """A transport whose `write` also takes `Pieces`, and keeps a head until its body comes."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | Pieces) -> None:
        head, self._head = self._head, b""
        if head or isinstance(data, Pieces):
            self.write_whole(head, data)
        elif data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: " in data:
            self._head = data  # a body of known length follows, or is left out and we are told
        else:
            self._transport.write(data)

    def write_whole(self, head: bytes, body: bytes | Pieces) -> None:
        """Both at once."""
        if isinstance(body, Pieces):
            self._transport.writelines([head, *body.parts])
        else:
            self._transport.write(head + body)

    def let_go(self) -> None:
        """Send a head that was kept."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.let_go()
        self._transport.close()
