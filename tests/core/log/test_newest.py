"""Readers at the tail are served from memory, and see what they would see on the disk."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.log.newest import MAX_KEPT_BYTES, MAX_KEPT_FRAMES
from headrace.core.log.reading import Slice
from headrace.core.model.sequence import BEGINNING, Position
from log_harness import Driver, Stored, read

# windows of puts: each is a shard, and how many records of how many bytes go into it
puts = st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from([0, 1, 40, 7_000]))
windows = st.lists(st.lists(puts, min_size=1, max_size=4), min_size=1, max_size=5)


def contents(found: Slice) -> tuple[bytes, int, Position, int | None, bool]:
    """A slice whatever the pieces it comes in."""
    joined = b",".join(found.parts)
    return joined, found.records, found.next, found.next_arrival_ms, found.missed


@given(
    written=windows,
    segment_bytes=st.sampled_from([1_000, 1 << 20]),
    floor_frame=st.integers(0, 9),
    limit=st.integers(1, 5),
    max_bytes=st.sampled_from([1, 200, 1 << 20]),
)
def test_memory_says_what_the_disk_says(
    written: list[list[tuple[int, int, int]]],
    segment_bytes: int,
    floor_frame: int,
    limit: int,
    max_bytes: int,
) -> None:
    with TemporaryDirectory() as folder:
        driver = Driver(Path(folder) / "log", segment_bytes=segment_bytes)
        for window in written:
            for shard, count, size in window:
                driver.append(shard, [bytes(size)] * count)
            driver.commit()
            driver.now_ms += 1
        driver.append(0, [b"in flight"])  # nobody is to see it
        snapshot = driver.log.snapshot()
        on_disk = snapshot._replace(newest=None)
        floor = Position(floor_frame, 0) if floor_frame else BEGINNING
        places = [BEGINNING] + [
            Position(frame, ordinal)
            for frame in range(1, snapshot.tail.frame_no + 2)
            for ordinal in (0, 1, 3)
        ]
        room: dict[str, Any] = {"floor": floor, "max_records": limit, "max_bytes": max_bytes}
        for shard, place in product(range(4), places):
            found, expected = (s.read(shard, place, **room) for s in (snapshot, on_disk))
            assert contents(found) == contents(expected), (shard, place)
        driver.log.close()


def test_a_reader_at_the_tail_asks_nothing_of_the_disk(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    driver.put(0, [b"before"])
    tail = driver.log.tail
    (number,) = driver.put(0, [b"new"])
    log = driver.log
    (segment,) = (tmp_path / "log").glob("*.seg")
    segment.write_bytes(b"")  # the disk has nothing to say
    new = Stored(b"new", "k", int(number), driver.now_ms)
    assert read(log, 0, tail) == ([new], log.tail)
    assert read(log, 1, tail) == ([], log.tail)
    assert read(log, 0, log.tail) == ([], log.tail)


def test_what_has_been_trimmed_is_not_read_from_memory_either(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log", segment_bytes=300)
    for _ in range(3):
        before = driver.log.tail
        driver.put(0, [bytes(300)])
    assert driver.log.snapshot().newest is not None
    assert len(read(driver.log, 0, before)[0]) == 1
    assert driver.log.trim(driver.now_ms + 1) == 3
    assert read(driver.log, 0, before) == ([], driver.log.tail)
    driver.log.close()


def test_a_large_window_is_not_kept_nor_a_small_one_of_a_quiet_stream(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    driver.put(0, [b"small"])
    assert driver.log.snapshot().newest is not None
    driver.log.release()
    assert driver.log.snapshot().newest is None
    driver.put(0, [bytes(MAX_KEPT_BYTES)])
    assert driver.log.snapshot().newest is None
    for shard in range(MAX_KEPT_FRAMES + 1):
        driver.append(shard, [b"small"])
    driver.commit()
    assert driver.log.snapshot().newest is None
    driver.log.close()
