"""Usage as it is counted: a few additions per request and shard, in memory.

The operations call `put`, `refused`, `got`, `fanned_out`; every few seconds `metering` takes away
what has been counted and keeps it by the hour. Nothing here asks a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headrace.core.control.stream_state import ConsumerState, ShardState, StreamState
from headrace.core.engine.seam import RecordSlice
from headrace.core.limits import KIB
from headrace.core.model.payload import payload_bytes
from headrace.core.model.usage import (
    PUT_UNIT_BYTES,
    ConsumerCounts,
    Counts,
    Extent,
    StreamIdentity,
    billed_units,
)


def identity_of(stream: StreamState) -> StreamIdentity:
    return StreamIdentity(stream.uid, stream.account, stream.region, stream.name, stream.created_ms)


@dataclass(slots=True)
class Taken:
    """What was counted since the last time: by (stream uid, shard), and by (uid, consumer)."""

    shards: dict[tuple[str, int], Counts] = field(default_factory=dict)
    consumers: dict[tuple[str, str], ConsumerCounts] = field(default_factory=dict)
    identities: dict[str, StreamIdentity] = field(default_factory=dict)


class Usage:
    """The counters of all streams of this process."""

    def __init__(self) -> None:
        self._taken = Taken()
        self._shards = self._taken.shards
        self.on_first: Callable[[], None] | None = None
        """Called when something is counted and nothing was before: somebody may sleep till then."""

    def take(self) -> Taken:
        """What has been counted, which is then counted no more."""
        taken, self._taken = self._taken, Taken()
        self._shards = self._taken.shards
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been counted since it was last taken."""
        return not self._taken.identities

    def _of(self, stream: StreamState, shard: int) -> Counts:
        counts = self._shards.get((stream.uid, shard))
        if counts is None:
            counts = self._shards[stream.uid, shard] = Counts()
            self._know(stream)
        return counts

    def _know(self, stream: StreamState) -> None:
        is_first = self.is_empty
        self._taken.identities[stream.uid] = identity_of(stream)
        if is_first and self.on_first is not None:
            self.on_first()

    # -- in ------------------------------------------------------------------------------------

    def put(
        self,
        stream: StreamState,
        shard: int,
        sizes: Sequence[int],
        keys: Sequence[str],
        extent: Extent,
    ) -> None:
        """Records were stored in a shard: bytes of data and key of each.

        `extent` is that of the put they are all of, or a part.
        """
        counts = self._of(stream, shard)
        units, kib = billed_units(sizes, keys, extent)
        if len(sizes) == extent.records:
            counts.bytes_in += extent.payload_bytes
        else:
            counts.bytes_in += sum(sizes) + len("".join(keys).encode())
        counts.records_in += len(sizes)
        counts.put_units += units
        counts.kib_in += kib

    def put_one(self, stream: StreamState, shard: int, payload_bytes: int) -> None:
        """One record was stored in a shard, of so many bytes of data and key: one at least."""
        counts = self._of(stream, shard)
        counts.bytes_in += payload_bytes
        counts.records_in += 1
        counts.put_units += -(-payload_bytes // PUT_UNIT_BYTES)
        counts.kib_in += -(-payload_bytes // KIB)

    def refused(
        self,
        stream: StreamState,
        shards: Sequence[ShardState],
        routes: Sequence[int],
        sizes: Sequence[int],
        refused: Sequence[int],
    ) -> None:
        """Records, by index, were over their shards' capacity; `sizes` are of data and key."""
        for i in refused:
            counts = self._of(stream, shards[routes[i]].number)
            counts.throttled_records += 1
            counts.throttled_bytes += sizes[i]

    # -- out -----------------------------------------------------------------------------------

    def got(self, stream: StreamState, shard: int, found: RecordSlice, behind_ms: int) -> None:
        """A GetRecords was answered, maybe with nothing."""
        counts = self._of(stream, shard)
        counts.gets += 1
        if found.records:
            counts.records_out += found.records
            counts.bytes_out += payload_bytes(found.parts, found.records)
        if behind_ms > counts.iterator_age_ms:
            counts.iterator_age_ms = behind_ms

    def refused_get(self, stream: StreamState, shard: int) -> None:
        """A GetRecords was over the shard's capacity."""
        self._of(stream, shard).throttled_gets += 1

    def fanned_out(
        self,
        stream: StreamState,
        shard: int,
        consumer: ConsumerState,
        found: RecordSlice,
        behind_ms: int,
    ) -> None:
        """A consumer was sent an event by SubscribeToShard, maybe without records."""
        counts = self._of(stream, shard)
        key = stream.uid, f"{consumer.name}:{consumer.created_ms // 1000}"
        of_consumer = self._taken.consumers.setdefault(key, ConsumerCounts())
        if found.records:
            size = payload_bytes(found.parts, found.records)
            counts.fanout_records += found.records
            counts.fanout_bytes += size
            of_consumer.fanout_records += found.records
            of_consumer.fanout_bytes += size
        if behind_ms > of_consumer.iterator_age_ms:
            of_consumer.iterator_age_ms = behind_ms
        if behind_ms > counts.iterator_age_ms:
            counts.iterator_age_ms = behind_ms
