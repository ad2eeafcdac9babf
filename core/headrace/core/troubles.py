"""What is wrong right now, in words for people; logged once, not per attempt."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from headrace.core.clock import Clock

REPEAT_MS = 30_000


@dataclass(slots=True)
class _Trouble:
    message: str
    logged_ms: int
    unlogged_count: int = 0


class Troubles:
    """Current troubles by key. The same key again is logged every `repeat_ms` at most, with a
    count."""

    def __init__(self, log: logging.Logger, clock: Clock, *, repeat_ms: int = REPEAT_MS) -> None:
        self._log = log
        self._clock = clock
        self._repeat_ms = repeat_ms
        self._current: dict[str, _Trouble] = {}

    def report(self, key: str, message: str) -> None:
        """Something failed (again). `message` says what, and what to do if anything can be done."""
        now_ms = self._clock.monotonic_ms()
        trouble = self._current.get(key)
        if trouble is None:
            self._current[key] = _Trouble(message, now_ms)
            self._log.warning("%s", message)
            return
        trouble.message = message
        trouble.unlogged_count += 1
        if now_ms - trouble.logged_ms >= self._repeat_ms:
            self._log.warning("%s (%d more times)", message, trouble.unlogged_count)
            trouble.logged_ms = now_ms
            trouble.unlogged_count = 0

    def clear(self, key: str) -> None:
        """It works (again), or is no longer ours to do."""
        trouble = self._current.pop(key, None)
        if trouble is not None:
            self._log.info("over: %s", trouble.message)

    def keys(self, prefix: str) -> set[str]:
        """Keys of current troubles that begin so."""
        return {key for key in self._current if key.startswith(prefix)}

    def current(self) -> tuple[str, ...]:
        """What is wrong now, oldest first."""
        return tuple(trouble.message for trouble in self._current.values())
