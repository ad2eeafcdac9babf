"""HTTP/1.1 as `headrace serve` speaks it: plain requests are answered as they come in.

Most requests are small and plain (`plain_head`): a put of a few records, a poll. One that has come
is answered in the same turn of the loop, with no task and nothing of ASGI between the socket and
the application, if that has a method `answer_whole`; to parse such a request, give it to the
application bit by bit and take the answer back costs as much as answering it (measured, in turn
with a version that did: of a poll that finds nothing 24 us instead of 43, of a PutRecord 76
instead of 108). One that comes in parts, as large ones do, is gathered first. All others go
uvicorn's way; so does what comes behind one that is not answered yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from headrace.core.later import Later
from headrace.core.limits import MIB
from headrace.core.listener import eager
from headrace.core.listener.guard import MAX_HEAD_BYTES
from headrace.core.listener.http1_gather import GatheringHttp1Protocol
from headrace.core.listener.plain_head import Head, plain_head
from headrace.core.pieces import Pieces

MAX_PARTS = 1_024  # of one request: a part of one byte takes forty in a list
_TIMER_SLACK_S = 0.01  # timers may be early

WholeReply = tuple[int, list[tuple[bytes, bytes]] | bytes, bytes | Pieces]
"""Status, headers (or their lines, each with its end), body."""
Answering = WholeReply | Later[WholeReply] | Coroutine[Any, Any, WholeReply]
AnswerWhole = Callable[[list[tuple[bytes, bytes]], bytes], Answering | None]

_WHOLE = (bytes, Pieces)
_FAILED_BODY = b"Internal Server Error"  # as uvicorn says it
_FAILED: WholeReply = (
    500,
    [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_FAILED_BODY)),
    ],
    _FAILED_BODY,
)

_log = logging.getLogger("headrace.core")


class Http1Protocol(GatheringHttp1Protocol):
    """One connection. Where a plain request is under way, its `_Cycle` stands for uvicorn's."""

    plain_bytes = 4 * MIB  # of a body; to a larger one a task and copies are nothing

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer_whole: AnswerWhole | None = getattr(self.app, "answer_whole", None)
        self._begun: _Begun | None = None  # a plain request of which more is to come
        self._defaults: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")
        self._answered_s = 0.0  # when the last plain one was, by the loop's clock

    def data_received(self, data: bytes) -> None:
        if self._begun is not None:
            self._more_received(self._begun, data)
            return
        cycle = self.cycle
        if (
            self._answer_whole is not None
            # all that came before is answered, and read to its end
            and (cycle is None or (cycle.response_complete and not cycle.more_body))
            and self.scope is self._headed_scope
            and not self._is_deaf
            and (found := plain_head(data)) is not None
        ):
            self._plain_received(data, found)
        else:
            super().data_received(data)

    def _plain_received(self, data: bytes, head: Head) -> None:
        headers, body_at, body_bytes = head
        missing = body_at + body_bytes - len(data)
        if (
            missing >= 0
            and body_bytes <= self.plain_bytes
            and body_at <= MAX_HEAD_BYTES  # a longer one the parser is to refuse
            and self._has_room
        ):
            if missing > 0:
                self._begun = _Begun(head, [data], missing)
                self._hold_begun(len(data))
                return
            if self._answered(headers, data[body_at:], len(data)):
                return
        super().data_received(data)

    def _more_received(self, begun: _Begun, data: bytes) -> None:
        parts = begun.parts
        parts.append(data)
        begun.missing -= len(data)
        if begun.missing >= 0 and self._has_room and len(parts) <= MAX_PARTS:
            if begun.missing > 0:
                self._hold_begun(self._asked_bytes + len(data))
                return
            headers, body_at, body_bytes = begun.head
            body = b"".join([memoryview(parts[0])[body_at:], *parts[1:]])
            if self._answered(headers, body, body_at + body_bytes):
                return
        self._leave_to_parser()

    def _hold_begun(self, size: int) -> None:
        self._hold(size, 0)
        if self._guard.is_full:  # whoever it is with whom there is too much gives up its own
            self._leave_to_parser()

    @property
    def _has_room(self) -> bool:
        guard = self._guard
        return guard.held_bytes <= guard.max_held_bytes and not self.flow.write_paused

    def _answered(self, headers: list[tuple[bytes, bytes]], body: bytes, size: int) -> bool:
        """Whether a request of so many bytes could be answered so, or will be."""
        assert self._answer_whole is not None
        answering = self._answer_whole(headers, body)
        if answering is None:
            return False
        if self._begun is not None:
            self._take_begun()
        self._begin(answering, size)
        return True

    def _begin(self, answering: Answering, size: int) -> None:
        self._head_count += 1
        self._received_bytes += size
        self._formless_bytes = 0
        cycle = self.cycle = self._running = _Cycle()  # type: ignore[assignment]
        if isinstance(answering, tuple):
            self._tell(cycle, answering)
            return
        if isinstance(answering, Later):
            waiting = _Waiting(self, cycle, answering)
            self.tasks.add(waiting)  # type: ignore[arg-type]
            answering.done.add_done_callback(waiting)
        else:
            eager.start(self._answer(cycle, answering), self.loop, self.tasks)
        if not cycle.response_complete:
            self._hold(size, 0)

    async def _answer(self, cycle: _Cycle, answering: Coroutine[Any, Any, WholeReply]) -> None:
        try:
            reply = _whole(await answering)
        except asyncio.CancelledError:
            self.transport.close()  # the server ends, and will not wait any longer
            return
        except Exception:
            reply = self._fail(cycle)
        self._tell(cycle, reply)

    def _answer_later(self, waiting: _Waiting) -> None:
        self.tasks.discard(waiting)
        if waiting.later.done.cancelled():
            self.transport.close()  # as above
            return
        try:
            reply = _whole(waiting.later.tell())
        except Exception:
            reply = self._fail(waiting.cycle)
        self._tell(waiting.cycle, reply)

    def _fail(self, cycle: _Cycle) -> WholeReply:
        _log.exception("an unexpected error while answering a request")
        cycle.keep_alive = False
        return _FAILED

    def _tell(self, cycle: _Cycle, reply: WholeReply) -> None:
        if cycle.disconnected:
            return
        status, headers, body = reply
        # what of a header comes from the request is printable: `plain_head` has seen to that
        lines = headers if isinstance(headers, bytes) else _lines(headers)
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        cycle.response_complete = True
        self._gathering.write_whole(STATUS_LINE[status] + self._default_lines() + lines + end, body)
        if not cycle.keep_alive:
            self.transport.close()
        if self.pipeline or self.flow.write_paused:
            self.on_response_complete()
        else:
            self._rest()

    def _default_lines(self) -> bytes:
        """Those of uvicorn's own headers, which it makes anew every second."""
        headers = self.server_state.default_headers
        if headers is not self._defaults[0]:
            self._defaults = headers, _lines(headers)
        return self._defaults[1]

    def _rest(self) -> None:
        """What `on_response_complete` does where nothing came behind the request.

        A timer is not set anew for each: it looks, when it is due, whether it still should be.
        """
        self.server_state.total_requests += 1
        if self._asked_bytes or self._unsent_bytes:
            self._hold(0, 0)
        self._answered_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._set_keepalive(self.timeout_keep_alive)

    def _set_keepalive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        is_resting = self._begun is None and self.cycle.response_complete
        rested_s = self.loop.time() - self._answered_s if is_resting else 0.0
        if rested_s < self.timeout_keep_alive - _TIMER_SLACK_S:
            self._set_keepalive(self.timeout_keep_alive - rested_s)
        else:
            super().timeout_keep_alive_handler()

    # where only part of a plain request has come, and it will not be one

    def shutdown(self) -> None:
        self._leave_to_parser()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._begun = None
        super().connection_lost(exc)

    def _look(self) -> None:
        self._leave_to_parser()  # who takes so long is to be watched
        super()._look()

    def _leave_to_parser(self) -> None:
        if self._begun is not None:
            super().data_received(b"".join(self._take_begun().parts))

    def _take_begun(self) -> _Begun:
        begun, self._begun = self._begun, None
        assert begun is not None
        self._hold(0, 0)
        return begun


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _whole(reply: WholeReply) -> WholeReply:
    if not isinstance(reply[2], _WHOLE):
        raise TypeError(f"an answer in one piece was promised, not {type(reply[2])}")
    return reply


class _Begun:
    """A plain request that has come in part."""

    __slots__ = ("head", "missing", "parts")

    def __init__(self, head: Head, parts: list[bytes], missing: int) -> None:
        self.head = head
        self.parts = parts
        self.missing = missing


class _Nobody:
    """Who waits for more of a request that has come whole."""

    def set(self) -> None:
        """Nobody does."""


class _Waiting:
    """A request whose reply comes later. To those who look after tasks it is one: `cancel`."""

    __slots__ = ("_protocol", "cycle", "later")

    def __init__(self, protocol: Http1Protocol, cycle: _Cycle, later: Later[WholeReply]) -> None:
        self._protocol = protocol
        self.cycle = cycle
        self.later = later

    def __call__(self, _: object) -> None:
        self._protocol._answer_later(self)

    def cancel(self, msg: object = None) -> None:
        """The server ends, and will not wait any longer."""
        self.later.done.cancel(msg)


class _Cycle:
    """What others ask uvicorn's cycle for, of a plain request."""

    more_body = False
    message_event = _Nobody()
    response_started = False  # the answer goes in one piece
    # of each one, but most are only ever asked
    disconnected = False
    keep_alive = True
    response_complete = False
