"""A worker's heartbeat, and the moment from which nobody may rely on it any more.

One beat for all leases of a worker. Others may take its leases once its heartbeat has stood still
for the lease duration, as they see it. The worker itself counts from the moment it *sent* its last
successful beat, which is earlier than anybody can have seen it, and gives up a tenth before the
time is over: so it stops first, as long as no clock runs a tenth faster than another. (If one
does, or the process was stopped and cannot know, the fencing of checkpoints still holds.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError, UnknownOperation, ValidationError
from headrace.core.racing import within
from headrace.core.troubles import Troubles

TROUBLE = "heartbeat"


class Heart:
    """Beats a third of the lease duration apart; calls `on_death` when that failed for too long."""

    def __init__(
        self,
        beat: Callable[[], Coroutine[Any, Any, None]],
        *,
        lease_duration_ms: int,
        clock: Clock,
        troubles: Troubles,
        on_death: Callable[[], None],
    ) -> None:
        self.is_beating = asyncio.Event()
        self._beat = beat
        self._period_ms = lease_duration_ms / 3
        self._deadline_ms = lease_duration_ms * 0.9
        self._clock = clock
        self._troubles = troubles
        self._on_death = on_death

    async def run(self) -> None:
        """Beat until cancelled. Raises what cannot pass: a store that has no such operation."""
        dead_at_ms = self._clock.monotonic_ms() + self._deadline_ms
        while True:
            sent_ms = self._clock.monotonic_ms()
            if sent_ms >= dead_at_ms:
                if self.is_beating.is_set():
                    self.is_beating.clear()
                    self._on_death()
                dead_at_ms = sent_ms + self._deadline_ms
            try:
                await within(self._clock, dead_at_ms - sent_ms, self._beat())
            except (UnknownOperation, ValidationError):
                raise
            except (HeadraceError, TimeoutError) as error:
                self._troubles.report(TROUBLE, f"no heartbeat gets through: {error}")
                rest_ms = self._period_ms / 4
            else:
                self._troubles.clear(TROUBLE)
                dead_at_ms = sent_ms + self._deadline_ms
                if self._clock.monotonic_ms() < dead_at_ms:
                    self.is_beating.set()
                rest_ms = self._period_ms
            now_ms = self._clock.monotonic_ms()
            await self._clock.sleep_ms(min(sent_ms + rest_ms, dead_at_ms) - now_ms)
