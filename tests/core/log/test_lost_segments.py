"""The end of a log that is gone: told by what is left of it, and never begun anew in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.core.errors import CorruptSegment
from headrace.core.log import scan_notes
from headrace.core.log.files import SystemFiles
from headrace.core.log.stream_log import StreamLog
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from log_harness import START_MS, Driver, Stored, read_all


def reopened(folder: Path) -> StreamLog:
    return StreamLog.open(folder, SystemFiles(), now_ms=START_MS, is_new=False)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def unlink(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zero_the_beginning(path: Path) -> None:
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])


LOSSES = [unlink, empty, zero, zero_the_beginning]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Stored]]:
    """A log of several segments, as a killed process leaves it; what is in it."""
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=20_000)
    while len(segments(folder)) < 4:
        driver.put(0, [bytes(3_000)])
    for _ in range(3):
        driver.put(0, [bytes(3_000)])
    return folder, read_all(driver.log, 0)


def assert_refused(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in segments(folder)}
    for _ in range(2):
        with pytest.raises(CorruptSegment):
            reopened(folder)
        assert {path.name: path.read_bytes() for path in segments(folder)} == before


@pytest.mark.parametrize("lose", LOSSES)
def test_the_last_segment(
    written: tuple[Path, list[Stored]], tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    folder, stored = written
    shutil.copytree(folder, tmp_path / "copy")
    lose(segments(folder)[-1])
    assert_refused(folder)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    log = reopened(folder)
    assert read_all(log, 0) == stored
    log.close()


@pytest.mark.parametrize("lose", LOSSES)
def test_the_only_segment(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder)
    for _ in range(3):
        driver.put(0, [bytes(3_000)])
    lose(segments(folder)[-1])
    assert_refused(folder)


def test_a_crash_while_the_next_segment_is_made_loses_nothing(
    written: tuple[Path, list[Stored]],
) -> None:
    """The index of the one before comes after it: without one, nothing was in the new one."""
    folder, stored = written
    last = segments(folder)[-1]
    first = int(last.stem)
    empty(last)
    segments(folder)[-2].with_suffix(".idx").unlink()
    log = reopened(folder)
    found = read_all(log, 0)
    assert found == stored[: len(found)]
    assert log.tail.frame_no <= first
    assert last not in segments(folder)
    log.close()


@pytest.mark.parametrize("part", [0.125, 0.5, 0.9])
def test_less_of_the_last_segment_than_was_noted(
    tmp_path: Path, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", 600)
    folder = tmp_path / "log"
    driver = Driver(folder)
    for i in range(40):
        driver.put(0, [b"%d" % i * 50])
    (segment,) = segments(folder)
    whole = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(whole[: int(len(whole) * part)])
    assert_refused(folder)
    segment.with_suffix(".scan").unlink()  # as it says: then what there is is taken
    log = reopened(folder)
    assert 0 < len(read_all(log, 0)) < 40
    log.close()


def test_the_segment_being_written_is_not_made_anew_when_it_was_removed(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder)
    driver.put(0, [b"x"])
    driver.log.release()
    (segment,) = segments(folder)
    aside = segment.rename(tmp_path / "aside")
    with pytest.raises(CorruptSegment, match="was removed"):
        driver.put(0, [b"y"])
    assert not segments(folder)
    aside.rename(segment)
    log = reopened(folder)
    assert [record.data for record in read_all(log, 0)] == [b"x"]
    log.close()


def test_the_last_segment_after_there_was_no_room_for_an_index(tmp_path: Path) -> None:
    """It is made up for as soon as there is, for it says that there was a segment after it."""
    folder, files = tmp_path / "log", FaultyFiles()
    driver = Driver(folder, files, segment_bytes=600)
    files.fail_always("rename", no_space)
    driver.put(0, [bytes(700)])
    assert not list(folder.glob("*.idx"))
    files.heal()
    driver.put(0, [b"x"])
    driver.log.write_mark()  # as soon as nobody waits
    assert len(list(folder.glob("*.idx"))) == 1
    assert [record.data for record in read_all(driver.log, 0)] == [bytes(700), b"x"]
    segments(folder)[-1].unlink()
    assert_refused(folder)


def test_a_segment_under_the_name_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    Driver(folder).log.close()
    (segment,) = segments(folder)
    segment.rename(folder / f"{7:020d}.seg")
    assert_refused(folder)
