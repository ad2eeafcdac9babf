"""Bounding how much of the machine's page cache written segments take.

A log that is written at hundreds of MB a second would in time push everything else on the machine
out of the page cache, though its readers are nearly always at its end. It also keeps the kernel
taking fresh memory, which costs most where a hypervisor has to back each page first (measured on
such a machine: 0.7 MB take 1.4 ms to write on fresh pages, 0.12 ms on pages just given back; with
256 MiB kept instead of 1 GiB, PutRecords of 500 x 1 KiB are a tenth quicker over the first GB,
and a reader who is further behind than that reads at the disk's speed).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from headrace.core.limits import MIB
from headrace.core.log.files import SystemFiles

MAX_KEPT_BYTES = 256 * MIB
STEP_BYTES = 1 * MIB
SLACK_BYTES = 4 * MIB  # dropped together: to drop a step alone costs three turns at the interpreter
MAX_DROPS = 8  # steps at one write, so that none pays for much
_PAGE_BYTES = 4096


def default_kept_bytes() -> int:
    """256 MiB, or an eighth of the machine's memory where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(MAX_KEPT_BYTES, memory // 8)


class CacheBoundFiles(SystemFiles):
    """The machine's filesystem, of whose page cache only the newest writes stay.

    What was written more than `kept_bytes` ago, over all files, is dropped from the cache if it
    is on the disk; it can be read as before. `SLACK_BYTES` more may stay, and of each file that
    is being written up to a step. Safe to call from several threads.
    """

    def __init__(self, kept_bytes: int | None = None) -> None:
        self._kept_bytes = default_kept_bytes() if kept_bytes is None else kept_bytes
        self._paths: dict[int, Path] = {}
        self._growing: dict[int, tuple[int, int]] = {}  # fd: start, end of what is not a step yet
        self._steps: deque[tuple[Path, int, int]] = deque()
        self._step_bytes = 0
        self._mutex = threading.Lock()

    def open_append(self, path: Path) -> int:
        fd = super().open_append(path)
        self._paths[fd] = path
        return fd

    def close(self, fd: int) -> None:
        with self._mutex:
            self._end_step(fd)
            self._paths.pop(fd, None)
        super().close(fd)

    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        super().write_at(fd, buffers, offset)
        with self._mutex:
            start, end = self._growing.get(fd, (offset, offset))
            if end != offset:  # begun anew after a write that failed
                start = min(start, offset)
            end = offset + sum(map(len, buffers))
            self._growing[fd] = start, end
            if end - start >= STEP_BYTES:
                self._end_step(fd)
            if self._step_bytes <= self._kept_bytes + SLACK_BYTES:
                return
            surplus = self._surplus()
        for path, start, end in surplus:
            _drop(path, start, end)

    def _end_step(self, fd: int) -> None:
        start, end = self._growing.pop(fd, (0, 0))
        if end > start and fd in self._paths:
            self._steps.append((self._paths[fd], start, end))
            self._step_bytes += _page_bytes(start, end)

    def _surplus(self) -> list[tuple[Path, int, int]]:
        """What to drop now: runs of one file's steps."""
        surplus: list[tuple[Path, int, int]] = []
        for _ in range(MAX_DROPS):
            if self._step_bytes <= self._kept_bytes:
                break
            path, start, end = self._steps.popleft()
            self._step_bytes -= _page_bytes(start, end)
            if surplus and surplus[-1][0] == path and surplus[-1][2] == start:
                start = surplus.pop()[1]
            surplus.append((path, start, end))
        return surplus


def _page_bytes(start: int, end: int) -> int:
    """Of the pages that hold these bytes; bounds the number of small steps, too."""
    return (-(-end // _PAGE_BYTES) - start // _PAGE_BYTES) * _PAGE_BYTES


def _drop(path: Path, start: int, end: int) -> None:
    """Pages that only partly lie within stay; so do those not yet synced."""
    with contextlib.suppress(OSError):  # deleted meanwhile, or a filesystem that cannot
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
