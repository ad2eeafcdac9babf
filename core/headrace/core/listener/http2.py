"""One HTTP/2 connection: frames in, an ASGI request per stream, frames out.

The state machine is the h2 library's. Owns: flow control both ways, fairness between the streams
of a connection, its orderly end, and the bounds on what a peer may make the server do. Nothing is
read ahead of the application: a window is given back when the application took the bytes. Nothing
is written ahead of the peer: a stream keeps what the windows and the socket do not take, and its
application waits (`Http2Stream.send`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError, StreamClosedError
from uvicorn.config import Config
from uvicorn.server import ServerState

from headrace.core.limits import KIB
from headrace.core.listener.guard import Guard
from headrace.core.listener.http2_scope import connection_scope, request_scope
from headrace.core.listener.http2_state import MAX_FRAME_BYTES, MAX_STREAMS, server_connection
from headrace.core.listener.http2_stream import Headers, Http2Stream
from headrace.core.listener.http2_watch import Http2Watch

# Streams a peer opened and reset still cost their work: so many more than it may have open, and
# so many in the time in which a connection looks at itself.
MAX_ABANDONED = 1_000
WRITE_AHEAD_BYTES = 512 * KIB

_log = logging.getLogger("headrace.core")


class Http2Protocol(asyncio.Protocol):
    """A connection whose first bytes were the HTTP/2 preface."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        *,
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard or Guard()
        self._app: Any = config.loaded_app
        self._asgi_version = config.asgi_version
        self._app_state = app_state
        self._state = server_state
        self._loop = loop
        self._idle_s = config.timeout_keep_alive
        self._conn = server_connection()
        self.streams: dict[int, Http2Stream] = {}
        self._running_count = 0
        self._abandoned_count = 0  # since the watch last looked
        self._waiting: deque[Http2Stream] = deque()  # with something to send, in turn
        self._transport: Any = None
        self._is_write_paused = False
        self._is_ending = False
        self._watch: Http2Watch | None = None
        self.moved_count = 0  # reads, and writes of answers: what a dead peer has none of
        self.sent_bytes = 0  # in frames of answers

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)  # type: ignore[attr-defined]
        self._connections.add(self)
        self._common = connection_scope(
            transport, asgi_version=self._asgi_version, app_state=self._app_state
        )
        self._client = self._common["client"]
        self._flush()  # our settings
        self._watch = Http2Watch(
            self,
            transport,
            self._loop,
            peer=self._client,
            idle_s=self._idle_s,
            patience_s=self._guard.patience_s,
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._watch is not None:
            self._watch.stop()
        for stream in list(self.streams.values()):
            stream.disconnect()
        self.streams.clear()
        self._waiting.clear()

    def pause_writing(self) -> None:
        """A peer that does not read what it asked for is not read from either."""
        self._is_write_paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if not self._conn.has_more:
            self._transport.resume_reading()
        self.pump()

    def data_received(self, data: bytes) -> None:
        self.moved_count += 1
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Some frames; the rest of them after others had their turn, and before more is read."""
        if self._transport.is_closing():
            return
        try:
            for event in self._conn.receive_data(data):
                self._handle(event)
        except ProtocolError as error:
            _log.info("closing an HTTP/2 connection from %s: %s", self._client, error)
            self._flush()  # h2 has put the GOAWAY there that says why
            self._transport.close()
            return
        self.pump()
        if self._conn.has_more:
            self._transport.pause_reading()
            self._loop.call_soon(self._take, b"")
        elif not self._is_write_paused:
            self._transport.resume_reading()

    def shutdown(self) -> None:
        """Answer what is under way, take no more, then close. uvicorn calls this when it ends."""
        if self._is_ending or self._transport.is_closing():
            return
        self._is_ending = True
        self._conn.close_connection()
        self._flush()
        self._close_if_done()

    # events

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._open(event.stream_id or 0, event.headers or [])
        elif isinstance(event, DataReceived):
            size = event.flow_controlled_length or 0
            stream = self.streams.get(event.stream_id or 0)
            if stream is None or not stream.take(event.data or b"", size):
                self._conn.acknowledge_received_data(size, event.stream_id or 0)
            elif self._guard.is_full:
                self._give_up(stream, ErrorCodes.REFUSED_STREAM)
        elif isinstance(event, StreamEnded):
            stream = self.streams.get(event.stream_id or 0)
            if stream is not None:
                stream.end()
        elif isinstance(event, StreamReset):
            stream = self.streams.pop(event.stream_id or 0, None)
            if stream is not None:
                stream.disconnect()
                self._close_if_done()
                self._abandoned_count += 1
        elif isinstance(event, WindowUpdated):
            stream = self.streams.get(event.stream_id or 0)
            if stream is not None:
                self._queue(stream)
        elif isinstance(event, RemoteSettingsChanged):  # may have changed every stream's window
            for stream in self.streams.values():
                self._queue(stream)
        elif isinstance(event, ConnectionTerminated):
            # the peer opens no more, and waits for the answers to what it has asked
            self._is_ending = True
            self._close_if_done()

    def _open(self, stream_id: int, headers: Headers) -> None:
        if self._is_ending or self._guard.is_full:
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)  # "not begun: safe to send again"
            return
        if max(self._running_count - MAX_STREAMS, self._abandoned_count) >= MAX_ABANDONED:
            _log.warning("closing an HTTP/2 connection from %s: too many resets", self._client)
            self._conn.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._flush()
            self._transport.close()
            return
        scope = request_scope(headers, self._common)
        if scope is None:
            self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        stream = Http2Stream(stream_id, scope, self, self._guard)
        self.streams[stream_id] = stream
        self._running_count += 1
        task = self._loop.create_task(stream.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        self._running_count -= 1

    # the streams' side

    def acknowledge(self, stream_id: int, size: int) -> None:
        """The application took `size` bytes: the peer may send as many again."""
        if size and not self._transport.is_closing():
            with contextlib.suppress(H2Error):
                self._conn.acknowledge_received_data(size, stream_id)
            self._flush()

    def send_headers(self, stream_id: int, headers: Headers) -> None:
        """Status and headers of an answer; nothing when the stream is gone."""
        headers = [headers[0], *self._state.default_headers, *headers[1:]]
        with contextlib.suppress(StreamClosedError, ProtocolError):
            self._conn.send_headers(stream_id, headers)
        self._loop.call_soon(self._flush)  # the body goes with them if it is there at once

    def wants_to_send(self, stream: Http2Stream) -> None:
        """The stream has output: it goes as far as windows and socket take it."""
        if stream.has_bytes:
            self._queue(stream)
            self.pump()
        elif self.streams.get(stream.stream_id) is stream:
            self._send_frame(stream)  # an end without bytes waits for no window
            self._flush()

    def reset(self, stream: Http2Stream) -> None:
        """End a stream whose answer cannot be completed."""
        self._give_up(stream, ErrorCodes.INTERNAL_ERROR)

    def pump(self) -> None:
        """Send what can be sent: a frame of each waiting stream in turn, and what h2 has itself."""
        while (
            self._waiting
            and not self._is_write_paused
            and self._conn.outbound_flow_control_window > 0
            and not self._transport.is_closing()
        ):
            stream = self._waiting.popleft()
            stream.is_queued = False
            if self.streams.get(stream.stream_id) is stream and self._send_frame(stream):
                self._queue(stream)
            self._flush()
        self._flush()

    def _queue(self, stream: Http2Stream) -> None:
        if stream.has_output and not stream.is_queued:
            stream.is_queued = True
            self._waiting.append(stream)

    def _send_frame(self, stream: Http2Stream) -> bool:
        """One frame of a stream's output. Whether it has more that could go now."""
        try:
            window = self._conn.local_flow_control_window(stream.stream_id)
            size = min(window, self._conn.max_outbound_frame_size, MAX_FRAME_BYTES)
            if size <= 0 and stream.has_bytes:
                return False  # its window update brings it back
            data, is_last = stream.next_output(size)
            self._conn.send_data(stream.stream_id, data, end_stream=is_last)
            self.sent_bytes += len(data)
        except ProtocolError:  # reset or ended under us
            self.streams.pop(stream.stream_id, None)
            stream.disconnect()
            return False
        self.moved_count += 1
        if not is_last:
            return stream.has_output
        self._state.total_requests += 1
        del self.streams[stream.stream_id]
        if not stream.has_ended:
            # answered without its whole body: the peer need not send the rest
            self._reset(stream.stream_id, ErrorCodes.NO_ERROR)
        self._loop.call_soon(self._close_if_done)
        return False

    # the watch's side

    def has_no_window(self, stream: Http2Stream) -> bool:
        """Whether it is the stream's own window that is closed, not the connection's."""
        if self._conn.outbound_flow_control_window <= 0:
            return False
        with contextlib.suppress(ProtocolError):
            return self._conn.local_flow_control_window(stream.stream_id) <= 0
        return False

    def forget_abuse(self) -> None:
        """What a peer may do so often is counted from here on."""
        self._conn.frames.settings_count = 0
        self._abandoned_count = 0

    def cancel(self, stream: Http2Stream) -> None:
        """Give up a stream whose peer makes us wait for too long."""
        self._give_up(stream, ErrorCodes.CANCEL)

    # within

    @property
    def _connections(self) -> set[Any]:
        return self._state.connections

    def _give_up(self, stream: Http2Stream, code: ErrorCodes) -> None:
        if self.streams.pop(stream.stream_id, None) is not None:
            self._reset(stream.stream_id, code)
            stream.disconnect()
            self._flush()
            self._close_if_done()

    def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        with contextlib.suppress(ProtocolError):
            self._conn.reset_stream(stream_id, code)

    def _flush(self) -> None:
        data = self._conn.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _close_if_done(self) -> None:
        if self._is_ending and not self.streams and not self._transport.is_closing():
            self._flush()
            self._transport.close()
