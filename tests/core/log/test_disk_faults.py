"""A disk that fails, or loses its power, at any call: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
from base64 import b64encode
from pathlib import Path

import pytest

from headrace.core.errors import HeadraceError, StorageFull
from headrace.core.log import scan_notes
from headrace.core.log.files import SystemFiles
from headrace.core.testing.faulty_files import FAILING, FaultyFiles, io_error, no_space
from headrace.core.testing.power_cut import PowerCutFiles
from log_harness import NOTES_EVERY_BYTES, START_MS, Driver, read_all


class _PowerFails(Exception):
    """Raised in place of the call at which the lights go out."""


@pytest.mark.parametrize("seed", range(80))
def test_no_acknowledged_record_is_lost_to_a_power_cut(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random puts until a random call to the disk, then what a cut there may leave, then a
    reading."""
    rng = random.Random(seed)
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", rng.choice(NOTES_EVERY_BYTES))
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    folder = tmp_path / "log"
    driver = Driver(folder, files, segment_bytes=rng.choice((1500, 4000, 100_000)))
    files.fail_at(rng.randint(1, 120), _PowerFails)
    acknowledged: dict[int, list[bytes]] = {shard: [] for shard in range(3)}
    sent: dict[int, list[bytes]] = {shard: [] for shard in range(3)}
    with contextlib.suppress(_PowerFails):
        for i in range(60):
            driver.now_ms += rng.randint(0, 3)
            for _ in range(rng.randint(1, 4)):
                shard = rng.randrange(3)
                data = [b"%d.%d" % (i, j) + b"." * rng.randint(0, 400) for j in range(3)]
                driver.append(shard, data)
                sent[shard] += data
            driver.commit()
            acknowledged = {shard: list(data) for shard, data in sent.items()}
            if rng.random() < 0.2:
                driver.log.write_mark()
    for n in range(5):
        left = tmp_path / f"left{n}"
        disk.leave(folder, left, rng)
        again = Driver(left, now_ms=driver.now_ms)
        for shard in range(3):
            got = [s.data for s in read_all(again.log, shard)]
            assert got == sent[shard][: len(got)], f"seed {seed}: not what was put, in order"
            assert len(got) >= len(acknowledged[shard]), f"seed {seed}: an acknowledged loss"
        again.put(0, [b"life goes on"])
        again.log.close()
        # and once more: recovery itself must have left a log that opens
        Driver(left, now_ms=driver.now_ms).log.close()


