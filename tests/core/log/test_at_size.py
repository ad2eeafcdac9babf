"""What a log costs does not grow with what is stored: bytes read at a start, files, memory."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest
from crc32c import crc32c

from headrace.core.errors import CorruptSegment
from headrace.core.limits import MIB
from headrace.core.log import access, scan_notes
from headrace.core.log.access import SegmentAccess
from headrace.core.log.byte_cache import ByteCache
from headrace.core.log.scan_notes import load_notes, notes_path
from headrace.core.log.stream_log import StreamLog
from headrace.core.model.sequence import BEGINNING, Position
from headrace.core.testing.cold_files import ColdFiles
from log_harness import START_MS, Driver, read, read_all


class CountingFiles(ColdFiles):
    """Counts the bytes of every kind of read, but those of space that was never written."""

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        data = super().read_at(fd, count, offset)
        self.read_bytes += len(data.rstrip(b"\0"))
        return data


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def test_a_start_reads_a_footer_of_each_sealed_segment_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=20_000)
    for _ in range(60):
        driver.put(0, [bytes(9_000)])
    driver.log.close()
    sealed = len(_segments(folder)) - 1
    files = CountingFiles()
    again = Driver(folder, files, segment_bytes=20_000)
    assert sealed >= 25
    assert sum(name.endswith(".idx") for name in files.opened) == sealed
    last = _segments(folder)[-1]
    assert [name for name in files.opened if name.endswith(".seg")] == [last.name]
    assert files.read_bytes <= sealed * 64 + 2 * 40_000
    assert files.open_count == 0
    again.log.close()


def test_a_start_reads_the_end_of_the_segment_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=1 << 30)
    for i in range(24):
        driver.put(i % 3, [b"%02d" % i + bytes(MIB)])
    before = [read_all(driver.log, shard) for shard in range(3)]
    driver.log.close()  # without a mark, as a killed process leaves it
    files = CountingFiles()
    again = Driver(folder, files, segment_bytes=1 << 30)
    stored = _segments(folder)[0].stat().st_size
    assert stored > 30 * MIB
    assert files.read_bytes < 3 * scan_notes.EVERY_BYTES
    assert [read_all(again.log, shard) for shard in range(3)] == before
    (number,) = again.put(0, [b"more"])
    assert int(number) > before[0][-1].number
    again.log.close()


@pytest.mark.parametrize("seed", range(16))
def test_notes_that_are_damaged_or_old_change_nothing(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    chance = random.Random(seed)
    folder = tmp_path / "log"
    driver = Driver(folder)
    kept = b""
    for i in range(30):
        driver.put(i % 3, [b"%d" % i * chance.randint(1, 50)])
        if i == 12:
            kept = notes_path(_segments(folder)[0]).read_bytes()
    before = [read_all(driver.log, shard) for shard in range(3)]
    driver.log.close()
    notes = notes_path(_segments(folder)[0])
    raw = bytearray(notes.read_bytes())
    assert len(raw) > len(kept) > 100
    match seed % 4:
        case 0:
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        case 1:
            del raw[chance.randrange(len(raw)) :]
        case 2:
            raw[:] = kept
        case _:
            raw[:] = bytes(len(raw))
    notes.write_bytes(raw)
    for _ in range(3):  # and what later runs add to them fits as well
        again = Driver(folder)
        assert [read_all(again.log, shard) for shard in range(3)] == before
        for i in range(5):
            again.put(i % 3, [b"more" * 20])
        before = [read_all(again.log, shard) for shard in range(3)]
        again.log.close()


def test_notes_of_another_file_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    logs = []
    for name in ("one", "other"):
        driver = Driver(tmp_path / name)
        for i in range(20):
            driver.put(0, [name.encode() * 20 + b"%d" % i])
        logs.append(read_all(driver.log, 0))
        driver.log.close()
    one, other = (_segments(tmp_path / name)[0] for name in ("one", "other"))
    one.write_bytes(other.read_bytes())
    again = Driver(tmp_path / "one")
    assert read_all(again.log, 0) == logs[1]
    for _ in range(20):  # noted anew: nothing of the old notes may come back
        again.put(0, [b"more" * 30])
    logs[1] = read_all(again.log, 0)
    again.log.close()
    again = Driver(tmp_path / "one")
    assert read_all(again.log, 0) == logs[1]
    again.log.close()


@pytest.mark.parametrize("member", ["last_frame", "end"])
def test_notes_that_do_not_fit_the_frame_they_name_are_not_believed(
    tmp_path: Path, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    driver = Driver(tmp_path / "log")
    for i in range(20):
        driver.put(0, [b"%d" % i * 50])
    before = read_all(driver.log, 0)
    driver.log.close()
    notes = notes_path(_segments(tmp_path / "log")[0])
    raw = notes.read_bytes()
    at = length = 0
    while at + 8 + length < len(raw):  # to the last chunk
        at += 8 + length if length else 0
        length = int.from_bytes(raw[at : at + 4], "little")
    chunk = msgspec.msgpack.decode(raw[at + 8 :])
    names = ["end", "last_frame"]
    chunk[names.index(member)] += 1
    body = msgspec.msgpack.encode(chunk)
    notes.write_bytes(
        raw[:at] + len(body).to_bytes(4, "little") + crc32c(body).to_bytes(4, "little") + body
    )
    again = Driver(tmp_path / "log")
    assert read_all(again.log, 0) == before
    again.put(0, [b"more"])
    again.log.close()


def test_damage_that_a_start_does_not_look_at_is_refused_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    driver = Driver(tmp_path / "log")
    for i in range(20):
        driver.put(0, [b"%d" % i * 50])
    (segment,) = _segments(tmp_path / "log")
    victim = next(driver.log.snapshot().active.index.walk(0, 5, wait=True))
    driver.log.close()
    raw = bytearray(segment.read_bytes())
    raw[victim.offset + victim.length // 2] ^= 1
    segment.write_bytes(raw)
    again = Driver(tmp_path / "log")
    for limit in (1, 10_000):  # from the cache of frames, and without
        with pytest.raises(CorruptSegment, match=f"{segment}.*frame {victim.frame_no} at byte"):
            read_all(again.log, 0, limit=limit)
    after = Position(victim.frame_no + 1, 0)
    assert len(read(again.log, 0, after)[0]) == 20 - (victim.frame_no - 1)
    again.log.close()


def test_a_sealed_segment_has_no_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=5_000)
    for _ in range(30):
        driver.put(0, [bytes(500)])
    assert len(_segments(folder)) > 3
    assert {p.stem for p in folder.glob("*.scan")} <= {_segments(folder)[-1].stem}
    driver.log.close()
    stale = notes_path(_segments(folder)[0])
    stale.write_bytes(b"left by a crash between sealing and removing")
    Driver(folder).log.close()
    assert not stale.exists()


def test_notes_are_kept_across_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    files = ColdFiles()
    for i in range(6):
        driver = Driver(tmp_path / "log", files)
        driver.put(0, [b"%d" % i * 500])
        driver.log.close()
    noted = load_notes(_segments(tmp_path / "log")[0], files)
    assert noted is not None and noted.entries.frames >= 5
    driver = Driver(tmp_path / "log", files)
    assert [s.data[:1] for s in read_all(driver.log, 0)] == [b"%d" % i for i in range(6)]
    driver.log.close()


def test_a_start_of_what_a_mark_vouches_for_syncs_nothing(tmp_path: Path) -> None:
    class SyncCounting(ColdFiles):
        synced = 0

        def sync(self, fd: int) -> None:
            self.synced += 1
            super().sync(fd)

    for has_mark in (False, True):
        folder = tmp_path / f"log{has_mark}"
        driver = Driver(folder)
        driver.put(0, [b"a"])
        if has_mark:
            driver.log.write_mark()
        driver.log.close()
        files = SyncCounting()
        Driver(folder, files).log.close()
        assert files.synced == (0 if has_mark else 1)


def test_any_number_of_segments_is_read_through_few_files(tmp_path: Path) -> None:
    files = ColdFiles()
    shared = SegmentAccess(files, max_open=6)
    driver = Driver(tmp_path / "log", segment_bytes=2_000)
    for i in range(60):
        driver.put(i % 2, [b"%02d" % i * 500])
    driver.log.close()
    logs = [StreamLog.open(tmp_path / "log", shared, now_ms=START_MS)]
    assert len(_segments(tmp_path / "log")) > 25
    most = 0
    at = BEGINNING
    for _ in range(30):
        records, at = read(logs[0], 0, at, limit=1)
        assert len(records) == 1
        most = max(most, files.open_count)
    assert 2 <= most <= 6
    logs[0].close()
    assert files.open_count == 0


def test_a_record_at_a_time_does_not_read_the_frame_each_time(tmp_path: Path) -> None:
    files = ColdFiles()
    driver = Driver(tmp_path / "log", files)
    driver.put(0, [b"%03d" % i + bytes(20_000) for i in range(200)])
    frame_bytes = 200 * 26_800
    at = BEGINNING
    for i in range(200):
        records, at = read(driver.log, 0, at, limit=1)
        assert [record.data[:3] for record in records] == [b"%03d" % i]
    assert files.read_bytes < 1.2 * frame_bytes
    driver.log.close()


def test_a_cache_keeps_its_bound_and_what_was_used_last() -> None:
    cache: ByteCache[str] = ByteCache(100)
    for i in range(10):
        cache.put(i, str(i), 30)
        cache.get(0)
    assert cache.bytes <= 100
    assert cache.get(0) == "0" and cache.get(9) == "9" and cache.get(1) is None
    cache.put("large", "large", 1000)  # one always: a reader of a large frame goes on in it
    assert cache.bytes == 1000 and cache.get("large") == "large" and cache.get(9) is None
    cache.put(1, "1", 30)
    assert cache.bytes == 30
    assert access.FRAME_CACHE_BYTES + access.INDEX_CACHE_BYTES <= 32 * MIB


def test_a_time_is_found_to_the_millisecond_at_every_border(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=2_000)
    arrivals: list[int] = []
    for i in range(60):
        driver.now_ms += (0, 1, 2, 7)[i % 4]  # some frames share a millisecond
        driver.put(i % 2, [b"%02d" % i * 40])
        arrivals.append(driver.now_ms)
    log = driver.log
    for _ in range(2):  # as written, and as opened again
        assert len(_segments(folder)) > 4
        for shard in range(2):
            mine = [(at_ms, i) for i, at_ms in enumerate(arrivals) if i % 2 == shard]
            for at_ms in {at_ms + d for at_ms, _ in mine for d in (-1, 0, 1)}:
                want = [i for arrived_ms, i in mine if arrived_ms >= at_ms]
                got, _at = read(log, shard, log.snapshot().find_time(shard, at_ms))
                assert [int(s.data[:2]) for s in got] == want
        log.close()
        log = Driver(folder, segment_bytes=2_000, now_ms=driver.now_ms).log
    log.close()


def test_the_middle_is_found_without_reading_every_index(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=2_000)
    for i in range(100):
        driver.now_ms = START_MS + i
        driver.put(0, [bytes(900)])
    driver.log.close()
    files = ColdFiles()
    log = Driver(folder, files, segment_bytes=2_000).log
    files.opened.clear()
    middle = log.snapshot().find_time(0, START_MS + 50)
    assert len(files.opened) == 1
    assert read(log, 0, middle, limit=1)[0][0].arrival_ms == START_MS + 50
    assert read(log, 0, Position(middle.frame_no, 1), limit=1)[0][0].arrival_ms == START_MS + 51
    assert len(files.opened) <= 5
    log.close()


def test_nothing_old_stays_behind_a_new_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    driver = Driver(tmp_path / "log")
    for _ in range(9):
        driver.put(0, [b"x" * 500])
    driver.log.close()
    segment = _segments(tmp_path / "log")[0]
    notes = notes_path(segment)
    raw = bytearray(notes.read_bytes())
    first_bytes = 8 + int.from_bytes(raw[:4], "little")
    assert len(raw) > 4 * first_bytes
    raw[first_bytes + 10] ^= 1  # in the second of the chunks; those after it are whole
    notes.write_bytes(raw)
    again = Driver(tmp_path / "log")
    again.put(0, [b"x" * 500])
    found = load_notes(segment, ColdFiles())
    assert found is not None and found.length == notes.stat().st_size > first_bytes
    assert len(read_all(again.log, 0)) == 10
    again.log.close()


def test_logs_nobody_writes_to_hold_no_files(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    logs = [Driver(tmp_path / str(n)).log for n in range(30)]
    assert len(os.listdir("/proc/self/fd")) == before
    for log in logs:
        log.close()


def test_notes_of_another_version_are_no_reason_not_to_start(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    driver.put(0, [b"a"])
    driver.log.close()
    body = msgspec.msgpack.encode({"format": 2})
    head = len(body).to_bytes(4, "little") + crc32c(body).to_bytes(4, "little")
    notes_path(_segments(tmp_path / "log")[0]).write_bytes(head + body)
    again = Driver(tmp_path / "log")
    assert [s.data for s in read_all(again.log, 0)] == [b"a"]
    again.log.close()
