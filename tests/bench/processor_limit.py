"""What this processor does at best: how steadily it works through one and the same piece of work.

A machine that others use as well takes the processor away now and then, for milliseconds. Who works
for two of them at a time is held up by that far more often, in proportion, than who works for
forty; the worst hundredth of quick answers says as much about the machine as about the server.
"""

from __future__ import annotations

import time


class ProcessorLimit:
    """Pieces of work that take about so long where nothing disturbs them."""

    def __init__(self, ms: float) -> None:
        self._steps = 1_000
        while (took_ms := min(self._once_ms() for _ in range(20))) < ms / 2:
            self._steps *= 2
        self._steps = int(self._steps * ms / took_ms)

    def took_ms(self, count: int) -> list[float]:
        """How long each of so many took, one after the other."""
        return [self._once_ms() for _ in range(count)]

    def _once_ms(self) -> float:
        started = time.perf_counter()
        for _ in range(self._steps):
            pass
        return (time.perf_counter() - started) * 1e3
