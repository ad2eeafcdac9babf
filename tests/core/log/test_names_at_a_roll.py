"""A new segment's name, where the folder cannot be synced: neither there for certain, nor gone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from headrace.core.errors import StorageFull
from headrace.core.log.files import SystemFiles
from headrace.core.log.stream_log import StreamLog
from headrace.core.testing.power_cut import PowerCutFiles
from log_harness import START_MS, Driver, read_all


class _FewFiles(PowerCutFiles):
    """With too many files open to sync a folder, `refusals` more times."""

    refusals = 0

    def sync_dir(self, path: Path) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StorageFull("too many files are open")
        super().sync_dir(path)


@pytest.mark.parametrize("refusals", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_acknowledged_behind_it(tmp_path: Path, seed: int, refusals: int) -> None:
    files = _FewFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    files.refusals = refusals
    driver.put(0, [bytes(700)])
    acknowledged = 1
    for _ in range(1 + seed % 3):
        try:
            driver.put(0, [b"x"])
        except StorageFull:
            continue
        acknowledged += 1
    files.leave(tmp_path / "log", tmp_path / "left", random.Random(seed))
    log = StreamLog.open(tmp_path / "left", SystemFiles(), now_ms=START_MS, is_new=False)
    assert len(read_all(log, 0)) >= acknowledged
    log.close()
