"""Waiting for what is out of order around a shard, saying why, and knowing when to give up.

A shard waits rather than drop a batch or overtake it. Everything that waits here ends with
`Interrupted` when the shard is to be given back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError
from headrace.core.racing import pause
from headrace.core.retry import Backoff
from headrace.core.troubles import Troubles

_LOOK_AGAIN_MS = 1_000  # how soon a pause notices that its reason is gone

T = TypeVar("T")


class Interrupted(Exception):
    """The lease is to be given back; what is in hand is left as it is, none of it lost."""


class Patience:
    """Of one shard. `label` begins every trouble's text, `scope` every trouble's key."""

    def __init__(
        self,
        *,
        label: str,
        scope: str,
        stopping: asyncio.Event,
        troubles: Troubles,
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        self._label = label
        self._scope = scope
        self._stopping = stopping
        self._troubles = troubles
        self._clock = clock
        self._backoff = backoff
        self._reported: set[str] = set()
        self._in_trouble = asyncio.Event()

    async def until_it_works(
        self,
        what: str,
        action: Callable[[], Awaitable[T]],
        *,
        raises: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> T:
        """Repeat an action whose repetition is harmless, with a pause after each failure.

        Errors of `raises` are no reason to wait; they come out.
        """
        attempt = 0
        while True:
            try:
                result = await action()
            except raises:
                raise
            except (HeadraceError, OSError) as error:
                self.report_failure(what, error)
                await self._sleep(self._backoff.next_ms(attempt))
                attempt += 1
            else:
                self.clear(what)
                self._in_trouble.clear()
                return result

    async def pause(self, attempt: int, *, unless: Callable[[], bool] | None = None) -> None:
        """The pause after the `attempt`-th failure in a row (from 1); ends early once `unless`."""
        left_ms = self._backoff.next_ms(attempt - 1)
        if unless is None:
            return await self._sleep(left_ms)
        while left_ms > 0 and not unless():
            await self._sleep(min(left_ms, _LOOK_AGAIN_MS))
            left_ms -= _LOOK_AGAIN_MS

    async def unless_hopeless(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for work that repeats itself inside; give it up when stopping finds it failing."""

        async def is_hopeless() -> None:
            await self._stopping.wait()
            await self._in_trouble.wait()

        working, hopeless = asyncio.create_task(work), asyncio.create_task(is_hopeless())
        try:
            await asyncio.wait({working, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Interrupted
        finally:
            for task in (working, hopeless):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, HeadraceError):
                    await task

    def report_failure(self, what: str, error: Exception) -> None:
        """`what` continues "cannot": it is being tried again."""
        self._in_trouble.set()
        self.report(what, f"{self._label}: waiting, cannot {what}: {error}")

    def report(self, what: str, text: str) -> None:
        """A trouble of this shard; it stands until `clear`, or until the shard is given back."""
        self._reported.add(what)
        self._troubles.report(f"{self._scope} {what}", text)

    def clear(self, what: str) -> None:
        self._reported.discard(what)
        self._troubles.clear(f"{self._scope} {what}")

    def clear_all(self) -> None:
        """The shard is not ours any more, nor are its troubles."""
        for what in list(self._reported):
            self.clear(what)

    async def _sleep(self, duration_ms: float) -> None:
        await pause(self._clock, duration_ms, self._stopping)
        if self._stopping.is_set():
            raise Interrupted
