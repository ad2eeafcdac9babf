"""PowerCutFiles: a filesystem seam that knows what a power cut would leave.

Works on real files, and keeps book of what has been synced. `leave(folder, random)` writes one of
the legal states of the disk after a cut at this moment into another folder:

- of every write that was not synced, each 512-byte sector has arrived or not, on its own;
- an unsynced truncation or extension has happened or not;
- of the changes to a directory since its last sync, the first n have happened (a journal keeps
  their order), for any n.

Sound for ext4 and XFS as the ALICE study (OSDI 2014) describes them; stricter than either.
"""

from __future__ import annotations

import errno
import os
import random as random_module
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.log.files import SystemFiles

SECTOR_BYTES = 512


@dataclass(slots=True)
class _Inode:
    """A file's durable bytes and what was done to it since. A change is (offset, bytes) or a
    size."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)


@dataclass(slots=True)
class _Directory:
    """Durable names, and the changes since: (name, inode or None for gone)."""

    durable: dict[str, _Inode] = field(default_factory=dict)
    pending: list[list[tuple[str, _Inode | None]]] = field(default_factory=list)

    def now(self) -> dict[str, _Inode]:
        names = dict(self.durable)
        for change in self.pending:
            _change(names, change)
        return names


def _change(names: dict[str, _Inode], change: list[tuple[str, _Inode | None]]) -> None:
    for name, inode in change:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


class PowerCutFiles(SystemFiles):
    """The machine's filesystem with a memory of what is durable. One folder deep."""

    def __init__(self) -> None:
        self._directories: dict[Path, _Directory] = {}
        self._open: dict[int, _Inode] = {}
        self.fails_next_sync = False
        """The next sync of data fails, and the kernel takes what it could not write for written:
        it is read back as before, no later sync writes it, and a power cut shows it is missing."""

    def _directory(self, path: Path) -> _Directory:
        return self._directories.setdefault(path, _Directory())

    def open_append(self, path: Path) -> int:
        directory = self._directory(path.parent)
        inode = directory.now().get(path.name)
        fd = super().open_append(path)
        if inode is None:
            inode = _Inode(bytearray(path.read_bytes()))
            directory.pending.append([(path.name, inode)])
        self._open[fd] = inode
        return fd

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        super().close(fd)

    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        super().write_at(fd, buffers, offset)
        self._open[fd].pending.append((offset, b"".join(buffers)))

    def allocate(self, fd: int, offset: int, count: int) -> None:
        super().allocate(fd, offset, count)
        self._open[fd].pending.append(-(offset + count))  # grows to at least this

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self._open[fd].pending.append(size)

    def sync_data(self, fd: int) -> None:
        if self.fails_next_sync:
            self.fails_next_sync = False
            inode = self._open[fd]
            inode.pending = [change for change in inode.pending if isinstance(change, int)]
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_data(fd)
        self._settle(self._open[fd])

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._settle(self._open[fd])

    @staticmethod
    def _settle(inode: _Inode) -> None:
        for change in inode.pending:
            _apply(inode.durable, change, None)
        inode.pending.clear()

    def sync_dir(self, path: Path) -> None:
        super().sync_dir(path)
        directory = self._directory(path)
        directory.durable = directory.now()
        directory.pending.clear()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        directory = self._directory(source.parent)
        inode = directory.now()[source.name]
        directory.pending.append([(source.name, None), (target.name, inode)])

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._directory(path.parent).pending.append([(path.name, None)])

    def adopt(self, folder: Path) -> None:
        """Know all that is in a folder to be durable: it was left by a cut, and here is the next
        machine."""
        durable = self._directory(folder).durable
        for path in folder.iterdir():
            durable[path.name] = _Inode(bytearray(path.read_bytes()))

    def leave(self, source: Path, target: Path, random: random_module.Random) -> None:
        """Write what is left of the folder `source` after a cut into the new folder `target`."""
        target.mkdir()
        directory = self._directory(source)
        names = dict(directory.durable)
        for change in directory.pending[: random.randint(0, len(directory.pending))]:
            _change(names, change)
        for name, inode in names.items():
            content = bytearray(inode.durable)
            for piece in inode.pending:
                _apply(content, piece, random)
            (target / name).write_bytes(content)


def _apply(
    content: bytearray, change: tuple[int, bytes] | int, random: random_module.Random | None
) -> None:
    """One change, wholly (no random) or as far as chance lets it."""
    if isinstance(change, int):
        if random is not None and random.random() < 0.5:
            return
        if change < 0:
            content.extend(bytes(max(-change - len(content), 0)))
        else:
            del content[change:]
            content.extend(bytes(change - len(content)))
        return
    offset, data = change
    survival = 1.0 if random is None else random.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    at = 0
    while at < len(data):
        step = min(SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(data) - at)
        if random is None or random.random() < survival:
            end = offset + at + step
            content.extend(bytes(max(end - len(content), 0)))
            content[offset + at : end] = data[at : at + step]
        at += step
