"""On-demand streams scale themselves: after every minute of traffic, and now and then without.

What to do is decided by `control.on_demand`; it is done as any other change of the shards, with
puts and reads going on: the stream is UPDATING for a while, order per key holds, and nothing is
lost or read twice.
"""

from __future__ import annotations

import asyncio
import logging

from headrace.core.control.on_demand import MERGE_AFTER_MS, may_merge, merges, splits, target_shards
from headrace.core.control.stream_state import PendingUpdate, StreamState
from headrace.core.control.streams import check_quota
from headrace.core.errors import HeadraceError
from headrace.core.limits import (
    DEFAULT_SHARD_QUOTA,
    ON_DEMAND_MAX_SHARDS_LIMITED,
    ON_DEMAND_MAX_SHARDS_UNLIMITED,
)
from headrace.core.model.usage import HOUR_MS
from headrace.core.service.catalog import Catalog
from headrace.core.service.metering import Metering
from headrace.core.service.updates import Updates

log = logging.getLogger("headrace.core")


class OnDemandScaler:
    """Scales the streams of a catalog.

    `max_shards` is how far traffic alone can take one: unless given, 200 where a shard's capacity
    `is_limited`, else 32.
    """

    def __init__(
        self,
        catalog: Catalog,
        updates: Updates,
        metering: Metering,
        *,
        max_shards: int | None,
        is_limited: bool,
        shard_quota: int = DEFAULT_SHARD_QUOTA,
    ) -> None:
        self._catalog = catalog
        self._updates = updates
        self._metering = metering
        usual = ON_DEMAND_MAX_SHARDS_LIMITED if is_limited else ON_DEMAND_MAX_SHARDS_UNLIMITED
        self._max_shards = usual if max_shards is None else max_shards
        self._shard_quota = shard_quota
        self._scaling: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}  # what was logged last, by stream uid
        self._in_vain: dict[str, int] = {}  # when no pair to merge was found, Unix ms
        metering.on_minute = self.look

    def look(self) -> None:
        """See which streams want other shards, and begin to change them."""
        for stream in self._catalog.state.streams.streams.values():
            if stream.uid not in self._scaling and self._wants_change(stream):
                self._scaling[stream.uid] = asyncio.create_task(self._scale(stream))

    def _target(self, stream: StreamState) -> int:
        return target_shards(
            self._metering.peak(stream),
            warm_mibps=stream.warm_mibps or 0,
            ceiling=self._max_shards,
        )

    def _splits(self, stream: StreamState) -> tuple[tuple[int, str], ...]:
        rates = self._metering.rates.get(stream.uid, {})
        return splits(stream, rates, self._target(stream), self._max_shards)

    def _may_shrink(self, stream: StreamState) -> bool:
        looked_ms = self._in_vain.get(stream.uid)
        return (
            len(stream.open_shards) > self._target(stream)
            and self._metering.known_hours(stream) >= MERGE_AFTER_MS // HOUR_MS
            and may_merge(stream, self._now_ms())
            and (looked_ms is None or abs(self._now_ms() - looked_ms) >= HOUR_MS)
        )

    def _wants_change(self, stream: StreamState) -> bool:
        return _scales(stream) and (bool(self._splits(stream)) or self._may_shrink(stream))

    def _now_ms(self) -> int:
        return self._catalog.clock.now_ms()

    async def _scale(self, stream: StreamState) -> None:
        try:
            pending = await self._next(stream)
            if pending is None:
                return
            before = len(stream.open_shards)
            await self._updates.run(stream, pending)
            log.info(
                "on-demand stream %s goes from %d to %d shards; its peak was %s",
                stream.name,
                before,
                before + len(pending.splits) - len(pending.merges),
                self._metering.peak(stream),
            )
            self._refused.pop(stream.uid, None)
        except (HeadraceError, OSError) as error:
            if self._refused.get(stream.uid) != str(error):
                self._refused[stream.uid] = str(error)
                log.warning("on-demand stream %s cannot be scaled now: %s", stream.name, error)
        finally:
            del self._scaling[stream.uid]

    async def _next(self, stream: StreamState) -> PendingUpdate | None:
        """The next step, judged without a pause before it is begun."""
        if not _scales(stream):
            return None  # somebody changed it meanwhile
        wanted = self._splits(stream)
        if wanted:
            check_quota(
                self._catalog.state.streams,
                stream.account,
                stream.region,
                len(wanted),
                self._shard_quota,
            )
            return PendingUpdate(splits=wanted)
        peaks = await self._metering.shard_peaks(stream)
        pairs = merges(stream, peaks, self._target(stream)) if _scales(stream) else ()
        if not pairs:
            self._in_vain[stream.uid] = self._now_ms()
            return None
        self._in_vain.pop(stream.uid, None)
        return PendingUpdate(merges=pairs)

    async def close(self) -> None:
        """Begin nothing more; what was begun is finished, or taken up at the next start."""
        self._metering.on_minute = None
        await asyncio.gather(*self._scaling.values(), return_exceptions=True)


def _scales(stream: StreamState) -> bool:
    return stream.mode == "ON_DEMAND" and stream.status == "ACTIVE"
