"""A folder as an object store: whole files or none, also after a power loss.

put-if-absent is: write `.<name>.<random>.tmp` beside the target, fsync it, `link` it to its name
(which fails when the name is taken; `rename` would replace in silence), unlink the temporary
name, fsync the folder. Readers' globs skip names that start with a dot. Whoever made an object may
have been killed before that last fsync, so who finds a name taken makes it sure to stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from headrace.core.errors import DeliveryError
from headrace.sinks.crash_points import crash_point
from headrace.sinks.stores.protocol import ObjectHead

T = TypeVar("T")

#: So many folders are remembered as sure to stay; beyond, all are synced once more.
SURE_FOLDERS = 1_000

_WAITING = "records wait in the stream meanwhile"
_HINTS = {
    errno.ENOSPC: f"the disk is full; free some space, {_WAITING}",
    errno.EDQUOT: f"the quota is used up; free some space, {_WAITING}",
    errno.EROFS: f"the file system is read-only; mount it writable, {_WAITING}",
    errno.EACCES: f"give this user write permission, {_WAITING}",
    errno.EPERM: f"give this user write permission, {_WAITING}",
    errno.ENOENT: f"put the folder back, or mount what it is on; {_WAITING}",
}
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    """ObjectStore over a folder. Keeps no metadata: whoever compares reads the bytes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sure_folders: set[Path] = set()

    @property
    def destination(self) -> str:
        return str(self._root)

    async def open(self) -> None:
        await self._in_thread(self._make_root)

    async def close(self) -> None:
        return None

    async def put_if_absent(self, key: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        return await self._in_thread(lambda: self._put(key, data))

    async def get(self, key: str) -> bytes | None:
        path = self._path(key)

        def read() -> bytes | None:
            self._require_root()
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

        return await self._in_thread(read)

    async def head(self, key: str) -> ObjectHead | None:
        path = self._path(key)

        def look() -> ObjectHead | None:
            self._require_root()
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return ObjectHead(found.st_size) if stat.S_ISREG(found.st_mode) else None

        return await self._in_thread(look)

    async def list_from(self, prefix: str, after: str = "") -> AsyncIterator[str]:
        folder = self._path(prefix.rstrip("/")) if prefix.strip("/") else self._root
        for key in await self._in_thread(lambda: list(self._walk(folder, prefix, after))):
            yield key

    async def discard_partial(self, key: str) -> None:
        path = self._path(key)

        def sweep() -> None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for found in path.parent.iterdir():
                    if found.name.startswith(f".{path.name}.") and found.name.endswith(".tmp"):
                        found.unlink(missing_ok=True)
                _sync_folder(path.parent)

        await self._in_thread(sweep)

    async def delete(self, key: str) -> None:
        path = self._path(key)
        await self._in_thread(lambda: path.unlink(missing_ok=True))

    def _path(self, key: str) -> Path:
        levels = key.split("/")
        if any(level in ("", ".", "..") or "\0" in level for level in levels):
            raise ValueError(f"{key!r} is no object key")
        return self._root.joinpath(*levels)

    def _require_root(self) -> None:
        # A root that vanished is a disk that is not mounted. Making it again would write to
        # whatever lies below, and reading it would find an empty plan log.
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the target folder is gone", str(self._root))

    def _make_root(self) -> None:
        """`mkdir -p`, each name made durable in its parent as far as this user may."""
        for folder in (*reversed(self._root.parents), self._root):
            is_new = not folder.is_dir()
            if is_new:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
            with contextlib.nullcontext() if is_new else contextlib.suppress(OSError):
                _sync_folder(folder.parent)

    def _make_folder(self, folder: Path) -> None:
        """`mkdir -p` below the root, each name made durable in its parent.

        Also of folders that are there: whoever made one may have been killed before its sync.
        """
        unsure = []
        while folder != self._root and not (folder in self._sure_folders and folder.is_dir()):
            unsure.append(folder)
            folder = folder.parent
        for made in reversed(unsure):
            with contextlib.suppress(FileExistsError):
                made.mkdir()
            _sync_folder(made.parent)
            if len(self._sure_folders) >= SURE_FOLDERS:
                self._sure_folders.clear()
            self._sure_folders.add(made)

    def _put(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        self._require_root()
        if path.exists():
            _sync_folder(path.parent)
            return False
        self._make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            crash_point("temporary-written")
            try:
                _link(temporary, path)
            except FileExistsError:
                _sync_folder(path.parent)
                return False
            crash_point("linked")
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True

    def _walk(self, folder: Path, prefix: str, after: str) -> Iterator[str]:
        found: list[str] = []
        base = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                continue
            # A folder sorts where its keys do: as its name with the slash.
            found.append(f"{base}{entry.name}/" if entry.is_dir() else f"{base}{entry.name}")
        for key in sorted(found, key=str.encode):
            if key.endswith("/"):
                if key.encode() > after.encode() or after.startswith(key):
                    yield from self._walk(folder / key[len(base) : -1], key, after)
            elif key.encode() > after.encode():
                yield key

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except OSError as error:
            raise self._mapped(error) from error

    def _mapped(self, error: OSError) -> DeliveryError:
        where = error.filename or str(self._root)
        return DeliveryError(
            f"{where}: {error.strerror or error}",
            destination=self.destination,
            retryable=True,
            hint=_HINTS.get(error.errno or 0),
        )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _link(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise DeliveryError(
                f"{path.parent}: this file system has no hard links ({error.strerror})",
                destination=str(path.parent),
                retryable=False,
                hint="without them a file cannot be put in place only if its name is free; "
                "choose a folder on ext4, XFS, Btrfs, ZFS or NFS",
            ) from error
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
