"""Which shards an on-demand stream gets: rates in, splits and merges out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.control.machine import ControlState, apply
from headrace.core.control.on_demand import (
    MERGE_AFTER_MS,
    may_merge,
    merges,
    splits,
    target_shards,
)
from headrace.core.control.settings import BeginUpdate, FinishUpdate
from headrace.core.control.stream_state import PendingUpdate, StreamState, stream_key
from headrace.core.control.streams import ActivateStream, CreateStream
from headrace.core.limits import MIB
from headrace.core.model.hashing import MAX_HASH_KEY
from headrace.core.model.usage import Peak

WHERE: Any = {"account": "a", "region": "r", "name": "s", "uid": "u"}
START_MS = 1_790_000_000_000


class Stream:
    """One on-demand stream, as a state machine of its own."""

    def __init__(self, shards: int = 4) -> None:
        self.control = ControlState()
        self.at_ms = START_MS
        apply(self.control, CreateStream(**WHERE, at_ms=START_MS, mode="ON_DEMAND", shards=shards))
        apply(self.control, ActivateStream(**WHERE))

    @property
    def state(self) -> StreamState:
        return self.control.streams.streams[stream_key("a", "r", "s")]

    @property
    def count(self) -> int:
        return len(self.state.open_shards)

    def change(self, **pending: Any) -> None:
        self.at_ms += 1000
        update = PendingUpdate(**pending)
        apply(self.control, BeginUpdate(**WHERE, pending=update, at_ms=self.at_ms))
        apply(self.control, FinishUpdate(**WHERE, at_ms=self.at_ms))
        self.check()

    def check(self) -> None:
        """Open shards tile all hash keys; children come after their parents, which are closed."""
        at = 0
        for shard in sorted(self.state.open_shards, key=lambda s: int(s.start)):
            assert shard.range.start == at
            at = shard.range.end + 1
        assert at == MAX_HASH_KEY + 1
        known = {shard.number: shard for shard in self.state.shards}
        for shard in self.state.shards:
            for number in filter(lambda n: n is not None, (shard.parent, shard.adjacent_parent)):
                parent = known[number]  # type: ignore[index]
                assert not parent.is_open
                assert int(shard.starting_sequence_number) > int(parent.ending_sequence_number or 0)


@pytest.mark.parametrize(
    ("size", "records", "warm", "ceiling", "expected"),
    [
        (0, 0, 0, 200, 4),
        (2 * MIB, 2000, 0, 200, 4),
        (2 * MIB + 1, 0, 0, 200, 5),
        (0, 2001, 0, 200, 5),
        (10 * MIB, 100, 0, 200, 20),
        (MIB, 9_000, 0, 200, 18),
        (1000 * MIB, 0, 0, 200, 200),
        (0, 0, 7, 200, 7),
        (0, 0, 300, 200, 300),
        (10 * MIB, 0, 0, 2, 2),
    ],
)
def test_twice_the_peak_in_bytes_or_records(
    size: int, records: int, warm: int, ceiling: int, expected: int
) -> None:
    assert target_shards(Peak(size, records), warm_mibps=warm, ceiling=ceiling) == expected


def test_the_hottest_are_split_first_and_no_more_than_all_once() -> None:
    stream = Stream()
    rates = {2: Peak(700_000, 0), 1: Peak(0, 400)}
    assert [number for number, _ in splits(stream.state, rates, 6, 200)] == [2, 1]
    assert len(splits(stream.state, rates, 100, 200)) == 4
    stream.change(splits=splits(stream.state, rates, 6, 200))
    assert stream.count == 6
    # without rates the widest ones are
    assert [number for number, _ in splits(stream.state, {}, 8, 200)] == [0, 3]


def test_a_hot_shard_is_split_beyond_the_target_but_not_for_ever() -> None:
    """All records have one key: no split parts them, and it ends at twice the target."""
    stream = Stream()
    for _ in range(20):
        hot = next(s for s in stream.state.open_shards if s.range.start <= 12345 <= s.range.end)
        found = splits(stream.state, {hot.number: Peak(900_000, 0)}, 4, 200)
        if not found:
            break
        assert [number for number, _ in found] == [hot.number]
        stream.change(splits=found)
    assert stream.count == 8
    assert splits(Stream().state, {0: Peak(900_000, 0)}, 4, 4) == ()


def test_cold_neighbours_are_merged_and_hot_ones_left() -> None:
    stream = Stream(8)
    peaks = {0: Peak(500_000, 0), 1: Peak(300_000, 0), 4: Peak(10, 0)}
    found = merges(stream.state, peaks, 6)
    assert found == ((2, 3), (5, 6))
    assert len(merges(stream.state, {}, 1)) == 4
    hot = {shard.number: Peak(400_000, 0) for shard in stream.state.shards}
    assert merges(stream.state, hot, 4) == ()
    stream.change(merges=found)
    assert stream.count == 6


def test_shards_that_uneven_keys_took_are_not_given_back_while_they_are_uneven() -> None:
    stream = Stream(8)
    hot = {stream.state.open_shards[0].number: Peak(900_000, 0)}
    assert merges(stream.state, hot, 4) == ()
    assert len(merges(stream.state, hot, 3)) == 2
    assert len(merges(stream.state, {}, 4)) == 4


def test_shards_are_given_back_a_day_after_the_last_change() -> None:
    stream = Stream(8)
    assert not may_merge(stream.state, START_MS + MERGE_AFTER_MS - 1000)
    assert may_merge(stream.state, START_MS + MERGE_AFTER_MS)
    stream.change(mode="ON_DEMAND")
    assert not may_merge(stream.state, START_MS + MERGE_AFTER_MS)
    assert may_merge(stream.state, stream.at_ms + MERGE_AFTER_MS)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 60_000), st.sampled_from(["even", "skewed"])), max_size=6),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
)
def test_any_run_of_peaks_ends_at_the_target(
    shards: int, peaks: list[tuple[int, str]], ceiling: int, chance: random.Random
) -> None:
    """Steps at most double or halve, and always come to an end: at the target, or (skewed keys)
    at most at twice of it; and down again as far as nothing hot is merged."""
    stream = Stream(shards)
    for records, kind in peaks:
        target = target_shards(Peak(0, records), warm_mibps=0, ceiling=ceiling)
        for _ in range(12):
            before = stream.count
            numbers = [shard.number for shard in stream.state.open_shards]
            weights = [1 if kind == "even" else 0.01 + chance.random() ** 4 for _ in numbers]
            rates = {
                number: Peak(0, int(records * weight / sum(weights)))
                for number, weight in zip(numbers, weights, strict=True)
            }
            up = splits(stream.state, rates, target, ceiling)
            if up:
                stream.change(splits=up)
                assert before < stream.count <= min(2 * before, max(target, 2 * target))
                continue
            down = merges(stream.state, {}, target)
            if not down:
                break
            assert kind == "skewed" or len(down) <= before // 2
            stream.change(merges=down)
            assert before > stream.count >= max(target, before // 2)
        if kind == "even" and records <= 750 * target:
            assert stream.count == target
