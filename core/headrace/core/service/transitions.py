"""What takes effect some time after it was asked for: CREATING, UPDATING, DELETING."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError, ServiceError

log = logging.getLogger("headrace.core")

_RETRY_MS = 1000

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

    @property
    def is_delayed(self) -> bool:
        return self._delay_ms > 0

    async def after_delay(self, step: Step) -> None:
        """Run `step` after the delay; at once, raising what it raises, if there is none."""
        if not self._delay_ms:
            await step()
        else:
            self._start(step)

    def _start(self, step: Step) -> None:
        task = asyncio.create_task(self._later(step))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _later(self, step: Step) -> None:
        wait_ms = self._delay_ms
        while True:
            await self._clock.sleep_ms(wait_ms)
            try:
                await step()
            except (HeadraceError, OSError) as error:
                log.error("a stream could not change its state: %s", error)
                if isinstance(error, ServiceError) and not error.retryable:
                    return  # it was deleted meanwhile, for example
                wait_ms = _RETRY_MS
            else:
                return

    async def close(self) -> None:
        """Give up waiting; what was begun is taken up at the next start."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
