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
from headrace.core.model.usage import (
    HOUR_MS,
    PART_COUNTS,
    Part,
    PartKey,
    Peak,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
    UsagePage,
    merge,
)

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

    def _not_in(self, stored: int) -> list[UsageBatch]:
        """The batches that what was read lacks: with that number it was the last one stored."""
        if self._unstored is not None and not 0 < self._unstored.number <= stored:
            return [self._unstored, self.pending]
        return [self.pending]

    async def identities(
        self, account: str, region: str, name: str | None
    ) -> dict[str, StreamIdentity]:
        """By uid, streams of which usage is known, those that are gone too; see the store.

        Raises StorageError.
        """
        stored = await self._in_thread(lambda: self._store.identities(account, region, name))
        known = {one.uid: one for one in stored}
        for batch in (self._unstored, self.pending):
            for uid, one in batch.identities.items() if batch else ():
                if (one.account, one.region) == (account, region) and name in (None, one.name):
                    known[uid] = one
        return known

    async def totals(self, uids: Sequence[str], since_hour: int) -> dict[str, StreamCounts]:
        """By uid, streams' usage from an hour on; of those that have any. Raises StorageError."""
        stored, found = await self._in_thread(lambda: self._store.totals(uids, since_hour))
        for batch in self._not_in(stored):
            for hour in batch.hours_since(since_hour):
                for uid in uids:
                    counts = batch.streams.get((hour, uid))
                    if counts is not None:
                        merge(found.setdefault(uid, StreamCounts()), counts)
        return found

    async def hours(self, uid: str, since_hour: int) -> dict[int, StreamCounts]:
        """A stream's usage by the hour, from one on. Raises StorageError."""
        stored, found = await self._in_thread(lambda: self._store.hours(uid, since_hour))
        for batch in self._not_in(stored):
            for hour in batch.hours_since(since_hour):
                counts = batch.streams.get((hour, uid))
                if counts is not None:
                    merge(found.setdefault(hour, StreamCounts()), counts)
        return found

    async def keys(self, part: Part, uid: str, since_hour: int) -> tuple[list[PartKey], int]:
        """A stream's shards or consumers of which usage is known from an hour on, in order; and
        the first hour of which any is. Raises StorageError."""
        stored, known, first = await self._in_thread(
            lambda: self._store.keys(part, uid, since_hour)
        )
        found = set(known)
        for batch in self._not_in(stored):
            for hour, of, key in batch.of_part(part):
                if of == uid and hour >= since_hour:
                    found.add(key)
        return sorted(found), first

    async def page(
        self, part: Part, uid: str, since_hour: int, keys: Sequence[PartKey]
    ) -> UsagePage:
        """The usage of some of those, from an hour on. Raises StorageError."""
        stored, page = await self._in_thread(
            lambda: self._store.page(part, uid, since_hour, keys[0], keys[-1])
        )
        kind = PART_COUNTS[part]
        for batch in self._not_in(stored):
            counted = batch.of_part(part)
            for hour in batch.hours_since(since_hour):
                for key in keys:
                    counts = counted.get((hour, uid, key))
                    if counts is not None:
                        merge(page.totals.setdefault(key, kind()), counts)
                        merge(page.hours.setdefault((hour, key), kind()), counts)
        return page
