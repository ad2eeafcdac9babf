"""What takes effect some time after it was asked for: CREATING, UPDATING, DELETING."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError, ServiceError, StorageFull

log = logging.getLogger("headrace.core")

_RETRY_MS = 1000
_REPORT_MS = 30_000

Step = Callable[[], Awaitable[None]]


class Transitions:
    """Runs the second half of what AWS does in two.

    `delay_ms` is how long the states in between last, for those who test their waiting; 0 means
    that everything is done when the call returns.
    """

    def __init__(self, clock: Clock, delay_ms: int) -> None:
        self._clock = clock
        self._delay_ms = delay_ms
        self._background: set[asyncio.Task[None]] = set()
        self._reported_ms: int | None = None

    @property
    def is_delayed(self) -> bool:
        return self._delay_ms > 0

    async def after_delay(self, step: Step) -> None:
        """Run `step` after the delay; at once, raising what it raises, if there is none.

        What was begun is durable by now. If the disk is full the state in between lasts until
        there is room.
        """
        if self._delay_ms:
            self.eventually(step, self._delay_ms)
        else:
            await self.now_or_later(step)

    async def now_or_later(self, step: Step) -> None:
        """Run `step`, raising what it raises; on a full disk, when there is room."""
        try:
            await step()
        except StorageFull as error:
            log.error("a state change waits for room on the disk: %s", error)
            self.eventually(step)

    def eventually(self, step: Step, wait_ms: int = _RETRY_MS) -> None:
        """Run `step` after that time, and again until it does not fail for a while."""
        task = asyncio.create_task(self._later(step, wait_ms))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _later(self, step: Step, wait_ms: int) -> None:
        while True:
            await self._clock.sleep_ms(wait_ms)
            try:
                await step()
            except (HeadraceError, OSError) as error:
                self._report(error)
                if isinstance(error, ServiceError) and not error.retryable:
                    return  # it was deleted meanwhile, for example
                wait_ms = _RETRY_MS
            else:
                return

    def _report(self, error: BaseException) -> None:
        """Say so, but not with every try of every stream."""
        now_ms = self._clock.monotonic_ms()
        if self._reported_ms is None or now_ms - self._reported_ms >= _REPORT_MS:
            self._reported_ms = now_ms
            log.error("a stream could not change its state: %s", error)

    async def close(self) -> None:
        """Give up waiting; what was begun is taken up at the next start."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
