"""The figures by themselves: how records are measured, rounded and added up."""

from __future__ import annotations

import random
from base64 import b64encode
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.core.log.rendering import quote_keys, render
from headrace.core.model.payload import EXACT_RECORDS, payload_bytes
from headrace.core.model.usage import (
    Counts,
    Peak,
    StreamCounts,
    billed_units,
    extent_of,
    merge,
)
from headrace.core.service.peaks import PEAK_HOURS, Minute, PeakWindow, total

KEYS = st.one_of(st.text(max_size=9), st.sampled_from(["", "k", "k" * 256, "é" * 256, "😀" * 256]))
SIZES = st.one_of(
    st.integers(0, 60_000), st.sampled_from([0, 1, 768, 1023, 1024, 25_344, 25_599, 25_600])
)


@settings(max_examples=100)
@given(st.lists(st.tuples(SIZES, KEYS), min_size=1, max_size=20), st.booleans())
@example([(1023, "k"), (1023, "k")], False)
@example([(0, "")], False)
@example([(1024, "k"), (1024, "l")], False)
@example([(1024, "k"), (1024, "")], False)
def test_units_are_rounded_up_record_by_record(
    records: list[tuple[int, str]], is_uniform: bool
) -> None:
    sizes = [records[0][0] if is_uniform else size for size, _ in records]
    keys = [key.encode(errors="ignore").decode() for _, key in records]
    payloads = [size + len(key.encode()) for size, key in zip(sizes, keys, strict=True)]
    expected = tuple(sum(max(-(-p // unit), 1) for p in payloads) for unit in (25_600, 1024))
    extent = extent_of(sizes, keys)
    assert billed_units(sizes, keys, extent) == expected
    assert extent.largest == max(sizes)
    assert extent.key_bytes == sum(len(key.encode()) for key in keys)
    assert (extent.records, extent.payload_bytes) == (len(sizes), sum(payloads))
    # a part of a put is measured by the extent of the whole
    half = len(sizes) // 2
    if half:
        some = tuple(sum(max(-(-p // unit), 1) for p in payloads[:half]) for unit in (25_600, 1024))
        assert billed_units(sizes[:half], keys[:half], extent) == some


def rendered(records: list[tuple[bytes, str]], encrypted: bool = False) -> list[bytes]:
    data = [b64encode(one).decode() for one, _ in records]
    numbers = [f"{i:056d}" for i in range(len(records))]
    keys = quote_keys([key for _, key in records])
    objects, ends = render(numbers, 1_790_000_000_123, data, keys, encrypted)
    return [objects[start + 1 : end] for start, end in pairwise([-1, *ends])]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    st.lists(st.tuples(st.binary(max_size=20), TEXT), min_size=1, max_size=EXACT_RECORDS),
    st.integers(0, EXACT_RECORDS),
    st.booleans(),
)
@example([(b"", '"PartitionKey":"'), (b"", '","SequenceNumber":"')], 1, False)
@example([(b"", '{"ApproximateArrivalTimestamp":'), (b"", '"}')], 0, True)
def test_what_a_few_stored_records_hold_is_exact(
    records: list[tuple[bytes, str]], cut: int, encrypted: bool
) -> None:
    stored = rendered(records, encrypted)
    parts = [b",".join(part) for part in (stored[:cut], stored[cut:]) if part]
    expected = sum(len(data) + len(key.encode()) for data, key in records)
    assert payload_bytes(parts, len(records)) == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0, 1, 150, 4000])
def test_what_many_hold_is_exact_if_they_are_alike_and_close_if_not(seed: int, spread: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(EXACT_RECORDS + 1, 1000)
    records = [
        (b"x" * (120 + chance.randint(0, spread)), f"key {i if spread else 7}")
        for i in range(count)
    ]
    stored = rendered(records)
    edges = sorted({0, count, *(chance.randint(1, count) for _ in range(chance.randint(0, 40)))})
    parts = [b",".join(stored[a:b]) for a, b in pairwise(edges)]
    expected = sum(len(one) + len(key) for one, key in records)
    assert abs(payload_bytes(parts, count) - expected) <= (expected // 100 if spread else 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 3 * PEAK_HOURS), st.integers(0, 50), st.integers(0, 50)),
        max_size=60,
    )
)
def test_the_peak_of_thirty_days(rates: list[tuple[int, int, int]]) -> None:
    rates.sort(key=lambda one: one[0])
    window = PeakWindow()
    for i, (hour, size, records) in enumerate(rates):
        window.add(hour, Peak(size, records))
        recent = [one for one in rates[: i + 1] if one[0] > hour - PEAK_HOURS]
        expected = Peak(max(one[1] for one in recent), max(one[2] for one in recent))
        assert window.at(hour) == expected
    if rates:
        assert window.at(rates[-1][0] + PEAK_HOURS) == Peak()


def test_a_wall_clock_that_was_set_back_hides_no_peak() -> None:
    window = PeakWindow([(1000, Peak(5, 5))])
    window.add(900, Peak(9, 1))
    assert window.at(900) == window.at(1000) == Peak(9, 5)


def test_what_is_refused_counts_as_demand_up_to_what_was_taken() -> None:
    minute = Minute()
    taken = Counts(bytes_in=600, records_in=60, throttled_records=30, throttled_bytes=300)
    minute.add({("u", 1): taken, ("u", 2): Counts(gets=5)})
    minute.add({("u", 1): Counts(throttled_records=600, throttled_bytes=6000)})
    rates = minute.rates(6_000)
    assert rates == {"u": {1: Peak(200, 20)}}
    assert total(rates["u"].values()) == Peak(200, 20)


def test_merging_adds_takes_the_greater_and_takes_what_was_last_seen() -> None:
    one = StreamCounts(bytes_in=1, iterator_age_ms=9, shards=4, stored_bytes=7, mode="ON_DEMAND")
    merge(one, StreamCounts(bytes_in=2, iterator_age_ms=3, shards=8, shard_seconds=1.5))
    assert (one.bytes_in, one.iterator_age_ms, one.shards, one.stored_bytes) == (3, 9, 8, 7)
    merge(one, StreamCounts(stored_bytes=2, mode="PROVISIONED"))
    assert (one.stored_bytes, one.mode, one.shard_seconds) == (2, "PROVISIONED", 1.5)
    merge(one, Counts(bytes_in=10, peak_bytes_per_s=5))
    assert (one.bytes_in, one.peak_bytes_per_s, one.mode) == (13, 5, "PROVISIONED")


@pytest.mark.parametrize("kind", [Counts, StreamCounts])
def test_counts_begin_at_nothing(kind: type[msgspec.Struct]) -> None:
    assert not any(msgspec.structs.astuple(kind()))