@pytest.mark.parametrize("seed", range(60))
def test_a_producer_never_believes_more_is_stored_than_is(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cut the remembered sequence is that of the last record that is there."""
    rng = random.Random(seed)
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", rng.choice(NOTES_EVERY_BYTES))
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    folder = tmp_path / "log"
    driver = Driver(folder, files, segment_bytes=rng.choice((1200, 3000)))
    files.fail_at(rng.randint(1, 100), _PowerFails)
    sequence = 0
    with contextlib.suppress(_PowerFails):
        for _ in range(40):
            _stamped(driver, sequence := sequence + rng.randint(1, 9))
            if rng.random() < 0.3:
                _stamped(driver, sequence := sequence + 1)
            driver.commit()
    for n in range(5):
        left = tmp_path / f"left{n}"
        disk.leave(folder, left, rng)
        again = Driver(left, now_ms=driver.now_ms)
        stored = read_all(again.log, 0)
        known = again.log.memory.piece_of(7).producers.get("p")
        assert (known.sequence if known else 0) == (int(stored[-1].data) if stored else 0)
        again.log.close()


def _stamped(driver: Driver, sequence: int) -> None:
    """One record of producer `p`, as the engine appends it."""
    log = driver.log
    text = b64encode(b"%d" % sequence).decode()
    frame, numbers = log.append(0, 1_700_000_000, [text], ["k"], driver.now_ms)
    piece = log.memory.piece_of(7)
    assert log.window is not None
    log.window.undos.append(log.memory.remember(piece, "p", 0, sequence, numbers[0], driver.now_ms))
    frame.mark(piece, "p", 0, sequence)


def test_a_snapshot_says_nothing_of_the_window_that_fills_while_it_is_made(
    tmp_path: Path,
) -> None:
    """What it said could outlive that window, and a retry would be taken for stored."""
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=600)
    for sequence in range(1, 20):
        _stamped(driver, sequence)
        window = driver.log.close_window(driver.now_ms)
        assert window is not None
        _stamped(driver, sequence + 100)
        driver.log.publish(driver.log.write(window, driver.now_ms))
        left = tmp_path / f"left{sequence}"
        shutil.copytree(folder, left)
        again = Driver(left)
        known = again.log.memory.piece_of(7).producers["p"]
        assert known.sequence == sequence == int(read_all(again.log, 0)[-1].data)
        again.log.close()
        open_window = driver.log.close_window(driver.now_ms)
        assert open_window is not None
        driver.log.fail(open_window)
    assert len(list(folder.glob("*.seg"))) > 3
    driver.log.close()


def test_a_segment_that_could_not_be_begun_does_not_come_back_in_a_power_cut(
    tmp_path: Path,
) -> None:
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    driver.put(0, [b"x" * 200])
    refused = 0
    for i in range(12):
        files.fail_always("allocate", no_space) if i % 2 else files.heal()
        try:
            driver.put(0, [b"%02d" % i + b"y" * 200])
        except StorageFull:
            refused += 1
    assert refused or len(list((tmp_path / "log").glob("*.seg"))) > 1
    stored = [s.data for s in read_all(driver.log, 0)]
    for seed in range(20):
        left = tmp_path / f"left-{seed}"
        disk.leave(tmp_path / "log", left, random.Random(seed))
        again = Driver(left)
        assert [s.data for s in read_all(again.log, 0)][: len(stored)] == stored
        again.log.close()
    driver.log.close()


@pytest.mark.parametrize("seed", range(10))
def test_what_is_served_after_a_failed_sync_survives_a_power_cut(tmp_path: Path, seed: int) -> None:
    """The restart reads it from the page cache, which takes it for written."""
    disk = PowerCutFiles()
    driver = Driver(tmp_path / "log", disk)
    for i in range(3):
        driver.put(0, [b"%d" % i])
    disk.fails_next_sync = True
    with pytest.raises(OSError, match="error"):
        driver.put(0, [b"3"])
    driver.log.close()
    again = Driver(tmp_path / "log", disk)
    served = read_all(again.log, 0)
    assert [s.data for s in served] == [b"0", b"1", b"2", b"3"]
    again.put(0, [b"4"])
    disk.leave(tmp_path / "log", tmp_path / "left", random.Random(seed))
    again.log.close()
    left = Driver(tmp_path / "left")
    assert [s.data for s in read_all(left.log, 0)] == [b"0", b"1", b"2", b"3", b"4"]
    left.log.close()


@pytest.mark.parametrize("call", [c for c in FAILING if c.startswith("sync") or c == "write_at"])
def test_an_io_error_is_never_taken_for_a_success(tmp_path: Path, call: str) -> None:
    files = FaultyFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=1500)
    driver.put(0, [b"before"])
    files.fail_always(call, io_error)
    with pytest.raises((OSError, HeadraceError)):
        for i in range(20):  # some calls come only when a segment is sealed
            driver.put(0, [b"%d" % i * 100])


def test_too_many_open_files_when_a_segment_is_full_fail_no_put(tmp_path: Path) -> None:
    """Not to be open for the folder, nor for an index: the log stays in its segment, or goes on."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    driver = Driver(tmp_path / "log", segment_bytes=600)
    stored = []
    for i in range(24):
        driver.log.release()
        in_use = len(os.listdir("/proc/self/fd"))
        spare = i % 4
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (in_use - 1 + spare, limit[1]))
            driver.put(0, [b"%02d" % i + b"y" * 200])
            stored.append(i)
        except StorageFull:
            assert spare == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(stored) >= 18
    assert [int(s.data[:2]) for s in read_all(driver.log, 0)] == stored
    driver.log.close()
    again = Driver(tmp_path / "log", segment_bytes=600)
    assert [int(s.data[:2]) for s in read_all(again.log, 0)] == stored
    again.log.close()


class _StubbornFiles(SystemFiles):
    """Removes nothing whose name is in `kept`."""

    def __init__(self) -> None:
        self.kept: set[str] = set()

    def unlink(self, path: Path) -> None:
        if path.name in self.kept:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        super().unlink(path)


def test_a_segment_that_could_not_be_removed_goes_before_the_next(tmp_path: Path) -> None:
    files = _StubbornFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    for i in range(12):
        driver.now_ms = START_MS + i * 1000
        driver.put(0, [b"%02d" % i + b"y" * 200])
    paths = sorted((tmp_path / "log").glob("*.seg"))
    assert len(paths) > 4
    files.kept = {paths[0].name}
    for upto in (4, 9):  # the second time nothing younger goes before it either
        with pytest.raises(OSError, match="not permitted"):
            driver.log.trim(START_MS + upto * 1000)
    assert sorted((tmp_path / "log").glob("*.seg")) == paths
    Driver(tmp_path / "log", segment_bytes=600).log.close()  # no gap
    files.kept = set()
    assert driver.log.trim(START_MS + 9 * 1000) > 1
    assert len(list((tmp_path / "log").glob("*.seg"))) < len(paths) - 1
    driver.log.close()
    again = Driver(tmp_path / "log", segment_bytes=600)
    assert int(read_all(again.log, 0)[-1].data[:2]) == 11
    again.log.close()


@pytest.mark.parametrize("seed", range(20))
def test_what_was_refused_does_not_come_back_with_the_power(tmp_path: Path, seed: int) -> None:
    """Half of its window was written, and that half may be a whole frame."""
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    driver = Driver(tmp_path / "log", files)
    driver.put(0, [b"stored"])
    driver.append(0, [b"refused"])
    driver.append(1, [bytes(2000)])
    files.fail_always("write_at", no_space)
    with pytest.raises(StorageFull):
        driver.commit()
    disk.leave(tmp_path / "log", tmp_path / "left", random.Random(seed))
    again = Driver(tmp_path / "left")
    assert [record.data for record in read_all(again.log, 0)] == [b"stored"]
    assert read_all(again.log, 1) == []
    again.log.close()
