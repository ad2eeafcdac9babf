"""Time as an argument: whoever needs the hour asks a Clock, so tests can own it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for what is measured."""

    def now_ms(self) -> int:
        """Wall time, Unix milliseconds. May step backwards; what is stored guards itself."""

    def monotonic_ms(self) -> int:
        """Milliseconds from an arbitrary start; never steps."""

    async def sleep_ms(self, duration_ms: float) -> None:
        """Wait that long by the monotonic clock."""


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: float) -> None:
        await asyncio.sleep(duration_ms / 1000)
