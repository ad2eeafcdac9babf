"""Where bytes are read from: an open file, or what is left of one inside a gzip archive.

Both are read by position, so a file that is renamed or deleted meanwhile goes on being read.
Blocking; called from worker threads, except for the few small reads a scan makes.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from headrace.agent.identity import FileKey, inode_generation, key_of


class FileState(NamedTuple):
    """What `fstat` says. `is_linked` is False once no name leads to the file any more."""

    size: int
    mtime_ns: int
    is_linked: bool


class Source(Protocol):
    """Bytes by position."""

    key: FileKey
    inode_generation: int | None
    is_compressed: bool

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer only at the end. Raises OSError."""

    def state(self) -> FileState:
        """Size in (decompressed) bytes, and whether the file still has a name."""

    def next_data(self, offset: int) -> int:
        """The first place at or after `offset` that is not in a hole, or `offset` itself."""

    def current_path(self) -> str | None:
        """The name the file has now, where the system can tell."""

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""


class NotRegular(OSError):
    """The name leads to a directory, a device or a pipe, not to a file that can be tailed."""


class PlainSource:
    """An open file descriptor."""

    is_compressed = False

    def __init__(self, path: str) -> None:
        # NONBLOCK, because opening a pipe somebody made of the name would otherwise hang.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_open = True
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise NotRegular(f"{path} is not a regular file")
        self.key = key_of(found)
        self.inode_generation = inode_generation(self._fd)

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # a short read is rarely more than the end of the file, but it may be
        got = len(data)
        while got < size and (data := os.pread(self._fd, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def state(self) -> FileState:
        found = os.fstat(self._fd)
        return FileState(found.st_size, found.st_mtime_ns, found.st_nlink > 0)

    def next_data(self, offset: int) -> int:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError:  # no data after it, or a file system that does not know holes
            return offset

    def current_path(self) -> str | None:
        try:
            path = os.readlink(f"/proc/self/fd/{self._fd}")
        except OSError:
            return None
        return None if path.endswith(" (deleted)") else path

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._fd)


class GzipSource:
    """The decompressed content of a gzip file. Reading forward is cheap, going back starts over.

    Its size is known only after reading it through, so `state` may take its time once.
    Raises OSError when the archive is damaged or not finished yet.
    """

    is_compressed = True

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - closed by close()
        found = os.fstat(self._file.fileno())
        self.key = key_of(found)
        self.inode_generation = inode_generation(self._file.fileno())
        self._mtime_ns = found.st_mtime_ns
        self._size: int | None = None

    def read_at(self, offset: int, size: int) -> bytes:
        with self._damage_as_oserror():
            self._file.seek(offset)
            return self._file.read(size)

    def state(self) -> FileState:
        if self._size is None:
            with self._damage_as_oserror():
                self._size = self._file.seek(0, os.SEEK_END)
        return FileState(self._size, self._mtime_ns, True)

    def next_data(self, offset: int) -> int:
        return offset

    def current_path(self) -> str | None:
        return self._path

    def close(self) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _damage_as_oserror(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, zlib.error) as error:
            raise OSError(f"{self._path} is a damaged or unfinished archive: {error}") from error


def open_source(path: str, *, is_compressed: bool = False) -> Source:
    """Open `path` for reading. Raises OSError."""
    return GzipSource(path) if is_compressed else PlainSource(path)
