"""UpdateShardCount: from the shards there are to so many of equal size, by splits and merges.

How AWS goes about it is not documented beyond "splits or merges on individual shards" and "shards
of equal size". What has been seen of it, and holds here:

| from | to | shards left in the listing, open and closed |
|------|----|---------------------------------------------|
| 4    | 5  | 15                                          |
| 4    | 3  | 11, the open ones being 6, 9 and 10         |
| 10   | 13 | 37                                          |
| 10   | 3  | 17                                          |
| 5    | 3  | 7                                           |

The first two are what it takes to cut at every border of equal shards and merge what lies between
two. The others are less than that: borders that are nearly right already are left where they are.
How near is not the same both ways. To more shards, AWS leaves a border that is wrong by a tenth of
the new size and moves one that is by a fifth: an eighth is taken here. To fewer, it leaves a fifth
and moves a quarter: two ninths are taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.model.hashing import MAX_HASH_KEY


def scale(stream: StreamState, target: int, at_ms: int) -> None:
    """Bring the stream to `target` >= 1 open shards, nearly equal in size.

    Shards in between are opened and closed within this one step: no record ever goes to them.
    """
    sweep = _Sweep(stream, at_ms)
    shards = sorted(stream.open_shards, key=lambda shard: int(shard.start), reverse=True)
    ends = list(borders(stream, target))
    for i, border in enumerate(ends):
        group: list[ShardState] = []  # what becomes one shard, ending before `border`
        while shards and shards[-1].range.end < border:
            group.append(shards.pop())
        if shards and shards[-1].range.start < border:
            whole = shards.pop()
            inside = bisect_left(ends, whole.range.end, i)
            below, *above = sweep.cut(whole, ends[i:inside])
            group.append(below)
            shards += reversed(above)
        while len(group) > 1:  # in pairs, so that generations are few
            pairs = [
                sweep.merge(one, other) for one, other in zip(group[::2], group[1::2], strict=False)
            ]
            group = pairs + group[len(pairs) * 2 :]
    stream.version += 1


def borders(stream: StreamState, target: int) -> Iterator[int]:
    """Where the `target` shards end, exclusively: an old border where one is close, else anew."""
    whole = MAX_HASH_KEY + 1
    starts = sorted(int(shard.start) for shard in stream.open_shards)
    tolerance = whole // target * 2 // 9 if target < len(starts) else whole // target // 8
    for i in range(1, target):
        ideal = i * whole // target
        at = bisect_left(starts, ideal)
        nearest = min(starts[max(at - 1, 0) : at + 1], key=lambda start: abs(start - ideal))
        yield nearest if abs(nearest - ideal) <= tolerance else ideal
    yield whole


class _Sweep:
    """Splits and merges of one stream at one time."""

    def __init__(self, stream: StreamState, at_ms: int) -> None:
        self._shards = stream.shards
        self._at_s = at_ms // 1000
        self._next = max(shard.number for shard in stream.shards) + 1

    def cut(self, shard: ShardState, at: list[int]) -> list[ShardState]:
        """The pieces of a shard cut at these keys, halving, so that generations are few."""
        if not at:
            return [shard]
        middle = len(at) // 2
        below, above = self._split(shard, at[middle])
        return self.cut(below, at[:middle]) + self.cut(above, at[middle + 1 :])

    def _split(self, parent: ShardState, at: int) -> tuple[ShardState, ShardState]:
        whole = parent.range
        created_s = self._close(parent)
        return (
            self._open(whole.start, at - 1, created_s, parent.number),
            self._open(at, whole.end, created_s, parent.number),
        )

    def merge(self, one: ShardState, other: ShardState) -> ShardState:
        created_s = self._close(one, other)
        return self._open(one.range.start, other.range.end, created_s, one.number, other.number)

    def _close(self, *parents: ShardState) -> int:
        """Close the parents; when their children begin, which is a later second than they did."""
        latest_s = max(parent.created_s for parent in parents)
        for parent in parents:
            # not before either began, see `streams.merge`
            parent.closed_s = max(self._at_s, latest_s)
        return max(self._at_s, latest_s + 1)

    def _open(
        self, start: int, end: int, created_s: int, parent: int, adjacent: int | None = None
    ) -> ShardState:
        shard = ShardState(
            number=self._next,
            start=str(start),
            end=str(end),
            created_s=created_s,
            parent=parent,
            adjacent_parent=adjacent,
        )
        self._next += 1
        self._shards.append(shard)
        return shard
