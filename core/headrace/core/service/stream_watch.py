"""What streams are, and for how long: shards, consumers, stored bytes, mode, by the hour.

None of that changes by itself, so a stream is looked at when it had traffic or was changed, when
somebody asks, and else every few minutes: what a tick costs does not grow with the streams there
are. The time since the last look is counted then.

A look says the same as if there had been one at each tick. What a tick finds changed holds for
the time since the tick before; until then all was as last seen:

    last look            tick before            this tick
    |------- as last seen -------|--- as it is now ---|
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from headrace.core.control.stream_state import StreamState
from headrace.core.model.usage import StreamCounts, UsageBatch, merge
from headrace.core.service.catalog import Catalog
from headrace.core.service.usage import identity_of

_HOURS_TOLD_APART = 48  # in the time since a look, which is minutes


@dataclass(frozen=True, slots=True)
class _Look:
    """When the last one was, by the monotonic clock (ms), and what it found; None: none yet."""

    at_ms: int
    found: StreamCounts | None = None


class StreamWatch:
    """Belongs to one event loop."""

    def __init__(self, catalog: Catalog, monotonic_ms: int) -> None:
        self._catalog = catalog
        self._began_ms = self._before_ms = self._ticked_ms = monotonic_ms
        self._wall_ms = 0
        self._hours: list[tuple[int, int]] = []  # monotonic ms, the Unix hour that begins there
        streams = catalog.state.streams.streams.values()
        # by stream uid, the one that was looked at longest ago first
        self._looks = {stream.uid: _Look(monotonic_ms) for stream in streams}
        self._noted: set[str] = set()
        self.since_hours: dict[str, int] = {}
        """By stream uid, the first Unix hour of which is known what it was."""

    def note(self, uid: str) -> None:
        """The stream is not what it was: look at it with the next tick."""
        self._noted.add(uid)

    def begin(self, uid: str) -> None:
        """The stream was not served until now: count it from the last tick on."""
        self._looks[uid] = _Look(self._ticked_ms)
        self.note(uid)

    def tick(self, monotonic_ms: int, wall_ms: int, hour: int, pending: UsageBatch) -> None:
        """Time has come to here, all since the tick before in that hour; look at what is noted."""
        if not self._hours or self._hours[-1][1] != hour:
            self._hours.append((self._ticked_ms, hour))
            del self._hours[:-_HOURS_TOLD_APART]
        self._before_ms, self._ticked_ms, self._wall_ms = self._ticked_ms, monotonic_ms, wall_ms
        noted, self._noted = self._noted, set()
        self.look_at(noted, pending)

    def not_seen_for(self, duration_ms: int, most: int) -> list[str]:
        """Streams of which the last look is that long ago at the last tick, so many at most."""
        before_ms = self._ticked_ms - duration_ms
        found: list[str] = []
        for uid, look in self._looks.items():
            if len(found) == most or (look.found is not None and look.at_ms > before_ms):
                break
            if uid not in self._noted:  # it is not any more what it was at that tick
                found.append(uid)
        return found

    def can_see(self, stream: StreamState) -> bool:
        """Whether it is there already, and served."""
        return stream.status != "CREATING" and self._catalog.opened_by_uid(stream.uid) is not None

    def look_at_all(self, pending: UsageBatch) -> None:
        self.look_at(list(self._looks), pending)

    def look_at(self, uids: Iterable[str], pending: UsageBatch) -> None:
        """Count what the streams are, and for how long up to the last tick. Just after it."""
        for uid in uids:
            self._look_at(uid, pending)

    def _look_at(self, uid: str, pending: UsageBatch) -> None:
        last = self._looks.pop(uid, None) or _Look(self._began_ms)
        opened = self._catalog.opened_by_uid(uid)
        if opened is None:
            return  # gone, or not served
        stream = opened.stream
        if stream.status == "CREATING":
            self._looks[uid] = _Look(self._ticked_ms)
            self._noted.add(uid)  # not before it is there
            return
        found = StreamCounts(
            shards=len(opened.routing.shards),
            consumers=len(stream.consumers),
            stored_bytes=opened.log.stored_bytes,
            retention_hours=stream.retention_hours,
            mode=stream.mode,
        )
        self._looks[uid] = _Look(self._ticked_ms, found)
        pending.identities[uid] = identity_of(stream)
        lived_ms = max(self._wall_ms - stream.created_ms, 0)
        since_ms = max(last.at_ms, self._ticked_ms - lived_ms)
        border_ms = max(since_ms, self._before_ms)
        for hour, duration_ms in self._spans(since_ms, border_ms):
            self._count(uid, hour, duration_ms, last.found or found, pending)
        for hour, duration_ms in self._spans(border_ms, self._ticked_ms):
            self._count(uid, hour, duration_ms, found, pending)
        self._count(uid, self._hours[-1][1], 0, found, pending)

    def _spans(self, since_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
        """How much of that time (ms) was in which hour."""
        ends = [begin_ms for begin_ms, _ in islice(self._hours, 1, None)] + [until_ms]
        for (begin_ms, hour), end_ms in zip(self._hours, ends, strict=True):
            duration_ms = min(end_ms, until_ms) - max(begin_ms, since_ms)
            if duration_ms > 0:
                yield hour, duration_ms

    def _count(
        self, uid: str, hour: int, duration_ms: int, was: StreamCounts, pending: UsageBatch
    ) -> None:
        self.since_hours.setdefault(uid, hour)
        counts = pending.streams.setdefault((hour, uid), StreamCounts())
        merge(counts, was)
        counts.shard_seconds += was.shards * duration_ms / 1000
        counts.consumer_shard_seconds += was.shards * was.consumers * duration_ms / 1000
