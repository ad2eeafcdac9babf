"""What is metered: counts of a shard, a stream or a consumer within one hour.

Values only. `merge` is how counts of the same hour come together, here and in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar, cast

import msgspec

from headrace.core.limits import KIB, MAX_PARTITION_KEY_CHARS

HOUR_MS = 3_600_000
PUT_UNIT_BYTES = 25 * KIB  # pricing page: a PUT payload unit is 25 KB, begun ones count whole


class Counts(msgspec.Struct, gc=False):
    """Counts of one shard.

    In: what was stored. `bytes_in` are data and partition keys as UTF-8, `put_units` PUT payload
    units of 25 KiB, `kib_in` KiB with each record rounded up to whole ones (what on-demand mode
    is billed by). `throttled_*` were refused for the shard's capacity.

    Out: `bytes_out` and `records_out` by `gets` GetRecords calls, `fanout_*` by SubscribeToShard.
    `iterator_age_ms` is the greatest MillisBehindLatest that was answered.

    Peaks: of the busiest minute, refused records included.
    """

    bytes_in: int = 0
    records_in: int = 0
    put_units: int = 0
    kib_in: int = 0
    throttled_records: int = 0
    throttled_bytes: int = 0
    gets: int = 0
    bytes_out: int = 0
    records_out: int = 0
    throttled_gets: int = 0
    fanout_bytes: int = 0
    fanout_records: int = 0
    iterator_age_ms: int = 0
    peak_bytes_per_s: int = 0
    peak_records_per_s: int = 0


class StreamCounts(Counts):
    """Counts of a whole stream; its peaks are of all shards in the same minute.

    `shard_seconds` sums up how long shards were open while the server ran, and
    `consumer_shard_seconds` the same times the registered consumers. `shards` and `consumers`
    are the most there were; `stored_bytes`, `retention_hours` and `mode` are as last seen.
    """

    shard_seconds: float = 0.0
    consumer_shard_seconds: float = 0.0
    shards: int = 0
    consumers: int = 0
    stored_bytes: int = 0
    retention_hours: int = 0
    mode: str = ""


class ConsumerCounts(msgspec.Struct, gc=False):
    """What one consumer was sent by SubscribeToShard."""

    fanout_bytes: int = 0
    fanout_records: int = 0
    iterator_age_ms: int = 0


#: how two values of a field become one; what is not named here is added
MAXED = frozenset(
    ["iterator_age_ms", "peak_bytes_per_s", "peak_records_per_s", "shards", "consumers"]
)
LATEST = frozenset(["stored_bytes", "retention_hours", "mode"])
SEEN = "mode"  # where this is empty, nobody looked at the stream: the others say nothing then

T = TypeVar("T", bound=msgspec.Struct)


def merge(into: T, later: msgspec.Struct) -> T:
    """Take `later` counts of the same hour into `into`; fields that either lacks are left out."""
    added, maxed, latest = _shared_fields(type(into), type(later))
    for name in added:
        setattr(into, name, getattr(into, name) + getattr(later, name))
    for name in maxed:
        setattr(into, name, max(getattr(into, name), getattr(later, name)))
    if latest and getattr(later, SEEN):
        for name in latest:
            setattr(into, name, getattr(later, name))
    return into


@lru_cache
def _shared_fields(
    one: type[msgspec.Struct], other: type[msgspec.Struct]
) -> tuple[list[str], list[str], list[str]]:
    """Names of the fields of both: those added, those of which the greater counts, the rest."""
    names = [name for name in one.__struct_fields__ if name in other.__struct_fields__]
    return (
        [name for name in names if name not in MAXED | LATEST],
        [name for name in names if name in MAXED],
        [name for name in names if name in LATEST],
    )


class StreamIdentity(msgspec.Struct, frozen=True):
    """Which stream: one made again under a name is another, its `uid` says so."""

    uid: str
    account: str
    region: str
    name: str
    created_ms: int


ShardHour = tuple[int, str, int]  # hour (Unix hours), stream uid, shard number
StreamHour = tuple[int, str]
ConsumerHour = tuple[int, str, str]  # the consumer is `name:second of its creation`


@dataclass(slots=True)
class UsageBatch:
    """Counts that are not stored yet. `number` orders batches, so that none is added twice."""

    number: int = 0
    identities: dict[str, StreamIdentity] = field(default_factory=dict)
    streams: dict[StreamHour, StreamCounts] = field(default_factory=dict)
    shards: dict[ShardHour, Counts] = field(default_factory=dict)
    consumers: dict[ConsumerHour, ConsumerCounts] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.streams or self.shards or self.consumers)

    def hours_since(self, hour: int) -> list[int]:
        """The Unix hours from that one on of which there are counts."""
        return sorted({of for of, _ in self.streams if of >= hour})

    def of_part(self, part: Part) -> Mapping[tuple[int, str, PartKey], msgspec.Struct]:
        """Counts by hour, stream uid and key."""
        counts = self.shards if part == "shards" else self.consumers
        return cast("Mapping[tuple[int, str, PartKey], msgspec.Struct]", counts)


Part = Literal["shards", "consumers"]  # what a stream's usage is told by, beside the hours
PartKey = int | str  # a shard's number; a consumer as in `ConsumerHour`
PART_COUNTS: dict[Part, type[Counts] | type[ConsumerCounts]] = {
    "shards": Counts,
    "consumers": ConsumerCounts,
}


@dataclass(slots=True)
class UsagePage:
    """Some of a stream's shards, or consumers: their totals, and their hours by (hour, key)."""

    totals: dict[PartKey, msgspec.Struct] = field(default_factory=dict)
    hours: dict[tuple[int, PartKey], msgspec.Struct] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peak:
    """A rate in: bytes and records a second."""

    bytes_per_s: int = 0
    records_per_s: int = 0

    def or_more(self, other: Peak) -> Peak:
        """The greater of each."""
        return Peak(
            max(self.bytes_per_s, other.bytes_per_s), max(self.records_per_s, other.records_per_s)
        )


