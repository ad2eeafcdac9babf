"""A clock that stands still until a test moves it.

Whoever takes a `Clock` can be tested over hours in no time: start the work as a task, then
`await clock.advance(ms)`. Sleepers are woken in the order of their deadlines, each at exactly
its own time, so one that goes to sleep again within the same advance is woken again.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math

_SETTLE_ROUNDS = 25  # loop turns given to woken tasks before time moves on


class ManualClock:
    """Clock protocol by hand. Wall and monotonic time move together, except by `step_wall`."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 1_000_000
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._monotonic_ms

    async def sleep_ms(self, duration_ms: float) -> None:
        if duration_ms <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        deadline_ms = self._monotonic_ms + duration_ms
        heapq.heappush(self._sleepers, (deadline_ms, next(self._order), woken))
        await woken

    @property
    def sleeping_ms(self) -> list[float]:
        """How much longer each sleeper sleeps, soonest first."""
        return [
            deadline_ms - self._monotonic_ms
            for deadline_ms, _, woken in sorted(self._sleepers)
            if not woken.done()
        ]

    async def advance(self, duration_ms: int) -> None:
        """Move both clocks on, waking every sleeper whose time comes on the way."""
        await self.settle()
        end_ms = self._monotonic_ms + duration_ms
        while self._sleepers and self._sleepers[0][0] <= end_ms:
            deadline_ms, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # its sleeper was cancelled
                continue
            self._move_to(max(self._monotonic_ms, math.ceil(deadline_ms)))
            woken.set_result(None)
            await self.settle()
        self._move_to(end_ms)
        await self.settle()

    async def settle(self) -> None:
        """Let every task that can run do so, without time passing."""
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)

    def step_wall(self, by_ms: int) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would."""
        self._now_ms += by_ms

    def _move_to(self, monotonic_ms: int) -> None:
        self._now_ms += monotonic_ms - self._monotonic_ms
        self._monotonic_ms = monotonic_ms
