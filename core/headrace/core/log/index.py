"""Where a segment's frames lie: by shard, by frame number, by arrival time.

A sealed segment's index is a file beside it (`.idx`), read by binary search and never held in
memory (see `sealed_index`); the segment being written keeps its own in arrays. Both answer the
same questions.

The file, little endian: entries of 32 bytes sorted by (shard, frame number), then one directory
row of 24 bytes per shard, sorted by shard, then a footer of 64 bytes.

| entry | frame number u64 · arrival ms u64 · offset u64 · frame length u32 · count u32         |
| row   | shard u64 · first entry u64 · entries u64                                            |
| footer| magic `HRX1` u32 · version u32 · first frame u64 · last frame u64 · first arrival u64 |
|       | last arrival u64 · end of the last frame u64 · entries u32 · shards u32              |
|       | crc32c of all before the footer u32 · crc32c of the footer before this u32           |

The footer has a checksum of its own because a start reads nothing else, and by what it says of
arrivals segments are deleted. The index can always be made again from its segment, so that one
of another version is no different from one that is lost.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from crc32c import crc32c

from headrace.core.model.sequence import ORDINAL_BITS

ENTRY = struct.Struct("<QQQII")
ROW = struct.Struct("<QQQ")
_FOOTER = struct.Struct("<IIQQQQQIII")
_CRC = struct.Struct("<I")
_MAGIC = int.from_bytes(b"HRX1", "little")
_VERSION = 2
FOOTER_BYTES = _FOOTER.size + _CRC.size
assert FOOTER_BYTES == 64


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


class Footer(NamedTuple):
    """What an index file says of its segment; see the module's table."""

    first_frame: int
    last_frame: int
    first_arrival_ms: int
    last_arrival_ms: int
    end: int
    entries: int
    shards: int
    body_crc: int

    @property
    def body_bytes(self) -> int:
        """What lies before the footer."""
        return self.entries * ENTRY.size + self.shards * ROW.size

    def encode(self) -> bytes:
        raw = _FOOTER.pack(_MAGIC, _VERSION, *self)
        return raw + _CRC.pack(crc32c(raw))

    @classmethod
    def decode(cls, raw: bytes | memoryview) -> Footer | None:
        """None where it is not a whole, valid one, or of a version this code does not know."""
        told, crc = raw[: _FOOTER.size], raw[_FOOTER.size :]
        if len(raw) != FOOTER_BYTES or _CRC.pack(crc32c(told)) != crc:
            return None
        magic, version, *fields = _FOOTER.unpack(told)
        return cls(*fields) if (magic, version) == (_MAGIC, _VERSION) else None


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
        end: int,
        more: Iterable[tuple[int, FrameEntry]] = (),
    ) -> bytes:
        """The `.idx` file for this segment once it is sealed.

        `end` is that of its last frame. `more` are (shard, entry) of frames after those indexed
        here, in order. Changes nothing, so it may run while others read.
        """
        later: dict[int, list[FrameEntry]] = {}
        for shard, entry in more:
            later.setdefault(shard, []).append(entry)
        parts: list[bytes] = []
        rows: list[bytes] = []
        done = 0
        for shard in sorted(self._shards.keys() | later.keys()):
            columns = self._shards.get(shard, ())
            entries = [ENTRY.pack(*row) for row in zip(*columns, strict=True)]
            entries += [ENTRY.pack(*entry) for entry in later.get(shard, ())]
            parts += entries
            rows.append(ROW.pack(shard, done, len(entries)))
            done += len(entries)
        body = b"".join(parts) + b"".join(rows)
        footer = Footer(
            first_frame, last_frame, first_arrival_ms, last_arrival_ms, end, done, len(rows),
            crc32c(body),
        )  # fmt: skip
        return body + footer.encode()
