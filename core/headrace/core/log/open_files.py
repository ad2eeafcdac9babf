"""OpenFiles: the segments and indexes that are open to be read, a bounded number of them.

One for all streams of a process. A file that somebody reads is never closed under them: closing
waits for the last reader, so no descriptor is read that has come to mean another file. Safe to
use from several threads.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from types import TracebackType

from headrace.core.log.files import Files, NotInMemory

MAX_OPEN = 512


class OpenFile:
    """A descriptor in use; `with` gives it back."""

    __slots__ = ("_pool", "fd", "is_forgotten", "path", "users")

    def __init__(self, pool: OpenFiles, path: Path, fd: int) -> None:
        self._pool = pool
        self.path = path
        self.fd = fd
        self.users = 1
        self.is_forgotten = False

    def __enter__(self) -> int:
        return self.fd

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.give_back(self)


class OpenFiles:
    """At most `max_open` files, beyond which the one unused for longest is closed."""

    def __init__(self, files: Files, max_open: int = MAX_OPEN) -> None:
        self._files = files
        self._max_open = max_open
        self._open: OrderedDict[Path, OpenFile] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, path: Path, *, wait: bool) -> OpenFile:
        """The file, opened if it is not. Use it in a `with`.

        Opening may wait for the disk: without `wait` it raises NotInMemory instead. Raises
        FileNotFoundError.
        """
        with self._lock:
            found = self._open.get(path)
            if found is not None:
                found.users += 1
                self._open.move_to_end(path)
                return found
        if not wait:
            raise NotInMemory(path)
        fd = self._files.open_read(path)  # not under the lock: others need not wait for a disk
        surplus: list[int] = []
        with self._lock:
            found = self._open.get(path)
            if found is not None:  # another thread was faster
                found.users += 1
                surplus.append(fd)
            else:
                found = self._open[path] = OpenFile(self, path, fd)
                surplus += self._over()
        for one in surplus:
            self._files.close(one)
        return found

    def _over(self) -> list[int]:
        """Take out what is too much, but nothing in use."""
        count = len(self._open) - self._max_open
        if count <= 0:
            return []
        idle = [file for file in self._open.values() if not file.users][:count]
        for file in idle:
            del self._open[file.path]
            file.is_forgotten = True
        return [file.fd for file in idle]

    def give_back(self, file: OpenFile) -> None:
        with self._lock:
            file.users -= 1
            is_last = file.is_forgotten and not file.users
        if is_last:
            self._files.close(file.fd)

    def forget(self, path: Path) -> None:
        """Close a file, now or when its last reader is done. Nobody may take it after this."""
        with self._lock:
            file = self._open.pop(path, None)
            if file is None:
                return
            file.is_forgotten = True
            is_idle = not file.users
        if is_idle:
            self._files.close(file.fd)

    def forget_folder(self, folder: Path) -> None:
        with self._lock:
            paths = [path for path in self._open if path.parent == folder]
        for path in paths:
            self.forget(path)

    def close(self) -> None:
        with self._lock:
            paths = list(self._open)
        for path in paths:
            self.forget(path)
