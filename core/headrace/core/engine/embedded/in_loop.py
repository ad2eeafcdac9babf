"""Which windows of a group commit are written in the loop's own thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.core.limits import KIB
from headrace.core.log.window import Window


class InLoop:
    """Whether the next window is written in the loop's thread: while the disk is quick.

    Small ones are, and larger ones where nobody else puts: to wake a thread and to hear from it
    again takes a tenth of such a put's time, and a fifth of its worst hundredth (measured,
    PutRecords of 500 x 100 B over one connection); but with others putting as well, their requests
    are taken apart meanwhile (over eight connections the same costs a fifth of the rate).

    Quick is a disk whose syncs take a millisecond on average. Each that takes less saves the rest,
    up to some; each that takes more lives on what was saved, for a disk that others use as well is
    slow now and then, and no slow one. (Measured on such a one, half a millisecond in the median
    and over one in a tenth of all: where only a slow sync after sixteen quick ones was forgiven,
    most windows went to the thread, and a polling reader waited a fifth to a half longer in the
    median.)

    Where nothing is left the windows go to the thread for a while, twice as long each time, so
    that a disk that is always slow hardly ever holds up the loop. It is a time and not a number of
    windows: a busy minute is not paid for in the quiet one after it.

    One of these is for all the streams of a loop and of a disk.
    """

    small_bytes = 16 * KIB
    lone_bytes = 256 * KIB
    lone_after = 4
    """So many windows in a row of one put each, none of them begun before the one before it was
    done with, and nobody else seems to put."""
    mean_s = 0.001
    most_saved_s = 0.01
    first_away_s = 0.05
    most_away_s = 5.0

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._saved_s = 0.0
        self._away_until_s = 0.0  # 0 while windows are written in the loop
        self._penalty_s = self.first_away_s
        self._begun = 0  # windows that are not done with
        self._lone = 0  # in a row

    def takes(self, window: Window, puts: int) -> bool:
        """Whether it is written here. `puts` is how many wait for it; `done_with` is to follow."""
        self._lone = self._lone + 1 if puts == 1 and not self._begun else 0
        self._begun += 1
        most_bytes = self.lone_bytes if self._lone > self.lone_after else self.small_bytes
        if window.stored_bytes > most_bytes or window.roll_snapshot is not None:
            return False
        return not self.is_away

    @property
    def is_away(self) -> bool:
        """The disk is slow: nothing is to be written in the loop's thread for a while."""
        if self._away_until_s and self._now_s() >= self._away_until_s:
            self._away_until_s = 0.0
        return self._away_until_s > 0

    def done_with(self) -> None:
        """Who waited for a window has been told; what came while it was written has been seen."""
        self._begun -= 1

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
