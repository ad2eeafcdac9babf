"""What this disk can do at best: the physical limit beside which a stream's figures stand."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path


class DiskLimit:
    """Writes of one size into a file with its room reserved, each with a sync of its own."""

    def __init__(self, folder: Path, size: int, count: int) -> None:
        self._path = folder / "limit"
        self._data = random.randbytes(size)
        self._count = count

    def commits_per_s(self) -> float:
        """One after the other, as fast as it goes."""
        fd = self._reserved()
        started = time.perf_counter()
        for i in range(self._count):
            self._commit(fd, i)
        rate = self._count / (time.perf_counter() - started)
        self._free(fd)
        return rate

    def paced_ms(self, rate: float) -> list[float]:
        """The time each takes at so many a second.

        The processor is kept awake between them, as a polling reader does.
        """
        fd = self._reserved()
        found: list[float] = []
        due = time.perf_counter()
        for i in range(self._count):
            due += 1 / rate
            while time.perf_counter() < due:
                pass
            self._commit(fd, i)
            found.append((time.perf_counter() - due) * 1e3)
        self._free(fd)
        return found

    def _reserved(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(fd, 0, len(self._data) * self._count)
        return fd

    def _commit(self, fd: int, i: int) -> None:
        os.pwrite(fd, self._data, i * len(self._data))
        os.fdatasync(fd)

    def _free(self, fd: int) -> None:
        os.close(fd)
        self._path.unlink()
