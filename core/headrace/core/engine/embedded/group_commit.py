"""Group commit: windows of puts, written and synced one after the other.

While one window is synced in a writer thread, the next fills; the length of a window is the time
a sync takes, so no timer is needed. Whoever put into a window waits for that window.

A small window, or one of a client that puts alone, is written in the loop's own thread as long as
the disk is quick (`in_loop`): to wake a thread and hear from it again would be most of a small
put's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from headrace.core.clock import Clock
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.errors import HeadraceError, InternalFailure, ServiceUnavailable, StorageFull
from headrace.core.limits import KIB, MIB
from headrace.core.log.stream_log import StreamLog
from headrace.core.log.window import Window
from headrace.core.log.writing import Written

log = logging.getLogger("headrace.core")

MAX_IN_FLIGHT_BYTES = 256 * MIB
# A window of this many bytes of data is written without waiting for the other requests of the same
# turn: else they are all decoded first, the disk idle, then all written, the processor idle.
PROMPT_BYTES = 32 * KIB
IDLE_MARK_S = 0.05  # how long without puts until a MARK frame vouches for the last ones
REST_S = 10.0  # how long until the file is closed: thousands of streams may be quiet


class GroupCommit:
    """What stands between a stream log's open window and the disk. Belongs to one event loop."""

    def __init__(
        self,
        stream_log: StreamLog,
        writers: Executor,
        clock: Clock,
        *,
        on_fatal: Callable[[BaseException], None],
        on_visible: Callable[[Iterable[int]], None],
        in_loop: InLoop,
    ) -> None:
        """`on_visible` is told the shards of records that readers see from now on."""
        self._log = stream_log
        self._writers = writers
        self._clock = clock
        self._on_fatal = on_fatal
        self._on_visible = on_visible
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._readers: list[asyncio.Future[None]] = []  # who wait for what this turn brings
        self._writing = False
        self._scheduled = False
        self._in_flight_bytes = 0
        self.in_loop = in_loop
        self._last_commit_s = 0.0
        self._mark_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._failed: BaseException | None = None

    def refuse_if_failed(self) -> None:
        """Raises InternalFailure once a write has failed for good."""
        if self._failed is not None:
            raise InternalFailure("The store has failed and is stopping.")

    def admit(self, payload_bytes: int) -> None:
        """Count what is about to be appended; a commit sets the count back.

        Raises ServiceUnavailable when too much is in flight, and as `refuse_if_failed`.
        """
        if self._failed is not None:
            self.refuse_if_failed()
        if self._in_flight_bytes + payload_bytes > MAX_IN_FLIGHT_BYTES and self._in_flight_bytes:
            raise ServiceUnavailable(
                "More is being written than the disk takes. Try again in a moment."
            )
        self._in_flight_bytes += payload_bytes

    def durable(self) -> asyncio.Future[None]:
        """Done when all that was appended so far is synced. Raises if it cannot be."""
        if self._failed is not None:
            self.refuse_if_failed()
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._log.window is None and not self._writing:
            waiter.set_result(None)
            return waiter
        self._waiters.append(waiter)
        if not self._writing:
            if self._in_flight_bytes >= PROMPT_BYTES:
                self._commit()
            elif not self._scheduled:
                self._scheduled = True
                # requests that came in the same turn of the loop share the window
                self._loop.call_soon(self._commit_scheduled)
        return waiter

    def after_puts(self) -> asyncio.Future[None] | None:
        """See `seam.ShardLog`. What a thread writes is not waited for, and what is put in the loop
        holds up the loop anyway."""
        if self._mark_timer is None and not self._scheduled:
            return None  # nobody has put of late
        if not self._readers:
            self._loop.call_soon(self._end_turn)
        reader: asyncio.Future[None] = self._loop.create_future()
        self._readers.append(reader)
        return reader

    async def close(self) -> None:
        """Finish what is in flight and vouch for it. Nobody is told of anything afterwards."""
        while self._failed is None and (self._writing or self._log.window is not None):
            with contextlib.suppress(StorageFull):  # whoever put has been told
                await self.durable()
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        if self._failed is None:
            self._log.note()  # not a turn later: by then the folder may be another's
            self._write_mark("closing")
        # Whoever is told holds this, and this them: without the cycle a deleted stream's memory
        # (thousands of pieces for thousands of shards) is free at once, not at some collection.
        self._on_visible = _tell_nobody

    def _end_turn(self) -> None:
        if not self._scheduled:  # else the commit is next
            self._let_read()

    def _let_read(self) -> None:
        if self._readers:
            readers, self._readers = self._readers, []
            _answer(readers, None)

    def _commit_scheduled(self, has_gathered: bool = False) -> None:
        if len(self._waiters) > 1 and not has_gathered:
            # several put at once: by the next turn there are more of them
            self._loop.call_soon(self._commit_scheduled, True)
            return
        self._scheduled = False
        try:
            if not self._writing:
                self._commit()
        finally:  # whoever reads is answered even where the store has failed
            self._let_read()

    def _commit(self) -> None:
        now_ms = self._clock.now_ms()
        window = self._log.close_window(now_ms)
        waiters, self._waiters = self._waiters, []
        self._in_flight_bytes = 0
        if window is None:
            _answer(waiters, None)
        elif self.in_loop.takes(window, len(waiters)):
            self._settle(window, waiters, self._written_here(window, now_ms))
        else:
            self._writing = True
            done = self._loop.run_in_executor(self._writers, self._log.write, window, now_ms)
            done.add_done_callback(lambda future: self._written(window, waiters, future))

    def _written_here(self, window: Window, now_ms: int) -> Written | Exception:
        started_s = time.perf_counter()
        try:
            return self._log.write(window, now_ms)
        except Exception as error:
            return error
        finally:
            self.in_loop.took(time.perf_counter() - started_s)

    def _written(
        self,
        window: Window,
        waiters: list[asyncio.Future[None]],
        future: asyncio.Future[Written],
    ) -> None:
        self._writing = False
        self._settle(window, waiters, future.exception() or future.result())

    def _settle(
        self,
        window: Window,
        waiters: list[asyncio.Future[None]],
        outcome: Written | BaseException,
    ) -> None:
        """Tell everybody how the writing of a window ended, and see to the next."""
        # a turn later than those who waited go on: first what came in the meantime
        self._loop.call_soon(self._loop.call_soon, self._done_with)
        if isinstance(outcome, Written):
            self._log.publish(outcome)
            self._let_read()
            _answer(waiters, None)
            self._on_visible([shard for shard, _ in outcome.entries])
        elif isinstance(outcome, StorageFull):
            self._log.fail(window)
            self._in_flight_bytes = 0
            self._refuse_all(waiters, outcome)
        else:
            # After a failed write or sync the kernel may drop what it could not write, and a
            # second sync would succeed without it. Only a restart, which reads back, is safe.
            self._failed = outcome
            failure = InternalFailure("The store could not write and is stopping.")
            self._refuse_all(waiters, failure)
            self._on_fatal(outcome)
            return
        if self._log.window is not None or self._waiters:
            self._commit()
        else:
            self._last_commit_s = self._loop.time()
            if self._mark_timer is None:
                self._mark_timer = self._loop.call_later(IDLE_MARK_S, self._mark_if_idle)

    def _done_with(self) -> None:
        self.in_loop.done_with()
        # on a disk that is slow the next window's writer does it
        if not self._writing and self._failed is None and not self.in_loop.is_away:
            self._log.note()

    def _refuse_all(self, waiters: list[asyncio.Future[None]], error: Exception) -> None:
        """Whoever waits for this window, or for the open one, which builds on it."""
        waiting, self._waiters = waiters + self._waiters, []
        _answer(waiting, error)

    def _mark_if_idle(self) -> None:
        self._mark_timer = None
        if self._writing or self._log.window is not None or self._failed is not None:
            return  # the commit under way starts the timer again
        idle_s = self._loop.time() - self._last_commit_s
        if idle_s < IDLE_MARK_S:
            self._mark_timer = self._loop.call_later(IDLE_MARK_S - idle_s, self._mark_if_idle)
        else:
            self._write_mark("idle")
            if self._rest_timer is None:
                self._rest_timer = self._loop.call_later(REST_S, self._rest_if_idle)

    def _rest_if_idle(self) -> None:
        self._rest_timer = None
        if self._writing or self._log.window is not None or self._mark_timer is not None:
            return  # the idle mark to come starts the timer again
        idle_s = self._loop.time() - self._last_commit_s
        if idle_s < REST_S:
            self._rest_timer = self._loop.call_later(REST_S - idle_s, self._rest_if_idle)
        else:
            self._log.release()

    def _write_mark(self, kind: str) -> None:
        try:
            self._log.write_mark()
        except (OSError, HeadraceError) as error:
            log.warning("could not write the %s mark: %s", kind, error)


def _tell_nobody(shards: Iterable[int]) -> None:
    pass


def _answer(waiters: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for waiter in waiters:
        if waiter.done():  # its client went away
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
