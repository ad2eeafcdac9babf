"""ColdFiles: a disk whose files are not in the page cache, and whose reads can be held up.

Watches over every descriptor meanwhile: a read through one that has been closed, or has come to
mean another file, is an AssertionError, which tests find in `faults` too.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from headrace.core.log.files import NotInMemory, SystemFiles

READERS = "reader"  # begins the names of the engine's reader threads


class ColdFiles(SystemFiles):
    """While `is_cold`, nothing is in memory. While held, reader threads wait for the disk.

    Writer threads do not: what they look at they have just written.
    """

    def __init__(self) -> None:
        self.is_cold = False
        self.reads_count = 0  # of those that may wait
        self.read_bytes = 0
        self.opened: list[str] = []
        self.faults: list[str] = []
        self._paths: dict[int, Path] = {}
        self._go = threading.Event()
        self._go.set()
        self._waiting = threading.Semaphore(0)

    @property
    def open_count(self) -> int:
        """Descriptors that are open to be read."""
        return len(self._paths)

    def hold(self) -> None:
        self._go.clear()

    def let_go(self) -> None:
        self._go.set()

    async def somebody_waits(self) -> None:
        """Returns when one more thread is waiting for the disk than when it last returned."""
        await asyncio.to_thread(self._waiting.acquire, timeout=30)

    def _wait(self) -> None:
        if not self._go.is_set() and threading.current_thread().name.startswith(READERS):
            self._waiting.release()
            self._go.wait(30)

    def open_read(self, path: Path) -> int:
        self.opened.append(path.name)
        if self.is_cold:
            self._wait()
        fd = super().open_read(path)
        self._paths[fd] = path
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def read_into(self, fd: int, buffer: memoryview, offset: int, *, wait: bool) -> int:
        if not wait and self.is_cold:
            raise NotInMemory
        if wait:
            self.reads_count += 1
        if self.is_cold:
            self._wait()
        self._check(fd)
        done = super().read_into(fd, buffer, offset, wait=wait)
        self._check(fd)
        self.read_bytes += done
        return done

    def _check(self, fd: int) -> None:
        path = self._paths.get(fd)
        means = "nothing" if path is None else str(Path(f"/proc/self/fd/{fd}").readlink())
        if path is None or means.removesuffix(" (deleted)") != os.path.realpath(path.parent) + (
            f"/{path.name}"
        ):
            fault = f"descriptor {fd} was opened as {path} and is {means}"
            self.faults.append(fault)
            raise AssertionError(fault)
