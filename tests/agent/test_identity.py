"""Heads and marks: what tells one file from another."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.agent.identity import HEAD_BYTES, Head, Mark, new_identity
from headrace.agent.positions import NEWEST_MARKS, Position

CONTENT = st.binary(max_size=6000).map(lambda data: data.replace(b"\0", b"1"))


@given(data=CONTENT, more=CONTENT)
@example(data=b"x" * HEAD_BYTES, more=b"y")
def test_a_file_that_grows_keeps_its_head(data: bytes, more: bytes) -> None:
    head = Head.of(data)
    assert head.length == min(len(data), HEAD_BYTES)
    assert head.begins(data + more)
    assert head.common(data + more) == (head.length if data + more else 0)


@given(data=CONTENT, cut=st.integers(0, 6000))
def test_a_copy_under_way_has_at_least_half_in_common(data: bytes, cut: int) -> None:
    part = data[:cut]
    common = Head.of(data).common(part)
    assert common * 2 >= min(len(part), HEAD_BYTES)
    assert common <= len(part)


@given(data=CONTENT.filter(bool), at=st.integers(0, 5999))
def test_a_changed_byte_is_seen(data: bytes, at: int) -> None:
    at %= min(len(data), HEAD_BYTES)
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert not Head.of(data).begins(changed)
    assert Head.of(data).common(changed) == -1


def test_space_set_aside_is_no_part_of_the_head() -> None:
    head = Head.of(b"one\n" + bytes(100))
    assert head.length == 4
    assert head.begins(b"one\ntwo\n")


@given(data=st.binary(min_size=1, max_size=10_000), offset=st.integers(0, 10_000))
def test_a_mark_holds_only_where_its_bytes_stand(data: bytes, offset: int) -> None:
    offset = min(offset, len(data))
    mark = Mark.at(offset, data[:offset])
    assert mark.holds(data[mark.start : mark.offset])
    assert not mark.holds(data[mark.start : mark.offset] + b"x")
    if offset:
        assert not mark.holds(data[mark.start : mark.offset - 1])


def test_identities_are_short_and_differ() -> None:
    identities = {new_identity() for _ in range(1000)}
    assert len(identities) == 1000
    assert {len(identity) for identity in identities} == {16}


@given(steps=st.lists(st.integers(1, 10**9), min_size=1, max_size=300))
def test_few_marks_are_kept_but_one_is_near_below_any_length(steps: list[int]) -> None:
    position = Position(identity="i", stream="s", home="/x", path="/x", device=1, inode=1)
    offset = first = steps[0]
    for step in steps:
        if offset != first or position.offset:
            offset += step
        position.advance(offset, Mark(offset, b""), line_start=None)
    marks = [mark.offset for mark in position.marks]
    assert marks == sorted(marks)
    assert marks[0] == first
    assert marks[-1] == offset
    assert len(marks) <= NEWEST_MARKS + 24


def test_no_mark_is_kept_twice() -> None:
    position = Position(identity="i", stream="s", home="/x", path="/x", device=1, inode=1)
    for offset in range(100, 2000, 100):
        position.advance(offset, Mark(offset, b""), line_start=None)
        offsets = [mark.offset for mark in position.marks]
        assert len(offsets) == len(set(offsets))
