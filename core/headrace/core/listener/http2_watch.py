"""Looking at an HTTP/2 connection now and then: does it live, and do its streams get on.

A look compares what the connection has counted with what it had at the look before, so requests
are not timed one by one. What is too little progress is told in `guard`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from headrace.core.listener.http2_stream import Http2Stream

_log = logging.getLogger("headrace.core")


class Watched(Protocol):
    """What a watch needs of its connection."""

    streams: dict[int, Http2Stream]
    moved_count: int
    sent_bytes: int

    def has_no_window(self, stream: Http2Stream) -> bool: ...
    def forget_abuse(self) -> None: ...
    def cancel(self, stream: Http2Stream) -> None: ...
    def shutdown(self) -> None: ...


class Http2Watch:
    """The looks at one connection, until `stop`: for life every `idle_s`, for progress every
    `patience_s`."""

    def __init__(
        self,
        connection: Watched,
        transport: Any,
        loop: asyncio.AbstractEventLoop,
        *,
        peer: object,
        idle_s: float,
        patience_s: float,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._loop = loop
        self._peer = peer
        self._idle_s = idle_s
        self._patience_s = patience_s
        self._moved_before = 0
        self._seen = (0, 0)  # bytes sent in frames, bytes in the socket's buffer: a look ago
        self._life = loop.call_later(idle_s, self._look_for_life)
        self._progress = loop.call_later(patience_s, self._look_for_progress)

    def stop(self) -> None:
        """The connection is gone."""
        self._life.cancel()
        self._progress.cancel()

    def _look_for_life(self) -> None:
        """Close a connection with nothing under way, or on which nothing moves any more."""
        streams, moved_count = self._connection.streams, self._connection.moved_count
        moved, self._moved_before = moved_count != self._moved_before, moved_count
        waits_for_peer = any(s.has_output or not s.has_ended for s in streams.values())
        if not moved and (not streams or waits_for_peer):
            if not streams:
                self._connection.shutdown()
            else:
                _log.info("closing an HTTP/2 connection from %s: it stands still", self._peer)
                self._transport.abort()
            return
        self._life = self._loop.call_later(self._idle_s, self._look_for_life)

    def _look_for_progress(self) -> None:
        """Give up streams whose peer makes us wait for too long."""
        connection = self._connection
        connection.forget_abuse()
        sent_bytes, unsent_bytes = self._seen
        unsent_now_bytes = self._transport.get_write_buffer_size()
        if self._transport.is_closing() and unsent_now_bytes >= unsent_bytes > 0:
            self._transport.abort()  # it closes when all is sent, and nothing goes
            return
        is_still = connection.sent_bytes == sent_bytes
        for stream in list(connection.streams.values()):
            trouble = stream.standstill(is_blocked=is_still or connection.has_no_window(stream))
            if trouble is not None:
                _log.info("giving up a stream of %s: %s", self._peer, trouble)
                connection.cancel(stream)
        self._seen = (connection.sent_bytes, unsent_now_bytes)
        self._progress = self._loop.call_later(self._patience_s, self._look_for_progress)
