"""How many shards an on-demand stream should have, and which to split or merge for it.

Pure: rates in, shards out. At AWS an on-demand stream takes up to twice the peak of the last 30
days, and a shard that takes more than half of what it can is split within 15 minutes. Here:

* the target is the shards it takes for twice the peak, in bytes or in records, whichever is more;
  never below four, nor below the warm throughput asked for;
* the hottest shards are split first, each in the middle, and at most doubles the number of shards
  at a time;
* a shard that takes more than three quarters of what it can is split beyond the target, up to
  twice of it: keys are unevenly spread then, and a split may part them (or not: one key stays in
  one shard). Not from half on, as AWS: half is what all shards take at the peak;
* shards above the target (twice of it, if one of them was that hot in the last 30 days) are merged
  with their neighbours, the coldest pairs first, at most half of them at a time, and never into
  one that would have been hot in the last 30 days.

A minute decides about splitting; merging waits until nothing has changed for a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.limits import (
    ON_DEMAND_SHARDS,
    SHARD_IN_BYTES_PER_S,
    SHARD_IN_RECORDS_PER_S,
)
from headrace.core.model.usage import Peak

HOT = 0.75  # of what a shard can take
HEADROOM = 2  # on-demand mode, developer guide: "double the peak write throughput"
MERGE_AFTER_MS = 24 * 3600 * 1000  # since the stream's shards or its mode last changed
_MIN_KEYS = 4  # a shard of fewer hash keys cannot be split


def target_shards(peak: Peak, *, warm_mibps: int, ceiling: int) -> int:
    """Open shards for that peak. Warm throughput was asked for, so the ceiling is not for it."""
    wanted = max(
        -(-HEADROOM * peak.bytes_per_s // SHARD_IN_BYTES_PER_S),
        -(-HEADROOM * peak.records_per_s // SHARD_IN_RECORDS_PER_S),
        ON_DEMAND_SHARDS,
    )
    return max(min(wanted, ceiling), warm_mibps)


def splits(
    stream: StreamState, rates: Mapping[int, Peak], target: int, ceiling: int
) -> tuple[tuple[int, str], ...]:
    """Shards to split now and the hash keys to split them at. `rates` are of the last minute."""
    shards = sorted(
        (s for s in stream.open_shards if int(s.end) - int(s.start) >= _MIN_KEYS),
        key=lambda s: (-_heat(rates.get(s.number)), int(s.start) - int(s.end), s.number),
    )
    count = len(stream.open_shards)
    hot = sum(_heat(rates.get(s.number)) > HOT for s in shards)
    most = max(target, min(ceiling, HEADROOM * target, count + hot))
    return tuple((s.number, str(_middle(s))) for s in shards[: max(most - count, 0)])


def merges(
    stream: StreamState, peaks: Mapping[int, Peak], target: int
) -> tuple[tuple[int, int], ...]:
    """Pairs of neighbours to merge now. `peaks` are of the last 30 days."""
    shards = sorted(stream.open_shards, key=lambda s: int(s.start))
    if any(_heat(peaks.get(shard.number)) > HOT for shard in shards):
        target *= HEADROOM  # as far as uneven keys may take it: else it would split them again
    pairs = [
        (_heat(peaks.get(one.number)) + _heat(peaks.get(other.number)), i)
        for i, (one, other) in enumerate(pairwise(shards))
    ]
    chosen: set[int] = set()
    wanted = min(len(shards) - target, len(shards) // 2)
    for heat, i in sorted(pairs):
        if len(chosen) >= wanted or heat > 1 / HEADROOM:
            break
        if not chosen & {i - 1, i, i + 1}:
            chosen.add(i)
    return tuple((shards[i].number, shards[i + 1].number) for i in sorted(chosen))


def may_merge(stream: StreamState, now_ms: int) -> bool:
    """Whether nothing about the stream's shards and mode has changed for a day."""
    latest_ms = max(shard.created_s * 1000 for shard in stream.open_shards)
    latest_ms = max(latest_ms, *stream.changes_ms.get("mode", [0]))
    return now_ms - latest_ms >= MERGE_AFTER_MS


def _heat(rate: Peak | None) -> float:
    """Of what a shard can take, how much."""
    if rate is None:
        return 0.0
    return max(rate.bytes_per_s / SHARD_IN_BYTES_PER_S, rate.records_per_s / SHARD_IN_RECORDS_PER_S)


def _middle(shard: ShardState) -> int:
    return (int(shard.start) + int(shard.end) + 1) // 2
