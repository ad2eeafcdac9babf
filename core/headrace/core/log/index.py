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
from headrace.core.log.access import SegmentAccess
from headrace.core.model.sequence import ORDINAL_BITS

_ENTRY = struct.Struct("<QQQII")
_ROW = struct.Struct("<QQQ")
_FOOTER = struct.Struct("<IIQQQQQQII")
_MAGIC = int.from_bytes(b"HRX1", "little")
_VERSION = 1
_BLOCK_ENTRIES = 256  # entries read at once, and kept in the cache of index files: 8 KiB
_VERIFY_BYTES = 1 << 20


Columns = tuple[bytes, bytes, bytes, bytes, bytes]  # the fields of entries, as arrays


class FrameEntry(NamedTuple):
    """One frame's place. `offset` and `length` are bytes, header included."""

    frame_no: int
    arrival_ms: int
    offset: int
    length: int
    records: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


class FrameIndex(Protocol):
    """What reading asks of a segment's index."""

    def walk(self, shard: int, frame_no: int, *, wait: bool) -> Iterator[FrameEntry]:
        """The shard's frames from `frame_no` on, in order.

        Raises NotInMemory where it would have to wait for the disk and may not.
        """

    def first_at(self, shard: int, at_ms: int, *, wait: bool) -> FrameEntry | None:
        """The shard's first frame that arrived at `at_ms` or later. Raises as `walk` does."""


