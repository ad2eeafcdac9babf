"""Routing against the plain definition."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core.control.stream_state import ShardState
from headrace.core.model.hashing import hash_digest, hash_key, uniform_ranges
from headrace.core.service.routing import Routing, deal, hash_routes, split


def make(shards: int) -> Routing:
    opened = [
        ShardState(n, str(r.start), str(r.end), created_s=1)
        for n, r in enumerate(uniform_ranges(shards))
    ]
    stream: Any = SimpleNamespace(version=1, shards=opened, open_shards=opened)
    return Routing(stream)


def expected(shards: int, keys: Sequence[str]) -> list[int]:
    ranges = uniform_ranges(shards)
    return [next(i for i, r in enumerate(ranges) if hash_key(key) in r) for key in keys]


# every length about the ends of a block of 64 bytes, the mark and the length that follow the key
LENGTHS = st.integers(0, 257)
KEYS = st.one_of(
    st.text(max_size=40),
    st.builds(lambda size, char: char * size, LENGTHS, st.sampled_from("a\0é😀")),
)


@given(shards=st.integers(1, 9), keys=st.lists(KEYS, max_size=40))
@example(9, ["k" * size for size in range(257)])
@example(9, ["é" * size for size in range(129)])
def test_every_key_goes_where_its_hash_says(shards: int, keys: list[str]) -> None:
    assert make(shards).route(keys, None) == expected(shards, keys)
    assert make(shards).route(tuple(keys), None) == expected(shards, keys)


def test_a_key_at_the_beginning_of_a_range_is_of_that_range() -> None:
    digests = sorted(hash_digest(str(n)) for n in range(100))
    starts = [bytes(16), *digests]
    keys = [str(n) for n in range(100)]
    assert [starts[route] for route in hash_routes(starts, keys)] == list(map(hash_digest, keys))
    before = [bytes(16), *((int.from_bytes(d, "big") + 1).to_bytes(16, "big") for d in digests)]
    for key, route in zip(keys, hash_routes(before, keys), strict=True):
        assert route == digests.index(hash_digest(key))


@given(st.lists(st.integers(0, 5), min_size=1))
@example([9999, 0, 9999])
def test_what_each_route_got_is_dealt_to_its_records(routes: list[int]) -> None:
    names = [f"{route}:{i}" for i, route in enumerate(routes)]
    parts = split(routes, (names, list(range(len(routes)))))
    assert list(parts) == list(dict.fromkeys(routes))
    for route, (named, indexes) in parts.items():
        assert indexes == [i for i, at in enumerate(routes) if at == route]
        assert named == [f"{route}:{i}" for i in indexes]
    assert deal(routes, {route: named for route, (named, _) in parts.items()}) == names
