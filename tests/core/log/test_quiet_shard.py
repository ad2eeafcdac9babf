"""A reader at the end of a quiet shard costs nothing, however busy its stream is."""

from __future__ import annotations

from pathlib import Path

from headrace.core.log.files import SystemFiles
from headrace.core.model.sequence import BEGINNING
from log_harness import Driver, read


class CountingFiles(SystemFiles):
    """Counts what is opened to be read: segments and their indexes."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open_read(self, path: Path) -> int:
        self.opened.append(path.name)
        return super().open_read(path)


def test_polling_a_quiet_shard_does_not_look_through_old_segments(tmp_path: Path) -> None:
    files = CountingFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=10_000)
    driver.put(0, [b"quiet"])
    for _ in range(20):
        driver.put(1, [bytes(9_000)])
    records, at = read(driver.log, 0, BEGINNING)
    assert [record.data for record in records] == [b"quiet"]
    for turn in range(5):
        driver.put(1, [bytes(9_000)])
        files.opened.clear()
        records, at = read(driver.log, 0, at)
        assert records == []
        assert len(files.opened) <= 1, turn  # at most the segment sealed since
    driver.put(0, [b"again"])
    assert [record.data for record in read(driver.log, 0, at)[0]] == [b"again"]
