"""Routing, its memory of keys included, against the plain definition."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.control.stream_state import ShardState
from headrace.core.model.hashing import hash_key, uniform_ranges
from headrace.core.service import routing
from headrace.core.service.routing import Routing, by_route, deal


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


@given(
    shards=st.integers(1, 9),
    batches=st.lists(
        st.lists(st.one_of(st.sampled_from("abcdefgh"), st.text(min_size=1)), min_size=1),
        max_size=80,
    ),
)
def test_every_key_goes_where_its_hash_says_however_often_it_comes(
    shards: int, batches: list[list[str]]
) -> None:
    table = make(shards)
    for keys in batches:
        assert table.route(keys, None) == expected(shards, keys)


def test_the_memory_of_keys_is_bounded_and_used_for_keys_that_come_again() -> None:
    table = make(4)
    hosts = [f"host-{n}" for n in range(300)]
    for _ in range(200):
        assert table.route(hosts, None) == expected(4, hosts)
    assert len(table._known) == 300
    for n in range(0, 70 * 500, 500):  # new keys only: most batches are not even looked up
        table.route([f"uuid-{i}" for i in range(n, n + 500)], None)
    assert len(table._known) <= routing.MAX_KNOWN_KEYS
    for n in range(0, 10_000, 3):
        table.route([f"one-{n}"], None)
    assert len(table._known) <= routing.MAX_KNOWN_KEYS


def test_all_streams_together_remember_a_bounded_number_of_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Routing._known_of_all
    monkeypatch.setattr(routing, "MAX_KNOWN_KEYS_OF_ALL", before + 1000)
    tables = [make(4) for _ in range(5)]
    for n, table in enumerate(tables):
        keys = [f"host-{n}-{i}" for i in range(300)]
        for _ in range(3):
            assert table.route(keys, None) == expected(4, keys)
    assert sum(len(table._known) for table in tables) <= 1000
    assert Routing._known_of_all - before == sum(len(table._known) for table in tables)
    del table, tables
    gc.collect()
    assert Routing._known_of_all == before


@given(st.lists(st.integers(0, 5)))
def test_what_each_group_got_is_dealt_to_its_records(routes: list[int]) -> None:
    groups = by_route(routes)
    hands = [[f"{route}:{i}" for i in indexes] for route, indexes in groups.items()]
    assert deal(groups, hands, len(routes)) == [f"{r}:{i}" for i, r in enumerate(routes)]
