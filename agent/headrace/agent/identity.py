"""Who a file is, told from its own bytes and its inode.

A path names a place, not a file: rotation moves files between paths, and a freed inode number
comes back on another file. So a file is known by its device and inode, plus two things about its
content that a replacement does not share: how it begins (`Head`) and what stands right before the
place read up to (`Mark`). Pure functions over bytes; the only system call is `inode_generation`.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import msgspec

HEAD_BYTES = 4096
MARK_BYTES = 4096

_FS_IOC_GETVERSION = 0x80087601  # linux/fs.h, _IOR('v', 1, long)


class FileKey(NamedTuple):
    """Device and inode: the same file now, under whatever name; a later file perhaps too."""

    device: int
    inode: int


def digest(data: bytes) -> bytes:
    """Eight bytes that stand for `data`."""
    return blake2b(data, digest_size=8).digest()


def new_identity() -> str:
    """80 random bits as 16 lower-case characters: the producer id of one file, for good."""
    return base64.b32encode(secrets.token_bytes(10)).decode().lower()


def inode_generation(fd: int) -> int | None:
    """The number a file system gives an inode each time it is used afresh; None if it has none.

    ext4, XFS, btrfs and f2fs have it. It tells a new file from the old one whose inode number it
    got, even where both begin with the same bytes.
    """
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETVERSION, buffer)
    except OSError:
        return None
    return int(struct.unpack("=q", buffer)[0])


def key_of(stat: os.stat_result) -> FileKey:
    return FileKey(stat.st_dev, stat.st_ino)


class Head(msgspec.Struct, frozen=True, gc=False):
    """How a file begins: digests of its first 1, 2, 4 … bytes and of its first `length` bytes.

    It grows with the file up to 4096 bytes. The steps let a shorter file be compared: a copy
    under way, or one that ended early.
    """

    length: int = 0
    whole: bytes = b""
    steps: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, data: bytes) -> Head:
        """The head of a file that begins with `data` (what lies beyond 4096 bytes is ignored).

        NULs at the end are left out: they are space set aside, to be written over later.
        """
        data = data[:HEAD_BYTES].rstrip(b"\0")
        length = len(data)
        steps = tuple(digest(data[: 1 << step]) for step in range(length.bit_length()))
        return cls(length=length, whole=digest(data), steps=steps)

    def begins(self, data: bytes) -> bool:
        """True when `data`, the start of a file, has all of this head at its start."""
        return len(data) >= self.length and (
            not self.length or digest(data[: self.length]) == self.whole
        )

    def common(self, data: bytes, digest_of: Callable[[int], bytes] | None = None) -> int:
        """How many bytes of this head and of `data` are known to be the same; -1 if they differ.

        All of the head where `data` is long enough, else the largest step that `data` reaches.
        `digest_of` gives the digest of so many first bytes of `data`, for who remembers them.
        """
        if not self.length or not data:
            return 0
        if len(data) >= self.length:
            length, value = self.length, self.whole
        else:
            step = len(data).bit_length() - 1
            length, value = 1 << step, self.steps[step]
        found = digest(data[:length]) if digest_of is None else digest_of(length)
        return length if found == value else -1


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands before `offset`: the digest of the up to 4096 bytes that end there."""

    offset: int
    value: bytes

    @classmethod
    def at(cls, offset: int, before: bytes) -> Mark:
        """The mark for `offset`, where `before` ends at it and is long enough."""
        return cls(offset, digest(before[-min(MARK_BYTES, offset) :] if offset else b""))

    @property
    def start(self) -> int:
        """Where the bytes this mark stands for begin."""
        return max(0, self.offset - MARK_BYTES)

    def holds(self, before: bytes) -> bool:
        """True when `before` is what stood at `start`..`offset` when the mark was made."""
        return len(before) == self.offset - self.start and digest(before) == self.value
