"""Opening a folder: what is not the log's own, and what a crash left of rolling a segment."""

from __future__ import annotations

from pathlib import Path

import pytest

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
