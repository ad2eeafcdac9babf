"""Sequence numbers: composed, read and compared."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core.model.sequence import (
    MAX_FRAME_RECORDS,
    STEP,
    Position,
    SequenceNumber,
    compose,
    ending,
    parse,
    run,
    starting,
)

SECONDS = st.integers(1_000_000_000, 2**33)
POSITIONS = st.builds(Position, st.integers(1, 2**45), st.integers(0, MAX_FRAME_RECORDS - 1))
SHARDS = st.integers(0, 2**32 - 1)


@given(SECONDS, POSITIONS, SECONDS, SHARDS)
def test_there_and_back(created_s: int, at: Position, arrival_s: int, shard: int) -> None:
    text = str(compose(created_s, at.record_index, arrival_s, shard))
    assert len(text) == 56
    assert parse(text) == SequenceNumber(created_s, at, arrival_s, shard)


@given(SECONDS, st.lists(POSITIONS, min_size=2, max_size=2), SHARDS)
def test_numbers_order_as_positions_do(created_s: int, both: list[Position], shard: int) -> None:
    one, other = sorted(both)
    first, second = (compose(created_s, at.record_index, created_s, shard) for at in (one, other))
    assert first <= second
    assert starting(created_s, shard) < first
    assert second < ending(created_s, shard, created_s)
    assert ending(created_s, shard, created_s + 9) < starting(created_s + 1, shard + 1 & 0xFFFF)


@given(SECONDS, POSITIONS, SHARDS, st.integers(1, 500))
@example(1_790_000_000, Position(1, 0), 0, MAX_FRAME_RECORDS)
def test_a_run_is_every_number_of_it(created_s: int, at: Position, shard: int, count: int) -> None:
    count = min(count, MAX_FRAME_RECORDS - at.ordinal)
    first = compose(created_s, at.record_index, created_s, shard)
    assert run(first, count) == [str(first + i * STEP) for i in range(count)]


@given(POSITIONS)
@example(Position(5, MAX_FRAME_RECORDS - 1))
def test_after_a_record_is_before_the_next(at: Position) -> None:
    """After the last record of a full frame the ordinal has no bits left."""
    assert (
        at < at.after() <= Position(at.frame_no, MAX_FRAME_RECORDS) < Position(at.frame_no + 1, 0)
    )
    assert at.record_index < at.after().record_index <= Position(at.frame_no + 1, 0).record_index


@given(st.text(max_size=60) | st.integers(0, 2**200).map(str))
def test_anything_else_is_none_or_itself(text: str) -> None:
    found = parse(text)
    if found is not None:
        again = compose(found.created_s, found.position.record_index, found.arrival_s, found.shard)
        assert again & ~(0xFF << 72) == int(text) & ~(0xFF << 72)