class ActiveIndex:
    """The index of the segment being written: arrays, 32 bytes a frame.

    One thread may add while others read: the frame numbers, which readers go by, grow last.
    """

    def __init__(self) -> None:
        self._shards: dict[int, tuple[array[int], array[int], array[int], array[int], array[int]]]
        self._shards = {}
        self.frames = 0

    def add(self, shard: int, entry: FrameEntry) -> None:
        columns = self._shards.get(shard)
        if columns is None:
            columns = (array("Q"), array("Q"), array("Q"), array("I"), array("I"))
            self._shards[shard] = columns
        numbers, arrivals, offsets, lengths, counts = columns
        counts.append(entry.records)
        lengths.append(entry.length)
        offsets.append(entry.offset)
        arrivals.append(entry.arrival_ms)
        numbers.append(entry.frame_no)
        self.frames += 1

    def columns(self) -> list[tuple[int, Columns]]:
        """All entries, to be kept and handed to `extend`."""
        return [
            (shard, tuple(column.tobytes() for column in columns))  # type: ignore[misc]
            for shard, columns in self._shards.items()
        ]

    def extend(self, shards: Iterable[tuple[int, Columns]]) -> None:
        """Add the entries of another index, which come after those here."""
        for shard, raw in shards:
            columns = self._shards.get(shard)
            if columns is None:
                columns = (array("Q"), array("Q"), array("Q"), array("I"), array("I"))
                self._shards[shard] = columns
            before = len(columns[0])
            for column, more in zip(reversed(columns), reversed(raw), strict=True):
                column.frombytes(more)
            self.frames += len(columns[0]) - before

    def walk(self, shard: int, frame_no: int, *, wait: bool = False) -> Iterator[FrameEntry]:
        columns = self._shards.get(shard)
        if columns is None:
            return
        numbers, arrivals, offsets, lengths, counts = columns
        for i in range(bisect_left(numbers, frame_no), len(numbers)):
            yield FrameEntry(numbers[i], arrivals[i], offsets[i], lengths[i], counts[i])

    def first_at(self, shard: int, at_ms: int, *, wait: bool = False) -> FrameEntry | None:
        columns = self._shards.get(shard)
        if columns is None:
            return None
        count = len(columns[0])
        i = bisect_left(columns[1], at_ms, 0, count)
        if i == count:
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

    __slots__ = (
        "_access", "_crc", "_entries", "_is_verified", "_path", "_shards", "first_arrival_ms",
        "first_frame", "last_arrival_ms", "last_frame",
    )  # fmt: skip

    def __init__(self, path: Path, access: SegmentAccess) -> None:
        """Read the footer. Raises CorruptSegment if it is none (the caller rebuilds)."""
        self._path = path
        self._access = access
        files = access.files
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
        self._is_verified = False

    def _verify(self, fd: int, wait: bool) -> None:
        """Check the whole file, once per run."""
        end = self._entries * _ENTRY.size + self._shards * _ROW.size + _FOOTER.size - 4
        crc = 0
        for at in range(0, end, _VERIFY_BYTES):
            crc = crc32c(self._access.read(fd, at, min(_VERIFY_BYTES, end - at), wait=wait), crc)
        if crc != self._crc:
            raise CorruptSegment(
                "the index file does not match its checksum",
                path=str(self._path),
                hint="remove this .idx file: it is built again from its segment",
            )
        self._is_verified = True

    def _read(self, offset: int, count: int, wait: bool) -> memoryview:
        """Bytes of the file. Raises CorruptSegment, NotInMemory, FileNotFoundError."""
        with self._access.open_files.take(self._path, wait=wait) as fd:
            if not self._is_verified:
                self._verify(fd, wait)
            data = self._access.read(fd, offset, count, wait=wait)
        if len(data) != count:
            raise CorruptSegment("the index file was cut short", path=str(self._path))
        return data

    def _row(self, shard: int, wait: bool) -> tuple[int, int]:
        """First entry and number of entries of a shard."""
        key = (self._path, "row", shard)
        known = self._access.indexes.get(key)
        if isinstance(known, tuple):
            return known
        found = self._find_row(shard, wait)
        self._access.indexes.put(key, found, 256)
        return found

    def _find_row(self, shard: int, wait: bool) -> tuple[int, int]:
        base = self._entries * _ENTRY.size
        low, high = 0, self._shards
        while low < high:
            middle = (low + high) // 2
            row = self._read(base + middle * _ROW.size, _ROW.size, wait)
            found, first, count = _ROW.unpack(row)
            if found == shard:
                return first, count
            if found < shard:
                low = middle + 1
            else:
                high = middle
        return 0, 0

    def _block(self, number: int, wait: bool) -> memoryview:
        """Entries `number` * 256 and on."""
        key = (self._path, number)
        known = self._access.indexes.get(key)
        if isinstance(known, memoryview):
            return known
        first = number * _BLOCK_ENTRIES
        count = min(_BLOCK_ENTRIES, self._entries - first)
        block = self._read(first * _ENTRY.size, count * _ENTRY.size, wait)
        self._access.indexes.put(key, block, len(block))
        return block

    def _entry(self, at: int, wait: bool) -> FrameEntry:
        block, inside = divmod(at, _BLOCK_ENTRIES)
        return FrameEntry(*_ENTRY.unpack_from(self._block(block, wait), inside * _ENTRY.size))

    def _bisect(self, first: int, count: int, field: int, value: int, wait: bool) -> int:
        low, high = first, first + count
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle, wait)[field] < value:
                low = middle + 1
            else:
                high = middle
        return low

    def walk(self, shard: int, frame_no: int, *, wait: bool) -> Iterator[FrameEntry]:
        first, count = self._row(shard, wait)
        at, end = self._bisect(first, count, 0, frame_no, wait), first + count
        while at < end:
            number, inside = divmod(at, _BLOCK_ENTRIES)
            take = min(_BLOCK_ENTRIES - inside, end - at)
            block = self._block(number, wait)
            rows = block[inside * _ENTRY.size : (inside + take) * _ENTRY.size]
            for row in _ENTRY.iter_unpack(rows):
                yield FrameEntry(*row)
            at += take

    def first_at(self, shard: int, at_ms: int, *, wait: bool) -> FrameEntry | None:
        first, count = self._row(shard, wait)
        at = self._bisect(first, count, 1, at_ms, wait)
        return None if at == first + count else self._entry(at, wait)
