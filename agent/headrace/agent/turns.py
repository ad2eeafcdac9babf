"""Turns: files that have something to ship wait in a queue, and a few of them have it at a time.

Knows who wants a turn, who waits for one already and who must pause, not what a turn does. What
goes wrong in one is that file's trouble, never the others'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headrace.agent.registry import Registry
from headrace.agent.tracked import TrackedFile
from headrace.core.clock import Clock
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.agent")

#: After something that does not pass by itself: somebody has to do something.
REFUSED_MS = 10_000


class Turns:
    """The queue of files that want a turn. `take` is what a turn does."""

    def __init__(
        self,
        take: Callable[[TrackedFile], Awaitable[None]],
        *,
        registry: Registry,
        troubles: Troubles,
        clock: Clock,
    ) -> None:
        self._take = take
        self._registry = registry
        self._troubles = troubles
        self._clock = clock
        self._queue: asyncio.Queue[TrackedFile] = asyncio.Queue()
        #: Files that have changed lately; they are looked at between scans.
        self.active: dict[str, TrackedFile] = {}
        self.is_stopping = False

    def wake(self, file: TrackedFile) -> None:
        """Give the file a turn, unless it waits for one already or must pause."""
        if file.is_queued or file.in_turn or file.is_missing:
            return
        if self._clock.monotonic_ms() < file.blocked_until_ms:
            return
        file.is_queued = True
        self.active[file.position.identity] = file
        self._queue.put_nowait(file)

    def block(self, file: TrackedFile, duration_ms: int, message: str) -> None:
        """Leave the file alone for a while, and say why."""
        file.blocked_until_ms = self._clock.monotonic_ms() + duration_ms
        self._troubles.report(_problem(file), message)

    def went_well(self, file: TrackedFile) -> None:
        """What was wrong with the file's turns is no more."""
        self._troubles.clear(_problem(file))

    async def work(self) -> None:
        """Take turns until cancelled, or stopping."""
        while not self.is_stopping:
            await self._one()

    async def drain(self) -> None:
        """Take turns until nobody wants one."""
        while not self._queue.empty():
            await self._one()

    async def _one(self) -> None:
        file = await self._queue.get()
        file.is_queued = False
        if self.is_stopping:
            return
        file.in_turn = True
        try:
            await self._take(file)
        except Exception as error:  # one file's trouble, whatever it is, is not the others'
            log.exception("shipping %s failed", file.position.path)
            self.block(file, REFUSED_MS, f"shipping {file.position.path} failed: {error!r}")
        finally:
            file.in_turn = False
        if file.has_news and self._registry.files.get(file.position.identity) is file:
            self.wake(file)


def _problem(file: TrackedFile) -> str:
    return f"turn:{file.position.identity}"
