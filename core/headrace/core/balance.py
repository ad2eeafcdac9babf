"""Which leases a worker takes: pure decisions on what it has seen.

Owns two rules. A lease is *free* when nobody owns it or its owner's heartbeat has stood still for
the lease duration on this worker's own monotonic clock; no two machines' clocks are compared.
And shares are even: each live worker aims for ceil(leases / workers); one that has less and finds
nothing free takes a single lease from the one that has most, if that one has at least two more.
With less of a difference taking would only turn it round, and leases would wander for ever.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from headrace.core.model.leases import Lease


@dataclass(slots=True)
class Seen:
    """What stood still since when: heartbeats by owner, ownerless counters by shard."""

    lease_duration_ms: int
    _heartbeats: dict[str, tuple[int, int]] = field(default_factory=dict)
    _free: dict[str, tuple[int, int]] = field(default_factory=dict)

    def look(self, leases: Sequence[Lease], now_ms: int) -> None:
        """Take note of a list that was complete at `now_ms` (monotonic).

        Note the time when the list has *arrived*: the owner's beat was before that, so its
        lease duration, which it counts from before the beat, is over no later than ours.
        """
        heartbeats = {lease.owner: lease.heartbeat for lease in leases if lease.owner}
        self._heartbeats = {
            owner: _since(self._heartbeats.get(owner), heartbeat, now_ms)
            for owner, heartbeat in heartbeats.items()
        }
        self._free = {
            lease.shard_id: _since(self._free.get(lease.shard_id), lease.counter, now_ms)
            for lease in leases
            if not lease.is_finished and self.is_free(lease, now_ms)
        }

    def is_free(self, lease: Lease, now_ms: int) -> bool:
        if lease.owner is None:
            return True
        _, since_ms = self._heartbeats.get(lease.owner, (lease.heartbeat, now_ms))
        return now_ms - since_ms >= self.lease_duration_ms

    def is_left_lying(self, lease: Lease, now_ms: int) -> bool:
        """Free for so long that nobody with room for it can be there."""
        _, since_ms = self._free.get(lease.shard_id, (lease.counter, now_ms))
        return now_ms - since_ms >= self.lease_duration_ms


def _since(before: tuple[int, int] | None, value: int, now_ms: int) -> tuple[int, int]:
    return before if before is not None and before[0] == value else (value, now_ms)


def is_ready(lease: Lease, by_id: dict[str, Lease]) -> bool:
    """Whether it may be worked on: unfinished, and every parent finished or unknown."""
    return not lease.is_finished and all(
        parent not in by_id or by_id[parent].is_finished for parent in lease.parents
    )


def choose(
    leases: Sequence[Lease],
    seen: Seen,
    *,
    worker: str,
    held: Collection[str],
    busy: Collection[str] = (),
    now_ms: int,
    max_leases: int | None = None,
) -> list[Lease]:
    """The leases `worker` should take now, in this order.

    Args:
        held: shards it works on; `busy`: shards whose last work here has not ended yet.
        max_leases: never hold more.
    """
    by_id = {lease.shard_id: lease for lease in leases}
    ready = [lease for lease in leases if is_ready(lease, by_id)]
    mine = [lease for lease in ready if lease.owner == worker]
    free = [lease for lease in ready if lease.owner != worker and seen.is_free(lease, now_ms)]
    others = Counter(
        lease.owner
        for lease in ready
        if lease.owner not in (None, worker) and not seen.is_free(lease, now_ms)
    )
    room = len(ready) if max_leases is None else max_leases
    room -= len(held) + len(busy)

    # its own from before a restart: nobody else may have them, so they wait for nobody
    chosen = [lease for lease in mine if lease.shard_id not in held and lease.shard_id not in busy]
    chosen = chosen[: max(room, 0)]

    target = -(-len(ready) // (len(others) + 1))
    # by a hash that differs between workers: starting together they reach for different ones
    free.sort(key=lambda lease: _order(worker, lease.shard_id))
    for lease in free:
        if len(chosen) >= room:
            break
        if lease.shard_id in busy:
            continue
        if len(held) + len(chosen) < target or seen.is_left_lying(lease, now_ms):
            chosen.append(lease)

    count = len(held) + len(chosen)
    if not free and others and not chosen and count < target and room > 0:
        most, most_count = max(others.items(), key=lambda item: (item[1], item[0] or ""))
        if most_count - count > 1:
            theirs = [
                lease for lease in ready if lease.owner == most and lease.shard_id not in busy
            ]
            theirs.sort(key=lambda lease: _order(worker, lease.shard_id))
            chosen += theirs[:1]
    return chosen


def _order(worker: str, shard_id: str) -> bytes:
    return hashlib.blake2b(f"{worker}\0{shard_id}".encode(), digest_size=8).digest()
