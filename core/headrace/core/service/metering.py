"""Metering: takes what `usage` has counted, keeps it by the hour, and knows the peaks.

A tick every ten seconds (every five minutes while nothing happens, and at every full hour) takes
the counts away and adds what can only be looked at (`stream_watch`): shards, consumers, stored
bytes. Then `usage_keeper` has them stored. Counts that a crash takes are those since the last tick;
no promise of delivery rests on them.

Whatever falls between two ticks belongs to one hour, so there is one at each hour's end. Minutes,
of which the busiest counts as peak, are measured by the monotonic clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace.core.control.stream_state import StreamState
from headrace.core.control.streams import StreamCommandBase
from headrace.core.engine.seam import UsageStore
from headrace.core.model.usage import (
    HOUR_MS,
    Counts,
    Peak,
    StreamCounts,
    StreamIdentity,
    merge,
)
from headrace.core.service.catalog import Catalog
from headrace.core.service.peaks import PEAK_HOURS, Minute, PeakWindow, total
from headrace.core.service.stream_watch import StreamWatch
from headrace.core.service.usage import Taken, Usage, identity_of
from headrace.core.service.usage_keeper import UsageKeeper

LOOKS_AT_ONCE = 100  # at streams: a millisecond


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
        self._options = options or MeteringOptions()
        self.keeper = UsageKeeper(store, self._clock)
        self._is_closed = False
        self._ticked_ms = self._clock.monotonic_ms()
        self._minute = Minute()
        self._minute_ms: int | None = None  # when it began; None while nothing happens
        self._is_woken = False
        self._rest: asyncio.Timeout | None = None  # sleep that ends when something is counted
        self._peaks: dict[str, PeakWindow] = {}
        self.peaks_known = asyncio.Event()
        """Set once the peaks from before this start are known."""
        self.rates: dict[str, dict[int, Peak]] = {}
        """What shards took in the last whole minute, by stream uid; none is none."""
        self.on_minute: Callable[[], None] | None = None
        """Called when `rates` are new, and when there is nothing new for a while."""
        usage.on_first = self._wake
        self._watch = StreamWatch(catalog, self._ticked_ms)
        catalog.before_removal.append(self._see_off)
        catalog.on_trim.append(self._watch.note)
        catalog.on_served.append(self._watch.begin)
        catalog.engine.control.watchers.append(self._note_change)

    # -- ticking -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick for ever."""
        while not await self._load_peaks():
            await self._clock.sleep_ms(self._options.flush_ms)
            self.tick()
        self.tick()
        await self._look_at_quiet_ones()
        if not self._usage.is_empty:
            self._is_woken = True
        while True:
            if self._minute_ms is not None:
                await self._clock.sleep_ms(self._to_next_ms())
            elif self.keeper.has_unstored:
                await self._sleep_or_wake(self._to_next_ms())
            else:
                await self._sleep_or_wake(min(self._options.idle_ms, self._to_hour_ms()))
            self.tick()
            await self._look_at_quiet_ones()
            if self._minute_ms is None and self.on_minute is not None:
                self.rates = {}
                self.on_minute()
            self.keeper.begin_flush()

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
        if self._is_woken:
            return
        try:
            async with asyncio.timeout(None) as self._rest:
                await self._clock.sleep_ms(duration_ms)
        except TimeoutError:
            pass  # woken
        finally:
            self._rest = None

    def _wake(self) -> None:
        self._is_woken = True
        if self._rest is not None:
            self._rest.reschedule(asyncio.get_running_loop().time())
            self._rest = None

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
        for uid in taken.identities:
            self._watch.note(uid)
        self._watch.tick(now_ms, wall_ms, hour, self.keeper.pending)
        for uid in taken.identities:
            self._watch.note(uid)  # the last mark in its log may come a moment later
        if self._minute_ms is None and taken.identities:
            self._minute_ms = now_ms
        if self._minute_ms is not None and now_ms - self._minute_ms >= self._options.minute_ms:
            self._end_minute(hour, now_ms)
        self._is_woken = False

    def look_at(self, uids: Iterable[str]) -> None:
        """Count until now what these streams are, whatever happened to them."""
        self.tick()
        self._watch.look_at(uids, self.keeper.pending)

    async def _look_at_quiet_ones(self) -> None:
        """At streams that nobody looked at for a while, a few at a time."""
        while uids := self._watch.not_seen_for(self._options.idle_ms, LOOKS_AT_ONCE):
            self._watch.look_at(uids, self.keeper.pending)
            await asyncio.sleep(0)

    def _see_off(self, stream: StreamState) -> None:
        """Count what a stream was up to its end."""
        self.look_at([stream.uid])

    def _note_change(self, command: object) -> None:
        if isinstance(command, StreamCommandBase):
            stream = self._catalog.state.streams.streams.get(command.key)
            if stream is not None:
                self._watch.note(stream.uid)

    def _keep(self, hour: int, taken: Taken) -> None:
        pending = self.keeper.pending
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

    def _end_minute(self, hour: int, now_ms: int) -> None:
        assert self._minute_ms is not None
        self.rates = self._minute.rates(now_ms - self._minute_ms)
        self._minute, self._minute_ms = Minute(), now_ms if self.rates else None
        for uid, rates in self.rates.items():
            whole = total(rates.values())
            self._peaks.setdefault(uid, PeakWindow()).add(hour, whole)
            of_stream = self.keeper.pending.streams.setdefault((hour, uid), StreamCounts())
            merge(of_stream, _peak_counts(whole))
            for shard, rate in rates.items():
                key = hour, uid, shard
                merge(self.keeper.pending.shards.setdefault(key, Counts()), _peak_counts(rate))
        self._forget_peaks()
        if self.on_minute is not None:
            self.on_minute()

    # -- peaks ---------------------------------------------------------------------------------

    def peak(self, stream: StreamState) -> Peak:
        """The stream's busiest minute of the last 30 days."""
        window = self._peaks.get(stream.uid)
        return Peak() if window is None else window.at(self._hour())

    def known_hours(self, stream: StreamState) -> int:
        """For how long the stream's usage has been metered; no more than 30 days need be told.

        0 while it is not known what came before this start: nothing known is not no traffic.
        """
        if not self.peaks_known.is_set():
            return 0
        hour = self._hour()
        return hour - self._watch.since_hours.get(stream.uid, hour)

    async def shard_peaks(self, stream: StreamState) -> dict[int, Peak]:
        """The busiest minute of each of its shards in the last 30 days.

        Raises StorageError.
        """
        self.tick()
        return await self.keeper.shard_peaks(stream.uid, self._hour() - PEAK_HOURS + 1)

    def _hour(self) -> int:
        return self._clock.now_ms() // HOUR_MS

    async def _load_peaks(self) -> bool:
        """Read the peaks from before this start. Whether that could be done."""
        stored = await self.keeper.load_stream_peaks(self._hour() - PEAK_HOURS + 1)
        if stored is None:
            return False
        for uid, known in stored.items():
            since = self._watch.since_hours
            since[uid] = min(known[0][0], since.get(uid, known[0][0]))
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
        for known in (self._peaks, self._watch.since_hours):
            for uid in known.keys() - there:
                del known[uid]

    # -- reading -------------------------------------------------------------------------------

    async def identities(self, account: str, region: str, name: str | None) -> list[StreamIdentity]:
        """The account's streams of which usage is known, those that are gone too; with `name`
        those that had it. Raises StorageError."""
        self.tick()
        known = await self.keeper.identities(account, region, name)
        for stream in self._catalog.state.streams.streams.values():
            if (
                stream.uid not in known
                and (stream.account, stream.region) == (account, region)
                and name in (None, stream.name)
                and self._watch.can_see(stream)
            ):
                known[stream.uid] = identity_of(stream)
        return list(known.values())

    async def close(self) -> None:
        """Store what has been counted. Nothing may be counted after it; again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self.tick()
        self._watch.look_at_all(self.keeper.pending)
        self._usage.on_first = None
        self._catalog.before_removal.remove(self._see_off)
        self._catalog.on_trim.remove(self._watch.note)
        self._catalog.on_served.remove(self._watch.begin)
        self._catalog.engine.control.watchers.remove(self._note_change)
        await self.keeper.close()


def _peak_counts(rate: Peak) -> Counts:
    return Counts(peak_bytes_per_s=rate.bytes_per_s, peak_records_per_s=rate.records_per_s)
