"""Which windows of a group commit are written in the loop's own thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.core.limits import KIB
from headrace.core.log.window import Window


class InLoop:
    """Whether the next small window is written in the loop's thread: while the disk is quick.

    A sync that is not sends the windows after it to the thread for a while, twice as long each
    time that the disk is found slow again; a disk that is always slow hardly ever holds up the
    loop. It is a time and not a number of windows, so that a busy minute is not paid for in the
    quiet one after it. One that is slow now and then is not a slow disk: a sync is forgiven when
    as many before were quick (measured: a shared disk that takes over a millisecond for one in a
    hundred had a tenth to a fifth of all windows go to the thread, and its readers wait a tenth
    longer in the median).
    """

    max_bytes = 16 * KIB
    quick_s = 0.001
    first_away_s = 0.05
    most_away_s = 5.0
    forgiven_after = 16

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._away_until_s = 0.0  # 0 while windows are written in the loop
        self._quick = 0  # syncs in the loop since the last one that was not
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
        if seconds <= self.quick_s:
            self._quick += 1
            if self._quick == self.forgiven_after:
                self._penalty_s = self.first_away_s
            return
        if self._quick < self.forgiven_after:
            self._away_until_s = self._now_s() + self._penalty_s
            self._penalty_s = min(2 * self._penalty_s, self.most_away_s)
        self._quick = 0
