"""What is done steadily, on a machine that may hold up whoever does it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Gaps:
    """The longest time between two things that were to follow each other closely."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last_s: float | None = None

    def note(self) -> None:
        """One of these things is done now."""
        now_s = time.monotonic()
        if self._last_s is not None:
            self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s


def assert_steady(attempt: Callable[[Gaps], bool], patience_s: float, attempts: int = 5) -> None:
    """It succeeds. Where it was not done steadily, that is no proof of anything: once more."""
    for _ in range(attempts):
        gaps = Gaps()
        succeeded = attempt(gaps)
        gaps.note()
        if succeeded:
            return
        assert gaps.longest_s > patience_s / 2, f"given up, at most {gaps.longest_s:.2f} s apart"
    raise AssertionError("this machine holds processes up all the time")
