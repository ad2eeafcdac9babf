"""Where a segment's frames lie: by shard, by frame number, by arrival time.

A sealed segment's index is a file beside it (`.idx`), read by binary search and never held in
memory; the segment being written keeps its own in arrays. Both answer the same questions.

The file, little endian: entries of 32 bytes sorted by (shard, frame number), then one directory
row of 24 bytes per shard, sorted by shard, then a footer of 64 bytes.

| entry | frame number u64 · arrival ms u64 · offset u64 · frame length u32 · count u32         |
| row   | shard u64 · first entry u64 · entries u64                                            |
| footer| magic `HRX1` u32 · version u32 · first frame u64 · last frame u64 · first arrival u64 |
|       | last arrival u64 · entries u64 · shards u64 · payload u32 (unused) · crc32c u32      |

The index can always be made again from its segment.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from crc32c import crc32c

from headrace.core.errors import CorruptSegment
from headrace.core.log.files import Files
from headrace.core.model.sequence import ORDINAL_BITS

_ENTRY = struct.Struct("<QQQII")
_ROW = struct.Struct("<QQQ")
_FOOTER = struct.Struct("<IIQQQQQQII")
_MAGIC = int.from_bytes(b"HRX1", "little")
_VERSION = 1
_READ_AHEAD = 256  # entries read at once while walking: 8 KiB


class FrameEntry(NamedTuple):
    """One frame's place. `offset` and `length` are bytes, header included."""

    frame_no: int
    arrival_ms: int
    offset: int
    length: int
    records: int


class FrameIndex(Protocol):
    """What reading asks of a segment's index."""

    def walk(self, shard: int, frame_no: int) -> Iterator[FrameEntry]:
        """The shard's frames from `frame_no` on, in order."""

    def first_at(self, shard: int, at_ms: int) -> FrameEntry | None:
        """The shard's first frame that arrived at `at_ms` or later."""


class ActiveIndex:
    """The index of the segment being written: arrays, 32 bytes a frame."""

    def __init__(self) -> None:
        self._shards: dict[int, tuple[array[int], array[int], array[int], array[int], array[int]]]
        self._shards = {}
        self.frames = 0

    def add(self, shard: int, entry: FrameEntry) -> None:
        columns = self._shards.get(shard)
        if columns is None:
            columns = (array("Q"), array("Q"), array("Q"), array("I"), array("I"))
            self._shards[shard] = columns
        for column, value in zip(columns, entry, strict=True):
            column.append(value)
        self.frames += 1

    def walk(self, shard: int, frame_no: int) -> Iterator[FrameEntry]:
        columns = self._shards.get(shard)
        if columns is None:
            return
        numbers, arrivals, offsets, lengths, counts = columns
        for i in range(bisect_left(numbers, frame_no), len(numbers)):
            yield FrameEntry(numbers[i], arrivals[i], offsets[i], lengths[i], counts[i])

    def first_at(self, shard: int, at_ms: int) -> FrameEntry | None:
        columns = self._shards.get(shard)
        if columns is None:
            return None
        i = bisect_left(columns[1], at_ms)
        if i == len(columns[1]):
            return None
        return FrameEntry(*(column[i] for column in columns))

    def last_indexes(self) -> dict[int, int]:
        """Sequence index of each shard's last record."""
        return {
            shard: numbers[-1] << ORDINAL_BITS | (counts[-1] - 1)
            for shard, (numbers, _, _, _, counts) in self._shards.items()
        }

    def encode(
        self,
        *,
        first_frame: int,
        last_frame: int,
        first_arrival_ms: int,
        last_arrival_ms: int,
        more: Iterable[tuple[int, FrameEntry]] = (),
    ) -> bytes:
        """The `.idx` file for this segment once it is sealed.

        `more` are (shard, entry) of frames after those indexed here, in order. Changes nothing,
        so it may run while others read.
        """
        later: dict[int, list[FrameEntry]] = {}
        for shard, entry in more:
            later.setdefault(shard, []).append(entry)
        parts: list[bytes] = []
        rows: list[bytes] = []
        done = 0
        for shard in sorted(self._shards.keys() | later.keys()):
            columns = self._shards.get(shard, ())
            entries = [_ENTRY.pack(*row) for row in zip(*columns, strict=True)]
            entries += [_ENTRY.pack(*entry) for entry in later.get(shard, ())]
            parts += entries
            rows.append(_ROW.pack(shard, done, len(entries)))
            done += len(entries)
        body = b"".join(parts) + b"".join(rows)
        footer = _FOOTER.pack(
            _MAGIC, _VERSION, first_frame, last_frame, first_arrival_ms, last_arrival_ms,
            done, len(rows), 0, 0,
        )  # fmt: skip
        crc = crc32c(footer[:-4], crc32c(body))
        return body + footer[:-4] + struct.pack("<I", crc)


