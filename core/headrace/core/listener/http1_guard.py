"""HTTP/1.1 as uvicorn speaks it, within the bounds of `guard`.

uvicorn waits for ever for a head or a body once their first byte is there, and for a peer to take
its answer; it keeps headers of any size and any number of pipelined requests.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from headrace.core.listener.guard import (
    MAX_HEAD_BYTES,
    MAX_PIPELINED,
    MAX_STILL_LOOKS,
    MIN_PROGRESS_BYTES,
    Guard,
)

_log = logging.getLogger("headrace.core")
_HEADER_OVERHEAD_BYTES = 4  # colon, blank, line end


class _TooMuchError(Exception):
    """A head is too large, or too many requests are sent before the answer to the first."""


class _Seen(NamedTuple):
    """How a connection was at a look."""

    head_count: int
    is_in_head: bool
    received_bytes: int
    unsent_bytes: int
    resume_count: int


class GuardedHttp1Protocol(HttpToolsProtocol):
    """One connection, whose `on_body` calls `has_moved`. It looks at itself every `patience_s`;
    requests only move its counters."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._guard = guard or Guard()
        self._headed_scope: Any = None  # of the last message whose head was whole
        self._is_deaf = False  # what comes now cannot be understood, or is not wanted
        self._refusal = 400
        self._head_count = 0
        self._received_bytes = 0
        self._formless_bytes = 0  # received since the last piece of a body, or whole head
        self._asked_bytes = 0  # received since the last answer
        self._unsent_bytes = 0  # of answers that the peer is slow to take
        self._resume_count = 0
        self._still_count = 0  # looks at which nothing of an answer had been taken
        self._seen = _Seen(0, False, 0, 0, 0)
        self._watch: asyncio.TimerHandle | None = None

    # the transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch = self.loop.call_later(self._guard.patience_s, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it after an error
        self._hold(0, 0)
        self._is_deaf = True
        if self._watch is not None:
            self._watch.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        # No more is written before this has gone: it counts until `resume_writing`, also of an
        # answer that goes on for minutes.
        self._hold(self._asked_bytes, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._resume_count += 1
        self._hold(self._asked_bytes, 0)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        guard = self._guard
        if guard.is_full and self._is_idle:
            self._refuse_for_room()
            return
        size = len(data)
        self._received_bytes += size
        self._formless_bytes += size
        self._asked_bytes += size
        guard.held_bytes += size
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._answer_the_rest()  # to something we do not speak
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        else:
            if self._formless_bytes > MAX_HEAD_BYTES:
                self._refuse(431)
            elif guard.is_full and not self._is_idle and self.cycle.more_body:
                self._refuse_for_room()

    # the parser's side

    @property
    def _is_in_head(self) -> bool:
        """A message has begun (it has a scope then), and its head is not whole."""
        return self.scope is not self._headed_scope

    def on_headers_complete(self) -> None:
        if self._formless_bytes > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._refusal = 431
            raise _TooMuchError
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooMuchError
        super().on_headers_complete()
        self.headers = []  # trailers: they are not the application's, and go no further
        self._headed_scope = self.scope
        self._head_count += 1
        self._formless_bytes = 0

    def _head_bytes(self) -> int:
        headers = sum(len(n) + len(v) + _HEADER_OVERHEAD_BYTES for n, v in self.headers)
        return headers + len(self.url)

    def has_moved(self) -> None:
        """A piece of a body has come; for `on_body`."""
        self._formless_bytes = 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.flow.write_paused:
            self._hold(0, self.transport.get_write_buffer_size())
        else:
            self._guard.held_bytes -= self._asked_bytes + self._unsent_bytes
            self._asked_bytes = self._unsent_bytes = 0

    # the bounds

    def _hold(self, asked_bytes: int, unsent_bytes: int) -> None:
        """What this connection makes the server keep now."""
        before_bytes = self._asked_bytes + self._unsent_bytes
        self._guard.held_bytes += asked_bytes + unsent_bytes - before_bytes
        self._asked_bytes = asked_bytes
        self._unsent_bytes = unsent_bytes

    @property
    def _is_idle(self) -> bool:
        """Nothing is under way."""
        return not self._is_in_head and (self.cycle is None or self.cycle.response_complete)

    def _refuse_for_room(self) -> None:
        self._guard.report("held", "requests are refused: those under way take too much memory")
        self._refuse(503)

    def _answer_the_rest(self) -> None:
        """Take no more; answer what is whole, then close."""
        self._is_deaf = True
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _refuse(self, status: int) -> None:
        """End the connection for what came last: with a status if that is what would come next."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._say(status)
        elif self._is_in_head or not cycle.more_body:
            self._answer_the_rest()
        elif self.pipeline or cycle.response_started:
            self.transport.close()
        else:
            cycle.disconnected = True
            self._say(status)
        self._is_deaf = True

    def _say(self, status: int) -> None:
        self.transport.write(
            STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()

    def _look(self) -> None:
        """Give up a peer that makes us wait for too long."""
        trouble = self._standstill()
        if trouble is not None:
            _log.info("closing a connection from %s: %s", self.client, trouble)
            self.transport.abort()
            return
        self._seen = _Seen(
            self._head_count,
            self._is_in_head,
            self._received_bytes,
            self.transport.get_write_buffer_size(),
            self._resume_count,
        )
        self._watch = self.loop.call_later(self._guard.patience_s, self._look)

    def _standstill(self) -> str | None:
        """What has not moved since the last look, and should have."""
        seen, cycle = self._seen, self.cycle
        is_answered = cycle is None or cycle.response_complete
        unsent_bytes = self.transport.get_write_buffer_size()
        is_same = unsent_bytes >= seen.unsent_bytes > 0 and self._resume_count == seen.resume_count
        # or the application may have written as much as the peer took
        is_all = self.flow.write_paused or self.transport.is_closing() or is_answered
        self._still_count = self._still_count + 1 if is_same and is_all else 0
        goes_on = cycle is not None and cycle.response_started and not is_answered
        if self._still_count >= (MAX_STILL_LOOKS if goes_on else 1):
            return "it does not take its answer"
        if self._head_count != seen.head_count:
            return None
        if self._is_in_head:
            return "a head that does not end" if seen.is_in_head else None
        if cycle is not None and cycle.more_body:
            if is_answered:
                return "a body nobody wants that does not end"
            came_bytes = self._received_bytes - seen.received_bytes
            if came_bytes < MIN_PROGRESS_BYTES and not self.flow.read_paused:
                return "a body that comes too slowly"
        elif (
            is_answered and self.timeout_keep_alive_task is None and not self.transport.is_closing()
        ):
            return "nothing but line ends"
        return None
