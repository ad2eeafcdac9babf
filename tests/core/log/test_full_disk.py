"""A full disk, or quota: what is refused is not stored, and a log is opened without any room."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from headrace.core.errors import StorageFull
from headrace.core.log import scan_notes
from headrace.core.log.files import SystemFiles, is_no_room
from headrace.core.testing.faulty_files import FaultyFiles, io_error, no_space
from headrace.core.testing.power_cut import PowerCutFiles
from log_harness import NOTES_EVERY_BYTES, Driver, read_all

TORN = b"HRF1\x01 this was being written"
SEGMENT_BYTES = 1500
DATA = [b"%04d" % i * 70 for i in range(13)]  # the last segment has some of it


@pytest.fixture(scope="module")
def left_by_a_crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several segments, the second without its index, the last one with a torn tail."""
    folder = tmp_path_factory.mktemp("crash") / "log"
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    for piece in DATA:
        driver.put(0, [piece])
    driver.log.close()
    paths = sorted(folder.glob("*.seg"))
    assert len(paths) > 2
    paths[1].with_suffix(".idx").unlink()
    paths[-1].write_bytes(paths[-1].read_bytes().rstrip(b"\0") + TORN)
    return folder


def test_a_torn_tail_and_a_missing_index_take_no_room(
    tmp_path: Path, left_by_a_crash: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, files = tmp_path / "log", FaultyFiles()
    shutil.copytree(left_by_a_crash, folder)
    before = sorted(path.name for path in folder.iterdir())
    for _ in range(2):  # the second start finds nothing torn any more
        files.fail_always("write_at", no_space)
        files.fail_always("allocate", no_space)
        driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
        assert [s.data for s in read_all(driver.log, 0)] == DATA
        assert sorted(path.name for path in folder.iterdir()) == before, "nothing half-made"
        with pytest.raises(StorageFull):
            driver.put(0, [b"no"])
        assert not max(folder.glob("*.seg")).read_bytes().endswith(TORN)
        driver.log.close()
    assert "no room to keep them" in caplog.text
    files.heal()
    driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
    driver.put(0, [b"room"])
    assert [s.data for s in read_all(driver.log, 0)] == [*DATA, b"room"]
    assert len(list(folder.glob("*.idx"))) == len(list(folder.glob("*.seg"))) - 1
    driver.log.close()


@pytest.mark.parametrize("at", range(1, 12))
def test_a_disk_full_at_any_call_leaves_a_log_that_opens(
    tmp_path: Path, left_by_a_crash: Path, at: int
) -> None:
    """Also at a sync, which a filesystem that finds its place late can fail for want of it."""
    folder, files = tmp_path / "log", FaultyFiles()
    shutil.copytree(left_by_a_crash, folder)
    files.fail_at(at, no_space)
    try:
        driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
    except (StorageFull, OSError) as error:
        assert is_no_room(error)
        driver = Driver(folder, files, segment_bytes=SEGMENT_BYTES)
    assert [s.data for s in read_all(driver.log, 0)] == DATA
    files.heal()
    driver.put(0, [b"after"])
    driver.log.close()
    again = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert [s.data for s in read_all(again.log, 0)] == [*DATA, b"after"]
    assert not list(folder.glob("*.tmp"))
    again.log.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["pwritev", "posix_fallocate"])
def test_a_used_up_quota_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    driver = Driver(tmp_path / "log")
    driver.put(0, [b"before"])
    large = [b"x" * (2 << 20)]  # more than is reserved
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageFull, match="no space left"):
            driver.put(0, large)
    driver.put(0, [b"after"])
    assert [s.data for s in read_all(driver.log, 0)] == [b"before", b"after"]
    driver.log.close()


