"""Random lives of a log: puts, full disks and power cuts, one machine after another.

What a life must keep: a record that was acknowledged is there after every cut, one that was refused
is not, and what was on its way when the power went is there or not, but never half, nor out of
order. Once there it stays. The oracle reads the log and knows nothing of how it is kept.

Not in these lives is a disk that is full twice over: for a write, and then again for the sync of
what is cut off of it. What was refused may come back then if the power goes before the next sync.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.core.errors import StorageFull
from headrace.core.log import scan_notes
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from headrace.core.testing.power_cut import PowerCutFiles
from log_harness import NOTES_EVERY_BYTES, START_MS, Driver, read_all

SHARDS = 3
MACHINES = 6  # of a life: each ends with a power cut
MOST_WINDOWS = 40
FULL, DARK = 0.25, 0.05  # how often, before a window, a call to come finds no room, or no power
SEGMENT_BYTES = (1_500, 4_000, 100_000)

Records = dict[int, list[bytes]]
"""By shard."""


class _PowerFails(Exception):
    """Raised in place of the call at which the lights go out."""


class Life:
    """What is stored, and what may be."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._root = root
        self._rng = rng
        self._folder = root / "0"
        self._disk = PowerCutFiles()
        self._now_ms = START_MS
        self._sent = 0
        self._stored: Records = {shard: [] for shard in range(SHARDS)}
        self._under_way: Records = {shard: [] for shard in range(SHARDS)}

    def go_on(self) -> None:
        """One machine: its start, what is put on it, and the end of its power."""
        files = FaultyFiles(self._disk)
        driver = self._start(files)
        self._look(driver)
        try:
            for window in self._windows():
                self._put(driver, files, window)
        except (_PowerFails, OSError):  # a sync that finds no room: the process stops there
            pass
        self._cut()
        files.heal()
        driver.log.close()

    def end(self) -> None:
        """The last machine, which only reads."""
        driver = self._start(FaultyFiles(self._disk))
        self._look(driver)
        driver.log.close()

    def _start(self, files: FaultyFiles) -> Driver:
        segment_bytes = self._rng.choice(SEGMENT_BYTES)
        if self._rng.random() < FULL:
            files.fail_at(self._rng.randint(1, 8), no_space)
            with contextlib.suppress(StorageFull, OSError):
                return Driver(self._folder, files, segment_bytes=segment_bytes, now_ms=self._now_ms)
            files.heal()
        return Driver(self._folder, files, segment_bytes=segment_bytes, now_ms=self._now_ms)

    def _look(self, driver: Driver) -> None:
        for shard, stored in self._stored.items():
            found = [record.data for record in read_all(driver.log, shard)]
            assert found[: len(stored)] == stored, "what was acknowledged is lost"
            more, under_way = found[len(stored) :], self._under_way[shard]
            assert more in ([], under_way), "what was refused, or was never put"
            self._stored[shard] = found
            self._under_way[shard] = []

    def _windows(self) -> Iterator[Records]:
        for _ in range(self._rng.randint(1, MOST_WINDOWS)):
            window: Records = {}
            for shard in self._rng.sample(range(SHARDS), self._rng.randint(1, SHARDS)):
                window[shard] = []
                for _ in range(self._rng.randint(1, 3)):
                    self._sent += 1
                    size = self._rng.choice((0, 40, 400))
                    window[shard].append(b"%d" % self._sent + bytes(size))
            yield window

    def _put(self, driver: Driver, files: FaultyFiles, window: Records) -> None:
        chance = self._rng.random()
        if chance < FULL:
            files.fail_at(self._rng.randint(1, 6), no_space)
        elif chance < FULL + DARK:
            files.fail_at(self._rng.randint(1, 6), _PowerFails)
        self._now_ms = driver.now_ms = driver.now_ms + self._rng.randint(0, 3)
        for shard, data in window.items():
            driver.append(shard, data)
        self._under_way.update(window)
        try:
            driver.commit()
        except StorageFull:
            pass
        else:
            for shard, data in window.items():
                self._stored[shard] += data
        self._under_way.update((shard, []) for shard in window)
        if self._rng.random() < 0.2:
            with contextlib.suppress(StorageFull):
                driver.log.write_mark()

    def _cut(self) -> None:
        left = self._root / str(int(self._folder.name) + 1)
        self._disk.leave(self._folder, left, self._rng)
        self._folder, self._disk = left, PowerCutFiles()
        self._disk.adopt(left)


def live(root: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", rng.choice(NOTES_EVERY_BYTES))
    life = Life(root, rng)
    for _ in range(MACHINES):
        life.go_on()
    life.end()


@pytest.mark.parametrize("seed", range(40))
def test_a_log_keeps_its_promises_all_its_life(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(tmp_path, seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 3_000, 100))
def test_many_logs_keep_their_promises(
    tmp_path: Path, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(first, first + 100):
        (tmp_path / str(seed)).mkdir()
        try:
            live(tmp_path / str(seed), seed, monkeypatch)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