class SealedIndex:
    """An `.idx` file, searched in place."""

    def __init__(self, path: Path, files: Files) -> None:
        """Read the footer. Raises CorruptSegment if it is none (the caller rebuilds)."""
        self._path = path
        self._files = files
        fd = files.open_read(path)
        try:
            size = files.size(fd)
            raw = files.read_at(fd, _FOOTER.size, size - _FOOTER.size) if size >= 64 else b""
        finally:
            files.close(fd)
        if len(raw) != _FOOTER.size:
            raise CorruptSegment("the index file is cut short", path=str(path))
        (
            magic, version, self.first_frame, self.last_frame, self.first_arrival_ms,
            self.last_arrival_ms, self._entries, self._shards, _, self._crc,
        ) = _FOOTER.unpack(raw)  # fmt: skip
        want = self._entries * _ENTRY.size + self._shards * _ROW.size + _FOOTER.size
        if magic != _MAGIC or version != _VERSION or want != size:
            raise CorruptSegment("the index file has no valid footer", path=str(path))
        self._verified = False

    def _open(self) -> int:
        fd = self._files.open_read(self._path)
        if not self._verified:  # once per run; an index is read rarely and fits memory for that
            raw = self._files.read_at(fd, self._files.size(fd), 0)
            if crc32c(raw[:-4]) != self._crc:
                self._files.close(fd)
                raise CorruptSegment(
                    "the index file does not match its checksum",
                    path=str(self._path),
                    hint="remove this .idx file: it is built again from its segment",
                )
            self._verified = True
        return fd

    def _row(self, fd: int, shard: int) -> tuple[int, int]:
        """First entry and number of entries of a shard."""
        base = self._entries * _ENTRY.size
        low, high = 0, self._shards
        while low < high:
            middle = (low + high) // 2
            found, first, count = _ROW.unpack(
                self._files.read_at(fd, _ROW.size, base + middle * _ROW.size)
            )
            if found == shard:
                return first, count
            if found < shard:
                low = middle + 1
            else:
                high = middle
        return 0, 0

    def _bisect(self, fd: int, first: int, count: int, field: int, value: int) -> int:
        low, high = first, first + count
        while low < high:
            middle = (low + high) // 2
            entry = _ENTRY.unpack(self._files.read_at(fd, _ENTRY.size, middle * _ENTRY.size))
            if entry[field] < value:
                low = middle + 1
            else:
                high = middle
        return low

    def walk(self, shard: int, frame_no: int) -> Iterator[FrameEntry]:
        fd = self._open()
        try:
            first, count = self._row(fd, shard)
            at, end = self._bisect(fd, first, count, 0, frame_no), first + count
            ahead = 8
            while at < end:
                take = min(ahead, end - at)
                raw = self._files.read_at(fd, take * _ENTRY.size, at * _ENTRY.size)
                for row in _ENTRY.iter_unpack(raw):
                    yield FrameEntry(*row)
                at += take
                ahead = _READ_AHEAD
        finally:
            self._files.close(fd)

    def first_at(self, shard: int, at_ms: int) -> FrameEntry | None:
        fd = self._open()
        try:
            first, count = self._row(fd, shard)
            at = self._bisect(fd, first, count, 1, at_ms)
            if at == first + count:
                return None
            raw = self._files.read_at(fd, _ENTRY.size, at * _ENTRY.size)
            return FrameEntry(*_ENTRY.unpack(raw))
        finally:
            self._files.close(fd)
