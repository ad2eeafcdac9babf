"""ShardWork: one held lease with the work on it running, from taking it to letting go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headrace.core.errors import HeadraceError
from headrace.core.racing import pause
from headrace.core.shard_lease import ShardLease, Surroundings

_log = logging.getLogger("headrace.core")

Work = Callable[[ShardLease], Awaitable[None]]


class ShardWork:
    """Calls the work once for a lease just taken.

    If the work fails, this ends after a pause, with the lease still owned; the consumer then takes
    the lease again. So the next attempt has a new counter: whatever the failed one left running is
    fenced off, and what it prepared is read back from where it is durable.
    """

    def __init__(
        self,
        lease: ShardLease,
        work: Work,
        around: Surroundings,
        *,
        failure_count: int,
        on_end: Callable[[ShardWork], None],
    ) -> None:
        """`failure_count` attempts at this shard failed in a row before this one."""
        self.lease = lease
        self.failure_count = failure_count
        self.is_lost = False
        self._around = around
        self._checkpoint = lease.checkpoint
        self._name = f"{lease.stream}/{lease.shard_id}"
        self.task = asyncio.create_task(self._run(work, on_end))

    def stop(self) -> None:
        """Let the work finish what it has in hand."""
        self.lease.stopping.set()

    def lose(self, why: str) -> None:
        """End the work now: somebody else has the lease, or may have."""
        if not self.is_lost:
            self.is_lost = True
            self.lease.lost.set()
            self.task.cancel()
            _log.warning("stopped working on %s: %s", self._name, why)

    async def _run(self, work: Work, on_end: Callable[[ShardWork], None]) -> None:
        lease = self.lease
        failure = None
        try:
            failure = await self._failure(work)
            if failure is None:
                self.failure_count = 0
            if lease.is_finished or lease.lost.is_set():
                return
            if failure is not None and not lease.stopping.is_set():
                self._around.troubles.report(
                    f"work {lease.shard_id}",
                    f"the work on {self._name} {failure}; it starts again from its checkpoint",
                )
                if lease.checkpoint != self._checkpoint:
                    self.failure_count = 0
                rest_ms = self._around.backoff.next_ms(self.failure_count)
                self.failure_count += 1
                await pause(self._around.clock, rest_ms, lease.stopping)
            if lease.stopping.is_set():
                await self._release()
        finally:
            for key in ("read", "save"):
                self._around.troubles.clear(f"{key} {lease.shard_id}")
            if failure is None:
                self._around.troubles.clear(f"work {lease.shard_id}")
            on_end(self)

    async def _failure(self, work: Work) -> str | None:
        """Call the work; what went wrong with it, or None."""
        try:
            await work(self.lease)
        except Exception as error:
            _log.debug("the work on %s failed", self._name, exc_info=True)
            return f"failed: {type(error).__name__}: {error}"
        except asyncio.CancelledError:
            if self.task.cancelling():
                raise
            return "cancelled itself"
        if self.lease.is_finished or self.lease.stopping.is_set():
            return None
        return "returned before the end of the shard without being asked to stop"

    async def _release(self) -> None:
        """Give the lease back. If that does not succeed it is free after the lease duration."""
        try:
            await self._around.leases.release(self.lease.shard_id, self.lease.counter)
        except HeadraceError as error:
            _log.info("%s was not released: %s", self._name, error)
