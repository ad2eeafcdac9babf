"""Which windows of a group commit are written in the loop's own thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.core.limits import KIB
from headrace.core.log.window import Window


class InLoop:
    """Whether the next small window is written in the loop's thread: while the disk is quick.

    Quick is a disk whose syncs take a millisecond on average. Each that takes less saves the rest,
    up to some; each that takes more lives on what was saved, for a disk that others use as well is
    slow now and then, and no slow one. (Measured on such a one, half a millisecond in the median
    and over one in a tenth of all: where only a slow sync after sixteen quick ones was forgiven,
    most windows went to the thread, and a polling reader waited a fifth to a half longer in the
    median.)

    Where nothing is left the windows go to the thread for a while, twice as long each time, so
    that a disk that is always slow hardly ever holds up the loop. It is a time and not a number of
    windows: a busy minute is not paid for in the quiet one after it.
    """

    max_bytes = 16 * KIB
    mean_s = 0.001
    most_saved_s = 0.01
    first_away_s = 0.05
    most_away_s = 5.0

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._saved_s = 0.0
        self._away_until_s = 0.0  # 0 while windows are written in the loop
        self._penalty_s = self.first_away_s

    def takes(self, window: Window) -> bool:
        if window.stored_bytes > self.max_bytes or window.roll_snapshot is not None:
            return False
        if self._away_until_s:
            if self._now_s() < self._away_until_s:
                return False
            self._away_until_s = 0.0
        return True

    def took(self, seconds: float) -> None:
        """A window was written in the loop's thread."""
        saved_s = self._saved_s + self.mean_s - seconds
        if saved_s >= self.most_saved_s:
            saved_s = self.most_saved_s
            self._penalty_s = self.first_away_s
        elif saved_s < 0:
            saved_s = 0.0
            self._away_until_s = self._now_s() + self._penalty_s
            self._penalty_s = min(2 * self._penalty_s, self.most_away_s)
        self._saved_s = saved_s
