"""What has been counted, on its way to the store: batches, one at a time, in a thread.

A batch that cannot be stored (a full disk) is kept and tried again; what is counted meanwhile
follows it. Readers see all of it: what is stored, what is being stored, what is not yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from headrace.core.clock import Clock
from headrace.core.engine.seam import UsageStore
from headrace.core.errors import StorageError
from headrace.core.model.usage import HOUR_MS, Peak, StreamIdentity, UsageBatch, UsageRows

log = logging.getLogger("headrace.core")

_R = TypeVar("_R")


class UsageKeeper:
    """Belongs to one event loop; the store is used in one thread."""

    def __init__(self, store: UsageStore, clock: Clock) -> None:
        self.pending = UsageBatch()
        """Counts of which nothing has been handed to the store yet: add to it."""
        self._store = store
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._unstored: UsageBatch | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._last_number = 0
        self._pruned_hour = 0
        self._is_failing = False

    # -- storing -------------------------------------------------------------------------------

    @property
    def has_unstored(self) -> bool:
        """Whether a batch is being stored, or could not be."""
        return self._unstored is not None

    def begin_flush(self) -> None:
        """Store what there is, in the background, unless that is going on already."""
        if self._flushing is None and (self.has_unstored or self.pending):
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        """Store the batch that could not be stored before, if there is one, then what came since.

        Stops at the first that cannot be stored: it is tried again the next time.
        """
        try:
            is_again = True
            while is_again:
                is_again = self._unstored is not None
                if self._unstored is None:
                    self._unstored, self.pending = self.pending, UsageBatch()
                if not await self.attempt(partial(self._add, self._unstored)):
                    return
                self._unstored = None
        finally:
            self._flushing = None

    def _add(self, batch: UsageBatch) -> None:
        if not batch.number:
            batch.number = max(self._last_number, self._store.last_batch()) + 1
        self._store.add(batch)
        self._last_number = batch.number
        hour = self._clock.now_ms() // HOUR_MS
        if hour != self._pruned_hour:
            self._store.prune(hour)
            self._pruned_hour = hour

    async def attempt(self, work: Callable[[], object]) -> bool:
        """Do it in the thread; whether the store could. Of several failures in a row the first is
        logged, and their end."""
        try:
            await self._in_thread(work)
        except StorageError as error:
            if not self._is_failing:
                log.error("%s; counting goes on in memory", error)
            self._is_failing = True
            return False
        if self._is_failing:
            log.warning("usage can be kept again")
        self._is_failing = False
        return True

    async def _in_thread(self, work: Callable[[], _R]) -> _R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Store all there is, and close the store."""
        while self.has_unstored or self.pending:
            await (self._flushing or self._flush())
            if self._is_failing:
                log.error("the last counts of usage are lost")
                break
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    # -- reading -------------------------------------------------------------------------------

    async def load_stream_peaks(self, since_hour: int) -> dict[str, list[tuple[int, Peak]]] | None:
        """By stream uid: (hour, its busiest minute); None if the store cannot tell now."""
        found: dict[str, list[tuple[int, Peak]]] = {}
        could = await self.attempt(lambda: found.update(self._store.stream_peaks(since_hour)))
        return found if could else None

    async def shard_peaks(self, uid: str, since_hour: int) -> dict[int, Peak]:
        """The busiest minute of each of a stream's shards. Raises StorageError."""
        found = await self._in_thread(lambda: self._store.shard_peaks(uid, since_hour))
        for batch in (self._unstored, self.pending):
            for (_, of, shard), counts in (batch.shards if batch else {}).items():
                if of == uid:
                    peak = Peak(counts.peak_bytes_per_s, counts.peak_records_per_s)
                    found[shard] = found.get(shard, Peak()).or_more(peak)
        return found

    async def rows(
        self, streams: Sequence[StreamIdentity], since_hour: int, *, whole: bool
    ) -> list[UsageRows]:
        """Streams' usage from an hour on; with `whole` by shard and consumer.

        Raises StorageError.
        """
        stored, found = await self._in_thread(
            lambda: self._store.read(streams, since_hour, whole=whole)
        )
        for rows in found:
            # a batch that was being stored while this was read: `stored` says which came first
            if self._unstored is not None and not 0 < self._unstored.number <= stored:
                rows.take_in(self._unstored, since_hour, whole=whole)
            rows.take_in(self.pending, since_hour, whole=whole)
        return found

    async def identities(self) -> list[StreamIdentity]:
        """All streams of which usage is known, those that are gone too. Raises StorageError."""
        known = {one.uid: one for one in await self._in_thread(self._store.identities)}
        for batch in (self._unstored, self.pending):
            known |= {} if batch is None else batch.identities
        return list(known.values())
