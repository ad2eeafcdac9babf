"""Metering: takes what `usage` has counted, keeps it by the hour, and knows the peaks.

A tick every ten seconds (every five minutes while nothing happens, and at every full hour) takes
the counts away and adds what can only be looked at: shards, consumers, stored bytes. A batch of
them goes to the store in a thread. One that cannot be stored (a full disk) is kept and tried
again with the next tick; what was counted meanwhile follows it. Counts that a crash takes are
those of the last tick; no promise of delivery rests on them.

Whatever falls between two ticks belongs to one hour, so there is one at each hour's end. Minutes,
of which the busiest counts as peak, are measured by the monotonic clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from headrace.core.control.stream_state import StreamState
from headrace.core.engine.seam import UsageStore
from headrace.core.errors import StorageError
from headrace.core.model.usage import (
    HOUR_MS,
    Counts,
    Peak,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
    UsageRows,
    merge,
)
from headrace.core.service.catalog import Catalog
from headrace.core.service.peaks import PEAK_HOURS, Minute, PeakWindow, total
from headrace.core.service.usage import Taken, Usage, identity_of

log = logging.getLogger("headrace.core")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteringOptions:
    """How often counts are stored, how long a minute is (for tests), how often idle ones tick."""

    flush_ms: int = 10_000
    minute_ms: int = 60_000
    idle_ms: int = 300_000


class Metering:
    """Usage of one process. Belongs to one event loop; the store is used in a thread."""

    def __init__(
        self,
        catalog: Catalog,
        usage: Usage,
        store: UsageStore,
        options: MeteringOptions | None = None,
    ) -> None:
        self._catalog = catalog
        self._clock = catalog.clock
        self._usage = usage
        self._store = store
        self._options = options or MeteringOptions()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._pending = UsageBatch()
        self._unstored: UsageBatch | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._last_number = 0
        self._pruned_hour = 0
        self._is_failing = False
        self._is_closed = False
        self._ticked_ms = self._clock.monotonic_ms()
        self._minute = Minute()
        self._minute_ms: int | None = None  # when it began; None while nothing happens
        self._woken = asyncio.Event()
        self._peaks: dict[str, PeakWindow] = {}
        self.peaks_known = asyncio.Event()
        """Set once the peaks from before this start are known."""
        self.rates: dict[str, dict[int, Peak]] = {}
        """What shards took in the last whole minute, by stream uid; none is none."""
        self.on_minute: Callable[[], None] | None = None
        """Called when `rates` are new, and when there is nothing new for a while."""
        usage.on_first = self._woken.set
        catalog.before_removal.append(self.tick)  # what a stream was up to its end

    # -- ticking -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick for ever."""
        while not await self._load_peaks():
            await self._clock.sleep_ms(self._options.flush_ms)
            self.tick()
        self.tick()
        if not self._usage.is_empty:
            self._woken.set()
        while True:
            if self._minute_ms is None and self._unstored is None:
                await self._sleep_or_wake(min(self._options.idle_ms, self._to_hour_ms()))
            else:
                await self._clock.sleep_ms(self._to_next_ms())
            self.tick()
            if self._flushing is None and (self._unstored is not None or self._pending):
                self._flushing = asyncio.create_task(self._flush())

    def _to_hour_ms(self) -> int:
        return HOUR_MS - self._clock.now_ms() % HOUR_MS

    def _to_next_ms(self) -> int:
        now_ms = self._clock.monotonic_ms()
        flush_ms = self._ticked_ms + self._options.flush_ms - now_ms
        if self._minute_ms is not None:
            flush_ms = min(flush_ms, self._minute_ms + self._options.minute_ms - now_ms)
        return max(min(flush_ms, self._to_hour_ms()), 1)

    async def _sleep_or_wake(self, duration_ms: int) -> None:
        """Sleep, or until something is counted."""
        sleeping = asyncio.ensure_future(self._clock.sleep_ms(duration_ms))
        waking = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait([sleeping, waking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()

    def tick(self) -> None:
        """Take what has been counted until now."""
        now_ms, wall_ms = self._clock.monotonic_ms(), self._clock.now_ms()
        elapsed_ms = now_ms - self._ticked_ms
        # the middle of the time it was counted in: a tick at the full hour is never on the dot
        hour = (wall_ms - elapsed_ms // 2) // HOUR_MS
        self._ticked_ms = now_ms
        taken = self._usage.take()
        self._minute.add(taken.shards)
        self._keep(hour, taken)
        self._look(hour, elapsed_ms, wall_ms)
        if self._minute_ms is None and taken.identities:
            self._minute_ms = now_ms
        if self._minute_ms is not None and now_ms - self._minute_ms >= self._options.minute_ms:
            self._end_minute(hour, now_ms)
        elif self._minute_ms is None and self.on_minute is not None:
            self.rates = {}
            self.on_minute()
        self._woken.clear()

    def _keep(self, hour: int, taken: Taken) -> None:
        pending = self._pending
        pending.identities |= taken.identities
        for (uid, shard), counts in taken.shards.items():
            merge(pending.streams.setdefault((hour, uid), StreamCounts()), counts)
            known = pending.shards.setdefault((hour, uid, shard), counts)
            if known is not counts:
                merge(known, counts)
        for (uid, consumer), sent in taken.consumers.items():
            found = pending.consumers.setdefault((hour, uid, consumer), sent)
            if found is not sent:
                merge(found, sent)

    def _look(self, hour: int, elapsed_ms: int, wall_ms: int) -> None:
        """At all streams: what they are, and for how long."""
        for stream in self._catalog.state.streams.streams.values():
            if stream.status == "CREATING":
                continue
            opened = self._catalog.opened_by_uid(stream.uid)
            if opened is None:
                continue
            shards, consumers = len(opened.routing.shards), len(stream.consumers)
            lived_ms = max(min(elapsed_ms, wall_ms - stream.created_ms), 0)
            self._pending.identities[stream.uid] = identity_of(stream)
            seen = StreamCounts(
                shard_seconds=shards * lived_ms / 1000,
                consumer_shard_seconds=shards * consumers * lived_ms / 1000,
                shards=shards,
                consumers=consumers,
                stored_bytes=opened.log.stored_bytes,
                retention_hours=stream.retention_hours,
                mode=stream.mode,
            )
            merge(self._pending.streams.setdefault((hour, stream.uid), StreamCounts()), seen)

    def _end_minute(self, hour: int, now_ms: int) -> None:
        assert self._minute_ms is not None
        self.rates = self._minute.rates(now_ms - self._minute_ms)
        self._minute, self._minute_ms = Minute(), now_ms if self.rates else None
        for uid, rates in self.rates.items():
            whole = total(rates.values())
            self._peaks.setdefault(uid, PeakWindow()).add(hour, whole)
            of_stream = self._pending.streams.setdefault((hour, uid), StreamCounts())
            merge(of_stream, _peak_counts(whole))
            for shard, rate in rates.items():
                key = hour, uid, shard
                merge(self._pending.shards.setdefault(key, Counts()), _peak_counts(rate))
        self._forget_peaks()
        if self.on_minute is not None:
            self.on_minute()

    # -- peaks ---------------------------------------------------------------------------------

    def peak(self, stream: StreamState) -> Peak:
        """The stream's busiest minute of the last 30 days."""
        window = self._peaks.get(stream.uid)
        return Peak() if window is None else window.at(self._hour())

    async def shard_peaks(self, stream: StreamState) -> dict[int, Peak]:
        """The busiest minute of each of its shards in the last 30 days.

        Raises StorageError.
        """
        self.tick()
        since = self._hour() - PEAK_HOURS + 1
        found = await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._store.shard_peaks(stream.uid, since)
        )
        for batch in (self._unstored, self._pending):
            for (_, uid, shard), counts in (batch.shards if batch else {}).items():
                if uid == stream.uid:
                    peak = Peak(counts.peak_bytes_per_s, counts.peak_records_per_s)
                    found[shard] = found.get(shard, Peak()).or_more(peak)
        return found

    def _hour(self) -> int:
        return self._clock.now_ms() // HOUR_MS

    async def _load_peaks(self) -> bool:
        """Read the peaks from before this start. Whether that could be done."""
        stored: dict[str, list[tuple[int, Peak]]] = {}
        since = self._hour() - PEAK_HOURS + 1
        if not await self._in_thread(lambda: stored.update(self._store.stream_peaks(since))):
            return False
        for uid, known in stored.items():
            window = PeakWindow(known)
            if uid in self._peaks:
                window.add(self._hour(), self._peaks[uid].at(self._hour()))
            self._peaks[uid] = window
        self._forget_peaks()
        self.peaks_known.set()
        return True

    def _forget_peaks(self) -> None:
        """Of streams that are gone."""
        there = {stream.uid for stream in self._catalog.state.streams.streams.values()}
        for uid in self._peaks.keys() - there:
            del self._peaks[uid]

    # -- keeping -------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Store the batch that could not be stored before, if there is one, then what came since.

        Stops at the first that cannot be stored: it is tried again with the next tick.
        """
        try:
            is_again = True
            while is_again:
                is_again = self._unstored is not None
                if self._unstored is None:
                    self._unstored, self._pending = self._pending, UsageBatch()
                batch = self._unstored
                if not await self._in_thread(partial(self._add, batch)):
                    return
                self._unstored = None
        finally:
            self._flushing = None

    def _add(self, batch: UsageBatch) -> None:
        if not batch.number:
            batch.number = max(self._last_number, self._store.last_batch()) + 1
        self._store.add(batch)
        self._last_number = batch.number
        hour = self._hour()
        if hour != self._pruned_hour:
            self._store.prune(hour)
            self._pruned_hour = hour

    async def _in_thread(self, work: Callable[[], None]) -> bool:
        """Whether the store could do it. The first of several failures is logged, and their end."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, work)
        except StorageError as error:
            if not self._is_failing:
                log.error("%s; counting goes on in memory", error)
            self._is_failing = True
            return False
        if self._is_failing:
            log.warning("usage can be kept again")
        self._is_failing = False
        return True

    async def rows(
        self, streams: Sequence[StreamIdentity], since_hour: int, *, whole: bool
    ) -> list[UsageRows]:
        """Streams' usage from an hour on, up to this moment; with `whole` by shard and consumer.

        Raises StorageError.
        """
        self.tick()
        loop = asyncio.get_running_loop()
        stored, found = await loop.run_in_executor(
            self._thread, lambda: self._store.read(streams, since_hour, whole=whole)
        )
        for rows in found:
            # a batch that was being stored while this was read: `stored` says which came first
            if self._unstored is not None and not 0 < self._unstored.number <= stored:
                rows.take_in(self._unstored, since_hour, whole=whole)
            rows.take_in(self._pending, since_hour, whole=whole)
        return found

    async def identities(self) -> list[StreamIdentity]:
        """All streams of which usage is known, those that are gone too. Raises StorageError."""
        self.tick()
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(self._thread, self._store.identities)
        known = {identity.uid: identity for identity in stored}
        for batch in (self._unstored, self._pending):
            known |= {} if batch is None else batch.identities
        return list(known.values())

    async def close(self) -> None:
        """Store what has been counted. Nothing may be counted after it; again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.tick()
        while self._unstored is not None or self._pending:
            await (self._flushing or self._flush())
            if self._is_failing:
                log.error("the last counts of usage are lost")
                break
        self._usage.on_first = None
        self._catalog.before_removal.remove(self.tick)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()


def _peak_counts(rate: Peak) -> Counts:
    return Counts(peak_bytes_per_s=rate.bytes_per_s, peak_records_per_s=rate.records_per_s)
