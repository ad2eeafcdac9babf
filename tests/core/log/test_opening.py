"""Opening a folder: what is not the log's own, and what a crash left of rolling a segment."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core.errors import CorruptSegment
from headrace.core.log.files import SystemFiles
from log_harness import Driver, read_all


def _filled(folder: Path, puts: int = 20) -> list[bytes]:
    """A log of several segments, closed."""
    driver = Driver(folder, segment_bytes=1000)
    data = [b"%02d" % i * 30 for i in range(puts)]
    for piece in data:
        driver.put(0, [piece])
    driver.log.close()
    assert len(list(folder.glob("*.seg"))) > 4
    return data


@pytest.mark.parametrize(
    "name",
    [
        "backup.seg", "backup.idx", "backup.scan", "notes.tmp", "README", "1.seg", "-1.seg",
        "00000000000000000002 (copy).seg", "\u0661" * 20 + ".seg",
        "00000000000000000002.seg.gz",
    ],
)  # fmt: skip
def test_a_stray_file_is_named_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    stray = folder / name
    stray.write_bytes(min(folder.glob("*.seg")).read_bytes())
    before = stray.read_bytes()
    driver = Driver(folder, segment_bytes=1000)
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert "not one of this server's files" in caplog.text and str(stray) in caplog.text
    driver.put(0, [b"more"])
    driver.log.close()
    assert stray.read_bytes() == before


def test_a_folder_within_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    (folder / "old.tmp").mkdir()
    driver = Driver(folder)
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert str(folder / "old.tmp") in caplog.text
    driver.log.close()


def test_what_is_the_logs_own_is_told_of_by_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    _filled(folder)
    last = max(folder.glob("*.seg"))
    last.with_suffix(".broken").write_bytes(b"the torn tail of an earlier crash")
    half_made = min(folder.glob("*.seg")).with_suffix(".idx.tmp")
    half_made.write_bytes(b"half of an index")
    Driver(folder).log.close()
    assert not half_made.exists()
    assert not caplog.text


class _PowerCutError(Exception):
    pass


class _DiesBeforeTheCut(SystemFiles):
    """The lights go out once the next segment is there and the one before has its reserve yet."""

    def truncate(self, fd: int, size: int) -> None:
        if size:
            raise _PowerCutError
        super().truncate(fd, size)


def _left_by_a_crash(folder: Path) -> list[bytes]:
    """Two segments, the first with its reserve and no index."""
    driver = Driver(folder, _DiesBeforeTheCut(), segment_bytes=1000)
    data: list[bytes] = []
    with pytest.raises(_PowerCutError):
        while True:
            data.append(b"%02d" % len(data) * 30)
            driver.put(0, [data[-1]])
    driver.log.release()
    first, second = sorted(folder.glob("*.seg"))
    assert min(first.stat().st_size, second.stat().st_size) >= 1 << 20
    assert not list(folder.glob("*.idx"))
    return data


def _stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.seg"))


def test_what_a_crash_left_reserved_is_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    data = _left_by_a_crash(folder)
    for _ in range(2):  # when its index is made, and when there is one
        driver = Driver(folder, segment_bytes=1000)
        assert [s.data for s in read_all(driver.log, 0)] == data
        assert driver.log.stored_bytes == _stored(folder) < 3000
        driver.log.close()


@pytest.mark.parametrize("is_written", [True, False])
def test_a_reserve_behind_an_indexed_segment_is_given_back(
    tmp_path: Path, is_written: bool
) -> None:
    """An earlier version left it there; a copy of such a folder may hold zeros, not a hole."""
    folder = tmp_path / "log"
    data = _filled(folder)
    first = min(folder.glob("*.seg"))
    raw = first.read_bytes()
    with first.open("r+b") as file:
        if is_written:
            file.seek(0, 2)
            file.write(bytes(3 << 20))
        else:
            file.truncate(3 << 20)
    driver = Driver(folder, segment_bytes=1000)
    assert first.read_bytes() == raw
    assert driver.log.stored_bytes == _stored(folder)
    assert [s.data for s in read_all(driver.log, 0)] == data
    driver.log.close()


@pytest.mark.parametrize("has_index", [True, False])
def test_what_is_not_all_zeros_behind_a_sealed_segment_is_left_and_told_of(
    tmp_path: Path, has_index: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    first = min(folder.glob("*.seg"))
    size = first.stat().st_size
    if not has_index:
        first.with_suffix(".idx").unlink()
    strange = first.read_bytes() + bytes(2 << 20) + b"?" + bytes(5000)
    first.write_bytes(strange)
    driver = Driver(folder, segment_bytes=1000)
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert first.read_bytes() == strange
    assert f"{first} has {len(strange) - size} bytes behind its last frame" in caplog.text
    driver.log.close()


def test_a_segment_whose_last_frame_has_become_zeros_is_not_cut(tmp_path: Path) -> None:
    """It looks like one with a reserve: only the next segment's first frame tells."""
    folder = tmp_path / "log"
    _filled(folder)
    first = min(folder.glob("*.seg"))
    first.with_suffix(".idx").unlink()
    raw = first.read_bytes()
    damaged = raw[: raw.rfind(b"HRF1")].ljust(len(raw), b"\0")
    first.write_bytes(damaged)
    with pytest.raises(CorruptSegment, match="missing or damaged"):
        Driver(folder, segment_bytes=1000)
    assert first.read_bytes() == damaged


def test_a_segment_whose_next_never_began_is_written_to_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    data = _left_by_a_crash(folder)
    with max(folder.glob("*.seg")).open("r+b") as file:
        file.truncate(0)  # its name had reached the disk, its first frame had not
    for more in (b"more", b"and more"):
        driver = Driver(folder, segment_bytes=1 << 20)
        driver.put(0, [more])
        data.append(more)
        assert [s.data for s in read_all(driver.log, 0)] == data
        assert len(list(folder.glob("*.seg"))) == 1
        driver.log.close()
