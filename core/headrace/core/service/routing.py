"""Routing: from partition keys to shards, a batch at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.model.hashing import hash_digest, md5
from headrace.core.speedups import compiled

T = TypeVar("T")
Columns = TypeVar("Columns", bound=tuple[list[Any], ...])


class Routing:
    """Which open shard a hash key belongs to. Made anew with every change of the shards."""

    def __init__(self, stream: StreamState) -> None:
        self.version = stream.version
        self.by_number = {shard.number: shard for shard in stream.shards}
        self.shards: list[ShardState] = sorted(stream.open_shards, key=lambda s: int(s.start))
        self.ids = [shard.id for shard in self.shards]
        self._starts = [int(shard.start).to_bytes(16, "big") for shard in self.shards]

    def route(self, keys: Sequence[str], explicit: Sequence[str | None] | None) -> list[int]:
        """Index into `shards` for each partition key; an explicit hash key goes first.

        Explicit hash keys are valid decimal numbers below 2^128.
        """
        starts = self._starts
        if explicit is None:
            if len(starts) == 1:
                return [0] * len(keys)
            return hash_routes(starts, keys)
        return [
            bisect_right(
                starts, hash_digest(key) if given is None else int(given).to_bytes(16, "big")
            )
            - 1
            for key, given in zip(keys, explicit, strict=True)
        ]

    def route_one(self, key: str, explicit: str | None) -> int:
        """As `route`, of one record."""
        starts = self._starts
        if len(starts) == 1:
            return 0
        digest = hash_digest(key) if explicit is None else int(explicit).to_bytes(16, "big")
        return bisect_right(starts, digest) - 1


@compiled
def hash_routes(starts: list[bytes], keys: Sequence[str], /) -> list[int]:
    """For each partition key, which of the ranges that begin at `starts` its hash key is in.

    `starts` are hash keys as `hash_digest` gives them, in order.
    """
    # hash_digest written out: a call per record would cost a tenth of a put
    return [bisect_right(starts, md5(key.encode()).digest()) - 1 for key in keys]


@compiled
def split(routes: list[int], columns: Columns, /) -> dict[int, Columns]:
    """What there is of each column along each route, in order; `columns` are by record."""
    parts: dict[int, Columns] = {}
    for i, route in enumerate(routes):
        part = parts.get(route)
        if part is None:
            part = parts[route] = cast("Columns", tuple([] for _ in columns))
        for things, column in zip(part, columns, strict=True):
            things.append(column[i])
    return parts


@compiled
def deal(routes: list[int], hands: dict[int, list[T]], /) -> list[T]:
    """What each record got; `hands` has what the records of each route got, in order."""
    cards = {route: iter(hand) for route, hand in hands.items()}
    return [next(cards[route]) for route in routes]