class Extent(NamedTuple):
    """How large the records of a put are: bytes of all data, of the least and of the greatest, of
    all keys, and bounds for each key (nearly always known without looking at each)."""

    records: int
    data_bytes: int
    smallest: int
    largest: int
    key_bytes: int
    shortest_key: int
    longest_key: int

    @property
    def payload_bytes(self) -> int:
        return self.data_bytes + self.key_bytes


def extent_of(sizes: Sequence[int], keys: Sequence[str]) -> Extent:
    """Measure a put; `sizes` are bytes of data, `keys` partition keys."""
    count, first = len(sizes), sizes[0]
    if sizes.count(first) == count:  # much the usual case, and much cheaper
        data_bytes, smallest, largest = first * count, first, first
    else:
        data_bytes, smallest, largest = sum(sizes), min(sizes), max(sizes)
    joined = "".join(keys)
    key_bytes, longest_key = len(joined), MAX_PARTITION_KEY_CHARS
    if not joined.isascii():
        key_bytes, longest_key = len(joined.encode()), 4 * MAX_PARTITION_KEY_CHARS
    return Extent(count, data_bytes, smallest, largest, key_bytes, int("" not in keys), longest_key)


def billed_units(sizes: Sequence[int], keys: Sequence[str], extent: Extent) -> tuple[int, int]:
    """PUT payload units, and KiB, of records; each record is rounded up by itself.

    `extent` is that of these records, or of more. Usually all records round to the same and none
    has to be looked at.
    """
    count, most = len(sizes), extent.largest + extent.longest_key
    if most <= KIB:
        return count, count
    least = max(extent.smallest + extent.shortest_key, 1)
    result: list[int] = []
    for unit in (PUT_UNIT_BYTES, KIB):
        fewest = -(-least // unit)
        if fewest == -(-most // unit):
            result.append(count * fewest)
            continue
        is_ascii = extent.longest_key == MAX_PARTITION_KEY_CHARS
        key_sizes = map(len, keys) if is_ascii else map(len, map(str.encode, keys))
        more = unit - 1
        units = [(size + key + more) // unit for size, key in zip(sizes, key_sizes, strict=True)]
        result.append(sum(units) + units.count(0))  # of nothing, one is paid too
    return result[0], result[1]