@pytest.mark.parametrize("at", range(1, 26))
def test_a_full_disk_at_any_call_loses_and_doubles_nothing(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", NOTES_EVERY_BYTES[at % 3])
    files = FaultyFiles()
    folder = tmp_path / "log"
    driver = Driver(folder, files, segment_bytes=1500)
    files.fail_at(at, no_space)
    stored: list[bytes] = []
    refused = 0
    for i in range(14):
        data = [b"%02d" % i * 40, b"b%d" % i]
        try:
            driver.put(0, data)
        except StorageFull:
            refused += 1
            # nothing of it was stored, and the next try is as good as the first
            driver.put(0, data)
        except OSError:
            return  # not a call that a full disk can fail: the process stops there
        stored += data
    assert [s.data for s in read_all(driver.log, 0)] == stored
    driver.log.close()
    again = Driver(folder, SystemFiles(), segment_bytes=1500)
    assert [s.data for s in read_all(again.log, 0)] == stored


def test_a_window_that_is_durable_is_not_refused_for_want_of_a_new_segment(tmp_path: Path) -> None:
    """Its client was told that nothing of it was stored; after a crash it was there all the same,
    and what had been put in its place was not."""
    files = FaultyFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    stored: list[bytes] = []
    for i in range(6):
        files.fail_always("allocate", no_space)  # no new segment
        files.fail_always("write_at", no_space, after=1)  # and no more than the window
        driver.put(0, [b"%d" % i + b"x" * 300])
        stored.append(b"%d" % i + b"x" * 300)
        crashed = Driver(_copy(tmp_path / "log", tmp_path / f"crashed{i}"), segment_bytes=600)
        assert [s.data for s in read_all(crashed.log, 0)] == stored
        crashed.log.close()
    with pytest.raises(StorageFull):
        driver.put(0, [b"really no room"])
    files.heal()
    driver.put(0, [b"room"])
    assert [s.data for s in read_all(driver.log, 0)] == [*stored, b"room"]
    driver.log.close()
    again = Driver(tmp_path / "log", segment_bytes=600)
    assert [s.data for s in read_all(again.log, 0)] == [*stored, b"room"]
    again.log.close()


def _copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


@pytest.mark.parametrize("seed", range(40))
def test_a_power_cut_after_there_was_no_room_for_a_new_segment_damages_nothing(
    tmp_path: Path, seed: int
) -> None:
    """The frame that took the new segment's number was not synced, and said to be durable."""
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    stored = [b"%d" % i + b"x" * 600 for i in range(3)]
    files.fail_always("allocate", no_space)
    for data in stored:
        driver.put(0, [data])
    files.fail_always("sync_data", io_error)  # the lights go out
    with pytest.raises(OSError, match="error"):
        driver.put(0, [b"never acknowledged" * 50])
    disk.leave(tmp_path / "log", tmp_path / "left", random.Random(seed))
    again = Driver(tmp_path / "left")
    assert [s.data for s in read_all(again.log, 0)][: len(stored)] == stored
    again.put(0, [b"life goes on"])
    again.log.close()
    Driver(tmp_path / "left").log.close()


class _FullFolders(PowerCutFiles):
    """A disk with no room for the names of one folder, until that has been told once."""

    def __init__(self, full: Path) -> None:
        super().__init__()
        self.full: Path | None = full
        self.synced: set[Path] = set()

    def sync_dir(self, path: Path) -> None:
        if path == self.full:
            self.full = None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().sync_dir(path)
        self.synced.add(path)


@pytest.mark.parametrize("full", ["streams", "streams/log"])
def test_names_that_could_not_be_made_durable_are_when_a_log_is_opened_again(
    tmp_path: Path, full: str
) -> None:
    """Else a power cut would take the whole file, with what was acknowledged in it."""
    folder = tmp_path / "streams" / "log"
    files = _FullFolders(tmp_path / full)
    with pytest.raises(OSError, match="No space"):
        Driver(folder, files)
    driver = Driver(folder, files)
    driver.put(0, [b"acknowledged"])
    assert files.synced >= {folder, folder.parent}
    for n in range(5):  # a cut takes the name or not, by chance
        left = tmp_path / f"left{n}"
        files.leave(folder, left, random.Random(n))
        again = Driver(left, now_ms=driver.now_ms)
        assert [s.data for s in read_all(again.log, 0)] == [b"acknowledged"]
        again.log.close()
    driver.log.close()
