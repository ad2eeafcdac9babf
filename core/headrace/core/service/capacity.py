"""Capacity: the limits of a shard, enforced as AWS does, for those who want them (`limits: aws`).

| what               | limit per shard                                                             |
|--------------------|-----------------------------------------------------------------------------|
| in                 | 1 MiB/s (data and partition keys) and 1,000 records/s, a second's worth at  |
|                    | once; a stream with records over 1 MiB saves up 10 MiB                      |
| GetRecords calls   | 5 a second                                                                  |
| GetShardIterator   | 5 a second                                                                  |
| out                | 2 MiB/s: a call is answered whole, and the next ones refused until the rate |
|                    | has made up for it (5 s after a full 10 MiB)                                |
| out to a consumer  | 2 MiB/s for each registered one, at a steady pace after the first second    |

A tank that refills steadily, as the service's own documents describe it; they give no formula.
Memory is one small object per shard that is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.clock import Clock
from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.errors import ThroughputExceeded
from headrace.core.limits import (
    DEFAULT_MAX_RECORD_BYTES,
    MAX_RECORD_BYTES,
    SHARD_IN_BYTES_PER_S,
    SHARD_IN_RECORDS_PER_S,
    SHARD_ITERATORS_PER_S,
    SHARD_OUT_BYTES_PER_S,
    SHARD_READS_PER_S,
)


class Tank:
    """A token bucket of at most `size`, filled by `rate_per_s`. Whole numbers: nothing drifts."""

    __slots__ = ("_filled_ms", "_level", "_rate_per_s", "_size")

    def __init__(self, rate_per_s: int, size: int, now_ms: int) -> None:
        self._rate_per_s = rate_per_s
        self._size = size * 1000  # in thousandths: a millisecond gives `rate_per_s` of them
        self._level = self._size
        self._filled_ms = now_ms

    def has(self, amount: int, now_ms: int) -> bool:
        """Whether that much is in it by now. A clock that moved back adds nothing."""
        if now_ms > self._filled_ms:
            gained = (now_ms - self._filled_ms) * self._rate_per_s
            self._level = min(self._size, self._level + gained)
            self._filled_ms = now_ms
        return self._level >= amount * 1000

    def take(self, amount: int) -> None:
        """Take it, also if it is not there: then it is owed."""
        self._level -= amount * 1000

    def owed_ms(self, now_ms: int) -> int:
        """How long until nothing is owed."""
        return 0 if self.has(0, now_ms) else -(self._level // self._rate_per_s)


class ShardCapacity:
    """The tanks of one shard."""

    __slots__ = ("burst_bytes", "bytes_in", "bytes_out", "iterators", "reads", "records_in")

    def __init__(self, burst_bytes: int, now_ms: int) -> None:
        self.burst_bytes = burst_bytes
        self.bytes_in = Tank(SHARD_IN_BYTES_PER_S, burst_bytes, now_ms)
        self.records_in = Tank(SHARD_IN_RECORDS_PER_S, SHARD_IN_RECORDS_PER_S, now_ms)
        self.reads = Tank(SHARD_READS_PER_S, SHARD_READS_PER_S, now_ms)
        self.iterators = Tank(SHARD_ITERATORS_PER_S, SHARD_ITERATORS_PER_S, now_ms)
        # what is read is owed afterwards: the tank is full at 0 and goes below
        self.bytes_out = Tank(SHARD_OUT_BYTES_PER_S, 0, now_ms)


class Capacity:
    """The capacity of all shards. Asks a monotonic clock, so stepping wall time changes nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shards: dict[tuple[str, int], ShardCapacity] = {}

    def _of(self, stream: StreamState, shard: int, now_ms: int) -> ShardCapacity:
        found = self._shards.get((stream.uid, shard))
        large = stream.max_record_kib * 1024 > DEFAULT_MAX_RECORD_BYTES
        burst = MAX_RECORD_BYTES if large else SHARD_IN_BYTES_PER_S
        if found is None:
            found = self._shards[stream.uid, shard] = ShardCapacity(burst, now_ms)
        elif found.burst_bytes != burst:  # UpdateMaxRecordSize
            found.burst_bytes = burst
            found.bytes_in = Tank(SHARD_IN_BYTES_PER_S, burst, now_ms)
        return found

    def forget(self, uid: str) -> None:
        """A stream is gone."""
        for key in [key for key in self._shards if key[0] == uid]:
            del self._shards[key]

    def admit(
        self,
        stream: StreamState,
        shards: Sequence[ShardState],
        routes: Sequence[int],
        sizes: Sequence[int],
        *,
        in_order: bool,
        is_dry: bool = False,
    ) -> dict[int, str]:
        """Take what fits; returns the message for each record (by index) that does not.

        `routes` are indexes into `shards`, `sizes` bytes of data and key. With `in_order` (an
        idempotent producer) the first record a shard refuses takes the later ones with it: the
        log knows a producer's last sequence only, so none may overtake. `is_dry` takes nothing.
        """
        now_ms = self._clock.monotonic_ms()
        refused: dict[int, str] = {}
        stopped: set[int] = set()
        for i, (route, size) in enumerate(zip(routes, sizes, strict=True)):
            shard = shards[route]
            capacity = self._of(stream, shard.number, now_ms)
            fits = (
                capacity.bytes_in.has(size, now_ms)
                and capacity.records_in.has(1, now_ms)
                and shard.number not in stopped
            )
            if fits and not is_dry:
                capacity.bytes_in.take(size)
                capacity.records_in.take(1)
            elif not fits:
                refused[i] = _rate_exceeded(stream, shard)
                if in_order:
                    stopped.add(shard.number)
        return refused

    def check_iterator(
        self, stream: StreamState, shard: ShardState, *, is_dry: bool = False
    ) -> None:
        """Count a GetShardIterator, unless `is_dry`. Raises ThroughputExceeded for one too many."""
        now_ms = self._clock.monotonic_ms()
        tank = self._of(stream, shard.number, now_ms).iterators
        if not tank.has(1, now_ms):
            raise ThroughputExceeded(_rate_exceeded(stream, shard))
        if not is_dry:
            tank.take(1)

    def check_read(self, stream: StreamState, shard: ShardState, *, is_dry: bool = False) -> None:
        """Before a GetRecords. Raises ThroughputExceeded for one too many, or too soon.

        `is_dry` counts nothing.
        """
        now_ms = self._clock.monotonic_ms()
        capacity = self._of(stream, shard.number, now_ms)
        if not (capacity.bytes_out.has(0, now_ms) and capacity.reads.has(1, now_ms)):
            raise ThroughputExceeded(_rate_exceeded(stream, shard))
        if not is_dry:
            capacity.reads.take(1)

    def charge_read(self, stream: StreamState, shard: ShardState, size: int) -> None:
        """After a GetRecords that gave `size` bytes."""
        now_ms = self._clock.monotonic_ms()
        self._of(stream, shard.number, now_ms).bytes_out.take(size)


def subscriber_tank(now_ms: int) -> Tank:
    """What a registered consumer is sent of a shard."""
    return Tank(SHARD_OUT_BYTES_PER_S, SHARD_OUT_BYTES_PER_S, now_ms)


def metered(parts: Sequence[bytes | memoryview]) -> int:
    """Bytes read, from records as they are stored: close to what AWS counts, and known without
    looking at any record."""
    return sum(map(len, parts)) * 3 // 4


def _rate_exceeded(stream: StreamState, shard: ShardState) -> str:
    return (
        f"Rate exceeded for shard {shard.id} in stream {stream.name} under account "
        f"{stream.account}."
    )
