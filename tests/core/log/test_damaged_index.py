"""An index is derived: whatever becomes of its file, the segment's records are read and kept."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crc32c import crc32c

from headrace.core.errors import CorruptSegment
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import NotInMemory, SystemFiles
from headrace.core.log.format import MAGIC_BYTES
from headrace.core.log.stream_log import StreamLog
from headrace.core.model.sequence import BEGINNING
from headrace.core.testing.cold_files import ColdFiles
from headrace.core.testing.faulty_files import FaultyFiles, io_error, no_space
from log_harness import START_MS, Driver, read, read_all

SEGMENT_BYTES = 2_000
HOUR_MS = 3_600_000


def _filled(folder: Path) -> list[bytes]:
    """A log of one shard and several segments, closed."""
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    data = [b"%02d" % i * 100 for i in range(20)]
    for piece in data:
        driver.put(0, [piece])
        driver.now_ms += 10
    driver.log.write_mark()
    driver.log.close()
    assert len(list(folder.glob("*.idx"))) > 2
    return data


def _indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.idx"))


def _in_the_old_format(index: bytes) -> bytes:
    """As version 1 had it: a footer that one checksum over all of the file covered."""
    _, _, *frames_and_times, _end, entries, shards, _, _ = struct.unpack(
        "<IIQQQQQIIII", index[-64:]
    )
    footer = struct.pack(
        "<4sIQQQQQQI", b"HRX1", 1, *frames_and_times, entries, shards, 0
    )  # fmt: skip
    content = index[:-64] + footer
    return content + crc32c(content).to_bytes(4, "little")


@pytest.mark.parametrize("at", range(64))
def test_a_flipped_bit_in_a_footer_deletes_nothing_and_dates_nothing(
    tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    index = _indexes(folder)[at % 2 - 1]  # the first one or the last
    raw = index.read_bytes()
    damaged = bytearray(raw)
    damaged[at - 64] ^= 1 << at % 8
    index.write_bytes(damaged)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES, now_ms=START_MS + HOUR_MS)
    assert index.with_suffix(".seg").name in caplog.text
    assert driver.log.oldest_arrival_ms == START_MS
    assert driver.log.trim(START_MS) == 0
    driver.put(0, [b"next"])
    stored = read_all(driver.log, 0)
    assert [s.data for s in stored] == [*data, b"next"]
    assert stored[-1].arrival_ms == START_MS + HOUR_MS
    assert index.read_bytes() == raw
    driver.log.close()


@pytest.mark.parametrize("what", ["old format", "cut", "empty", "of another segment", "longer"])
def test_an_index_that_is_none_of_this_segment_is_made_again(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    index, other, *_ = _indexes(folder)
    raw = index.read_bytes()
    match what:
        case "old format":
            index.write_bytes(_in_the_old_format(raw))
        case "cut":
            index.write_bytes(raw[:-70])
        case "empty":
            index.write_bytes(b"")
        case "of another segment":
            index.write_bytes(other.read_bytes())
        case _:
            index.write_bytes(bytes(32) + raw)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert [s.data for s in read_all(driver.log, 0)] == data
    driver.log.close()
    assert index.read_bytes() == raw
    caplog.clear()
    Driver(folder, segment_bytes=SEGMENT_BYTES).log.close()
    assert not caplog.text, "the one made again is used"


def _flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


MADE_AGAIN = "was damaged or gone; it was made again"
FIRST_ENTRY, FIRST_ROW = 8, -64 - 24  # arrival of the first frame; the shard of the first row


@pytest.mark.parametrize("at", [FIRST_ENTRY, FIRST_ROW])
def test_a_damaged_index_is_made_again_when_it_is_needed(
    tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    index = _indexes(folder)[1]
    raw = index.read_bytes()
    _flip(index, at)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert not caplog.text, "a start looks at footers only"
    before = driver.log.snapshot()
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert f"{index} {MADE_AGAIN}" in caplog.text
    assert index.read_bytes() == raw
    for snapshot in (before, driver.log.snapshot()):
        assert snapshot.read(0, BEGINNING, max_records=99, max_bytes=1 << 20).records == len(data)
        for i in range(len(data)):
            at_ms = START_MS + 10 * i
            found = read(driver.log, 0, snapshot.find_time(0, at_ms), limit=1)[0]
            assert [s.arrival_ms for s in found] == [at_ms]
        assert snapshot.find_time(1, START_MS) == snapshot.tail, "a shard with nothing in it"
    driver.log.close()
    caplog.clear()
    again = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert [s.data for s in read_all(again.log, 0)] == data
    assert not caplog.text, "the one made again is used"
    again.log.close()


def test_an_index_is_made_again_whose_file_somebody_removes_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    for index in _indexes(folder):
        index.unlink()
    count = len(list(folder.glob("*.seg"))) - 1
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert len(_indexes(folder)) == count
    assert caplog.text.count(MADE_AGAIN) == count
    driver.log.close()


def test_an_index_is_made_again_that_is_cut_short_after_it_was_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    snapshot = driver.log.snapshot()
    assert snapshot.find_time(1, 0) == snapshot.tail  # has looked at all of them
    index = _indexes(folder)[1]
    raw = index.read_bytes()
    with index.open("r+b") as file:
        file.truncate(10)
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert index.read_bytes() == raw
    driver.log.close()


def test_the_event_loop_does_not_make_an_index(tmp_path: Path) -> None:
    """It would stand still for as long as it takes to read a segment."""
    folder = tmp_path / "log"
    _filled(folder)
    index = _indexes(folder)[0]
    _flip(index, FIRST_ENTRY)
    files = ColdFiles()
    shared = SegmentAccess(files)
    log = StreamLog.open(folder, shared, now_ms=START_MS)
    with shared.open_files.take(index, wait=True):
        pass  # all of it is in memory, and open
    files.opened.clear()
    with pytest.raises(NotInMemory):
        log.snapshot().find_time(0, START_MS, wait=False)
    assert not files.opened and not _is_whole(index)
    found = log.snapshot().find_time(0, START_MS)
    assert _is_whole(index)
    assert log.snapshot().find_time(0, START_MS, wait=False) == found  # it is in memory now
    log.close()


def _is_whole(index: Path) -> bool:
    raw = index.read_bytes()
    return crc32c(raw[:-64]) == int.from_bytes(raw[-8:-4], "little")


def test_many_threads_find_the_damage_and_one_mends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    for index in _indexes(folder):
        _flip(index, FIRST_ENTRY)
    files = ColdFiles()
    driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
    together = threading.Barrier(8)

    def look(_: int) -> list[bytes]:
        together.wait()
        return [s.data for s in read_all(driver.log, 0, limit=3)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, range(8))) == [data] * 8
    assert caplog.text.count(MADE_AGAIN) == len(_indexes(folder))
    assert all(map(_is_whole, _indexes(folder)))
    assert not files.faults
    driver.log.close()


@pytest.mark.parametrize("make_error", [no_space, io_error])
@pytest.mark.parametrize("call", ["open_append", "write_at", "sync", "rename", "sync_dir"])
def test_an_index_that_cannot_be_written_answers_all_the_same(
    tmp_path: Path, call: str, make_error: Callable[[], Exception]
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    _flip(_indexes(folder)[0], FIRST_ENTRY)
    files = FaultyFiles()
    driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
    files.fail_always(call, make_error)
    for _ in range(2):
        assert [s.data for s in read_all(driver.log, 0, limit=1)] == data
    assert not list(folder.glob("*.tmp"))
    files.heal()
    driver.log.close()
    again = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert [s.data for s in read_all(again.log, 0)] == data
    assert all(map(_is_whole, _indexes(folder)))
    again.log.close()


@pytest.mark.parametrize("damage", ["in the middle", "last frame"])
def test_where_the_segment_is_damaged_too_it_is_refused_by_name(
    tmp_path: Path, damage: str
) -> None:
    """No later frame of its own vouches for a segment's last one: its index does."""
    folder = tmp_path / "log"
    data = _filled(folder)
    index = _indexes(folder)[1]
    segment = index.with_suffix(".seg")
    _flip(index, FIRST_ENTRY)
    raw = segment.read_bytes()
    _flip(segment, len(raw) // 2 if damage == "in the middle" else raw.rfind(MAGIC_BYTES) + 70)
    damaged = index.read_bytes(), segment.read_bytes()
    files = ColdFiles()
    driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
    for _ in range(3):
        files.opened.clear()
        with pytest.raises(CorruptSegment, match=f"segment {segment} is damaged") as caught:
            read_all(driver.log, 0, limit=1)
        assert caught.value.path == str(segment) and "copy" in (caught.value.hint or "")
    assert segment.name not in files.opened, "not read anew for each poll"
    assert (index.read_bytes(), segment.read_bytes()) == damaged
    after = driver.log.snapshot().sealed[2].first_frame
    at = driver.log.snapshot().find_time(0, START_MS + 10 * (len(data) - 1))
    assert at.frame_no > after
    assert [s.data for s in read(driver.log, 0, at)[0]] == data[-1:]
    driver.log.close()


def test_a_segment_that_was_trimmed_is_not_taken_for_one_without_an_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    _filled(folder)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    snapshot = driver.log.snapshot()
    first = snapshot.sealed[0]
    assert driver.log.trim(first.last_arrival_ms + 1) == 1
    with pytest.raises(FileNotFoundError):
        snapshot.read(0, BEGINNING, max_records=1, max_bytes=1 << 20)
    assert not caplog.text
    assert not first.path.with_suffix(".idx").exists()
    driver.log.close()


class _BadSectors(SystemFiles):
    """No index file can be read while `are_bad`, and `kept` keeps its length."""

    def __init__(self, kept: Path | None = None) -> None:
        self.are_bad = kept is None
        self._kept = kept
        self._paths: dict[int, Path] = {}
        self._replaced: set[Path] = set()  # elsewhere on the disk

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._replaced.add(target)

    def open_read(self, path: Path) -> int:
        fd = super().open_read(path)
        self._paths[fd] = path
        return fd

    def open_append(self, path: Path) -> int:
        fd = super().open_append(path)
        self._paths[fd] = path
        return fd

    def _check(self, fd: int) -> None:
        path = self._paths[fd]
        if self.are_bad and path.suffix == ".idx" and path not in self._replaced:
            raise io_error()

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        self._check(fd)
        return super().read_at(fd, count, offset)

    def read_into(self, fd: int, buffer: memoryview, offset: int, *, wait: bool) -> int:
        self._check(fd)
        return super().read_into(fd, buffer, offset, wait=wait)

    def truncate(self, fd: int, size: int) -> None:
        if self._paths[fd] == self._kept:
            raise io_error()
        super().truncate(fd, size)


@pytest.mark.parametrize("when", ["at a start", "later"])
def test_one_that_cannot_be_read(tmp_path: Path, when: str) -> None:
    data = _filled(tmp_path / "log")
    files = _BadSectors()
    files.are_bad = when == "at a start"
    driver = Driver(tmp_path / "log", files, segment_bytes=SEGMENT_BYTES)
    files.are_bad = True
    assert [record.data for record in read_all(driver.log, 0)] == data
    driver.log.close()


def test_a_reserve_that_cannot_be_given_back(tmp_path: Path) -> None:
    data = _filled(tmp_path / "log")
    first = min((tmp_path / "log").glob("*.seg"))
    os.truncate(first, first.stat().st_size + 4096)
    driver = Driver(tmp_path / "log", _BadSectors(first), segment_bytes=SEGMENT_BYTES)
    assert [record.data for record in read_all(driver.log, 0)] == data
    driver.log.close()
