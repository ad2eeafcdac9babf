"""Routing: from partition keys to shards, a batch at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.model.hashing import hash_digest, md5

MAX_KNOWN_KEYS = 10_000  # of one stream: about 1.5 MB, and half as much again if not ASCII
MAX_KNOWN_KEYS_OF_ALL = 200_000
_BATCHES_UNLOOKED = 63


class Routing:
    """Which open shard a hash key belongs to. Made anew with every change of the shards.

    Partition keys that come again (hosts, devices, files) are remembered: hashing is the dearest
    part of routing. While most keys are new ones (UUIDs), only every 64th batch is looked up.
    """

    _known_of_all = 0

    def __init__(self, stream: StreamState) -> None:
        self._known: dict[str, int] = {}
        self.version = stream.version
        self.by_number = {shard.number: shard for shard in stream.shards}
        self.shards: list[ShardState] = sorted(stream.open_shards, key=lambda s: int(s.start))
        self._starts = [int(shard.start).to_bytes(16, "big") for shard in self.shards]
        self._unlooked = 0  # batches to go without looking up

    def route(self, keys: Sequence[str], explicit: Sequence[str | None] | None) -> list[int]:
        """Index into `shards` for each partition key; an explicit hash key goes first.

        Explicit hash keys are valid decimal numbers below 2^128.
        """
        starts = self._starts
        if explicit is None:
            if len(starts) == 1:
                return [0] * len(keys)
            return self._hashed(keys) if self._unlooked else self._looked_up(keys)
        return [
            bisect_right(
                starts, hash_digest(key) if given is None else int(given).to_bytes(16, "big")
            )
            - 1
            for key, given in zip(keys, explicit, strict=True)
        ]

    def _hashed(self, keys: Sequence[str]) -> list[int]:
        self._unlooked -= 1
        starts = self._starts
        # hash_digest written out: a call per record would cost a tenth of a put
        return [bisect_right(starts, md5(key.encode()).digest()) - 1 for key in keys]

    def __del__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        Routing._known_of_all -= len(self._known)
        self._known.clear()

    def _looked_up(self, keys: Sequence[str]) -> list[int]:
        known, starts = self._known, self._starts
        found = list(map(known.get, keys))
        missing = found.count(None)
        if missing:
            if len(known) + missing > MAX_KNOWN_KEYS:
                self._forget()
            if Routing._known_of_all + missing > MAX_KNOWN_KEYS_OF_ALL:
                self._forget()
                self._unlooked = _BATCHES_UNLOOKED + 1
                return self._hashed(keys)
            before = len(known)
            if missing * 2 > len(keys) > 1:
                self._unlooked = _BATCHES_UNLOOKED
            for i, route in enumerate(found):
                if route is None:
                    key = keys[i]
                    found[i] = known[key] = bisect_right(starts, md5(key.encode()).digest()) - 1
            Routing._known_of_all += len(known) - before
        return cast("list[int]", found)


def by_route(routes: Sequence[int]) -> dict[int, list[int]]:
    """Indexes of the records of each route, in order."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for i, route in enumerate(routes):
        groups[route].append(i)
    return groups


def deal(groups: dict[int, list[int]], hands: list[list[str]], count: int) -> list[str]:
    """What each of `count` records got; `hands` has what the records of each group got."""
    dealt = [""] * count
    for indexes, hand in zip(groups.values(), hands, strict=True):
        for i, card in zip(indexes, hand, strict=True):
            dealt[i] = card
    return dealt
