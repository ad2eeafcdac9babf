"""The filesystem seam: every byte the log reads or writes goes through one of these.

`SystemFiles` is the machine's own. `headrace.core.testing.faulty_files` has one that fails on
purpose and one that knows what a power cut would leave.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from headrace.core.errors import StorageFull, StorageLocked

# What a read gives up with rather than wait for the disk; 0 where the system has no such thing.
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
# A full disk, and a quota that is used up: to us the same, everywhere.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_A_LITTLE = 1 << 16


class NotInMemory(Exception):
    """A read that may not wait for the disk would have had to."""


class Files(Protocol):
    """What the log needs of a filesystem. Blocking; called from one writer thread per stream."""

    def open_append(self, path: Path) -> int:
        """A descriptor for reading and writing; the file is created if it is not there.

        Raises StorageFull.
        """

    def open_read(self, path: Path) -> int: ...
    def close(self, fd: int) -> None: ...
    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write all of it. Raises StorageFull with possibly some of it written."""

    def read_at(self, fd: int, count: int, offset: int) -> bytes: ...
    def read_into(self, fd: int, buffer: memoryview, offset: int, *, wait: bool) -> int:
        """Fill `buffer`; returns how many bytes, fewer only at the end of the file.

        Without `wait` it never waits for the disk: raises NotInMemory if it would have to.
        """

    def sync_data(self, fd: int) -> None:
        """fdatasync. Whatever it raises, a full disk too, is beyond repair."""

    def sync(self, fd: int) -> None: ...
    def sync_dir(self, path: Path) -> None: ...
    def allocate(self, fd: int, offset: int, count: int) -> None:
        """Reserve space, so that running out shows here. Raises StorageFull."""

    def truncate(self, fd: int, size: int) -> None: ...
    def size(self, fd: int) -> int: ...
    def written_end(self, fd: int) -> int:
        """Where what was ever written ends: space that was only reserved is not counted.

        The file's size where the filesystem cannot tell. Ask before reading: what was read is
        written to some filesystems.
        """

    def rename(self, source: Path, target: Path) -> None:
        """Replaces `target`. Raises StorageFull."""

    def unlink(self, path: Path) -> None: ...
    def connect(self, path: Path) -> sqlite3.Connection:
        """A database, made if it is not there. For one thread at a time."""


class SystemFiles:
    """The machine's filesystem."""

    def open_append(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise mapped(error) from error

    def open_read(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise mapped(error) from error

    def close(self, fd: int) -> None:
        os.close(fd)

    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        try:
            for start in range(0, len(buffers), 512):  # IOV_MAX is 1024
                part = buffers[start : start + 512] if len(buffers) > 512 else buffers
                want = sum(map(len, part))
                done = os.pwritev(fd, part, offset)
                if done != want:
                    rest = b"".join(part)[done:]
                    while rest:
                        more = os.pwrite(fd, rest, offset + done)
                        done += more
                        rest = rest[more:]
                offset += want
        except OSError as error:
            raise mapped(error) from error

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        data = os.pread(fd, count, offset)
        while 0 < len(data) < count:
            more = os.pread(fd, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_into(self, fd: int, buffer: memoryview, offset: int, *, wait: bool) -> int:
        if not wait:
            return _read_cached(fd, buffer, offset)
        done = os.preadv(fd, [buffer], offset)
        while 0 < done < len(buffer):
            more = os.preadv(fd, [buffer[done:]], offset + done)
            if not more:
                break
            done += more
        return done

    def sync_data(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_dir(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise mapped(error) from error
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, offset: int, count: int) -> None:
        try:
            os.posix_fallocate(fd, offset, count)
        except OSError as error:
            raise mapped(error) from error

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def written_end(self, fd: int) -> int:
        end = 0
        while True:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
                end = os.lseek(fd, start, os.SEEK_HOLE)
            except OSError as error:
                return end if error.errno == errno.ENXIO else self.size(fd)

    def rename(self, source: Path, target: Path) -> None:
        try:
            source.replace(target)
        except OSError as error:
            raise mapped(error) from error

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def connect(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False, isolation_level=None)


def _read_cached(fd: int, buffer: memoryview, offset: int) -> int:
    if not _NOWAIT:
        raise NotInMemory
    try:
        done = os.preadv(fd, [buffer], offset, _NOWAIT)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):  # or a filesystem that cannot tell
            raise NotInMemory from None
        raise
    if done < len(buffer):
        raise NotInMemory  # the rest is on the disk, or this is the end: a read that waits can tell
    return done


def is_no_room(error: BaseException) -> bool:
    """Whether it passes by itself once there is room, on the disk or in the user's quota of it.

    (Or files are closed: StorageFull is raised for too many open ones as well.)
    """
    return isinstance(error, StorageFull) or (
        isinstance(error, OSError) and error.errno in _NO_ROOM
    )


def is_full(files: Files, folder: Path) -> bool:
    """Whether there is no room for a little more in a folder: tries it.

    False also where writing fails for any other reason.
    """
    path = folder / "room.tmp"
    try:
        try:
            fd = files.open_append(path)
            try:
                files.write_at(fd, [bytes(_A_LITTLE)], 0)
            finally:
                files.close(fd)
        finally:
            files.unlink(path)
    except (StorageFull, OSError) as error:
        return is_no_room(error)
    return False


def mapped(error: OSError) -> OSError | StorageFull:
    """What to raise for it: StorageFull if that is what it says, else the error itself."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StorageFull(
            "too many files are open",
            hint="raise the limit of open files (ulimit -n); puts work again by themselves",
        )
    if error.errno in _NO_ROOM:
        return StorageFull(
            "no space left on the device of the data folder",
            hint="free some space or shorten the retention; puts work again by themselves",
        )
    return error


class FolderLock:
    """One process per data folder, held by flock: it ends with the process, however that dies."""

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises StorageLocked naming the process that has it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "LOCK"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StorageLocked(
                f"the data folder {folder} is in use by process {owner}",
                path=str(folder),
                hint="stop that process, or give this one another --data folder",
            ) from None
        mine = f"{os.getpid()}\n".encode()
        with contextlib.suppress(OSError):  # on a full disk: it is only there to be told of
            os.pwrite(self._fd, mine, 0)  # over the one before, which takes no more room
            os.ftruncate(self._fd, len(mine))

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)
