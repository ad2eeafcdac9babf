"""FaultyFiles: a filesystem seam that fails on purpose at a chosen call."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.core.errors import StorageFull
from headrace.core.log.files import Files, SystemFiles

FAILING = ("write_at", "sync_data", "sync", "sync_dir", "allocate", "rename", "open_append")


class FaultyFiles:
    """Passes everything on to `inner`, but fails the calls that `plan` names.

    `fail_at(n, make_error)` fails the n-th (from 1) of the calls named in FAILING from now on;
    `fail_always(name, make_error)` fails every call of that name until `heal`; with `after`, only
    once so many more have succeeded.
    With a failing `write_at`, half of the bytes are written first, as a full disk does it.
    `commit`, which is not in FAILING, is the end of a transaction of a database.
    """

    def __init__(self, inner: Files | None = None) -> None:
        self.inner = inner or SystemFiles()
        self.calls: list[str] = []
        self._countdown: int | None = None
        self._make_error: Callable[[], Exception] = no_space
        self._always: dict[str, Callable[[], Exception]] = {}
        self._passes: dict[str, int] = {}

    def fail_at(self, n: int, make_error: Callable[[], Exception]) -> None:
        self._countdown, self._make_error = n, make_error

    def fail_always(
        self, name: str, make_error: Callable[[], Exception], *, after: int = 0
    ) -> None:
        self._always[name] = make_error
        self._passes[name] = after

    def heal(self) -> None:
        self._countdown = None
        self._always.clear()

    def _error(self, name: str) -> Exception | None:
        self.calls.append(name)
        if name in self._always:
            if not self._passes[name]:
                return self._always[name]()
            self._passes[name] -= 1
        if self._countdown is not None:
            self._countdown -= 1
            if self._countdown == 0:
                self._countdown = None
                return self._make_error()
        return None

    def _check(self, name: str) -> None:
        error = self._error(name)
        if isinstance(error, StorageFull) and name.startswith("sync"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if error is not None:
            raise error

    def open_append(self, path: Path) -> int:
        self._check("open_append")
        return self.inner.open_append(path)

    def open_read(self, path: Path) -> int:
        return self.inner.open_read(path)

    def close(self, fd: int) -> None:
        self.inner.close(fd)

    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        error = self._error("write_at")
        if error is not None:
            whole = b"".join(buffers)
            self.inner.write_at(fd, [whole[: len(whole) // 2]], offset)
            raise error
        self.inner.write_at(fd, buffers, offset)

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        return self.inner.read_at(fd, count, offset)

    def read_into(self, fd: int, buffer: memoryview, offset: int, *, wait: bool) -> int:
        return self.inner.read_into(fd, buffer, offset, wait=wait)

    def sync_data(self, fd: int) -> None:
        self._check("sync_data")
        self.inner.sync_data(fd)

    def sync(self, fd: int) -> None:
        self._check("sync")
        self.inner.sync(fd)

    def sync_dir(self, path: Path) -> None:
        self._check("sync_dir")
        self.inner.sync_dir(path)

    def allocate(self, fd: int, offset: int, count: int) -> None:
        self._check("allocate")
        self.inner.allocate(fd, offset, count)

    def truncate(self, fd: int, size: int) -> None:
        self.inner.truncate(fd, size)

    def size(self, fd: int) -> int:
        return self.inner.size(fd)

    def written_end(self, fd: int) -> int:
        return self.inner.written_end(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._check("rename")
        self.inner.rename(source, target)

    def unlink(self, path: Path) -> None:
        self.inner.unlink(path)

    def connect(self, path: Path) -> sqlite3.Connection:
        made = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, factory=_FaultyConnection
        )
        made.error = lambda: self._error("commit")
        return made


class _FaultyConnection(sqlite3.Connection):
    """Fails at the end of a transaction, as SQLite does on a full or broken disk."""

    error: Callable[[], Exception | None] = staticmethod(lambda: None)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        error = self.error() if sql == "COMMIT" else None
        if error is not None:
            is_full = isinstance(error, StorageFull)
            raised = sqlite3.OperationalError(
                "database or disk is full" if is_full else "disk I/O error"
            )
            raised.sqlite_errorcode = sqlite3.SQLITE_FULL if is_full else sqlite3.SQLITE_IOERR
            raise raised
        return super().execute(sql, parameters)


def no_space() -> Exception:
    """What a full disk gives; a failed sync is never passed on as that (see `Files`)."""
    return StorageFull("no space left on the device of the data folder")


def io_error() -> Exception:
    """What a failing disk gives."""
    return OSError(errno.EIO, os.strerror(errno.EIO))
