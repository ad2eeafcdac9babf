"""Reading frames: from an index entry to the slice of JSON that GetRecords sends.

Every frame read is checked against its checksums; damage is refused by name, never served.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from headrace.core.errors import CorruptSegment
from headrace.core.log.files import Files
from headrace.core.log.format import (
    HEADER_BYTES,
    FrameHeader,
    body_is_valid,
    decode_header,
    record_ends,
    records_region,
)
from headrace.core.log.index import FrameEntry
from headrace.core.log.rendering import last_sequence_number
from headrace.core.log.segment import ActiveSegment, SealedSegment
from headrace.core.model.sequence import BEGINNING, Position

_MAX_READ_FDS = 256
_JOIN_GAP_BYTES = 4096  # frames closer than this are read with one call
_MAX_JOINED_BYTES = 4 << 20


class Slice(NamedTuple):
    """Part of a shard.

    `parts` are JSON objects joined by commas, `records` of them in all. `next` is where the next
    read begins; `next_arrival_ms` when the first record there arrived, None at the tail.
    `missed` says that records between the position asked for and the first one given have
    expired unread.
    """

    parts: list[bytes]
    records: int
    next: Position
    next_arrival_ms: int | None
    missed: bool = False

    @property
    def last_sequence_number(self) -> str:
        """Of the last record of `parts`, which must not be empty."""
        return last_sequence_number(self.parts[-1])


class SegmentReader:
    """Reads segments through a bounded set of open files."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._fds: OrderedDict[Path, int] = OrderedDict()

    def close(self) -> None:
        while self._fds:
            self._files.close(self._fds.popitem()[1])

    def forget(self, path: Path) -> None:
        fd = self._fds.pop(path, None)
        if fd is not None:
            self._files.close(fd)

    def _fd(self, segment: SealedSegment | ActiveSegment) -> int:
        if isinstance(segment, ActiveSegment):
            return segment.fd
        fd = self._fds.get(segment.path)
        if fd is None:
            fd = self._fds[segment.path] = self._files.open_read(segment.path)
            if len(self._fds) > _MAX_READ_FDS:
                self._files.close(self._fds.popitem(last=False)[1])
        else:
            self._fds.move_to_end(segment.path)
        return fd

    def read(
        self,
        segments: Iterable[SealedSegment | ActiveSegment],
        shard: int,
        asked: Position,
        start: Position,
        max_records: int,
        max_bytes: int,
    ) -> Slice:
        """From `start` on; `asked` <= `start` is where the reader thinks it is."""
        parts: list[bytes] = []
        count = stored = 0
        at = start
        missed = False
        for segment in segments:
            wanted: list[FrameEntry] = []
            planned = count
            beyond: FrameEntry | None = None  # the first frame there is no room for
            for entry in segment.index.walk(shard, at.frame_no):
                skipped = at.ordinal if entry.frame_no == at.frame_no else 0
                if skipped >= entry.records:
                    continue
                if planned >= max_records or (stored and stored + entry.length > max_bytes):
                    beyond = entry
                    break
                wanted.append(entry)
                planned += entry.records - skipped
                stored += entry.length
            for entry, raw in self._frames(segment, wanted):
                first = at.ordinal if entry.frame_no == at.frame_no else 0
                last = min(entry.records, first + max_records - count)
                header = _checked(segment.path, entry, raw)
                if not parts:
                    missed = asked != BEGINNING and header.previous >= asked.record_index
                part, last = _cut(header, raw[HEADER_BYTES:], first, last, max_bytes)
                parts.append(part)
                count += last - first
                at = Position(entry.frame_no, last)
                if last < entry.records:
                    return Slice(parts, count, at, entry.arrival_ms, missed)
            if beyond is not None:
                return Slice(parts, count, at, beyond.arrival_ms, missed)
        return Slice(parts, count, at, None, missed)

    def _frames(
        self, segment: SealedSegment | ActiveSegment, entries: list[FrameEntry]
    ) -> Iterable[tuple[FrameEntry, memoryview]]:
        """The bytes of frames; neighbours with one read."""
        if not entries:
            return
        fd = self._fd(segment)
        start = 0
        while start < len(entries):
            end = start + 1
            base = entries[start].offset
            upto = base + entries[start].length
            while (
                end < len(entries)
                and entries[end].offset - upto <= _JOIN_GAP_BYTES
                and upto - base < _MAX_JOINED_BYTES
            ):
                upto = entries[end].offset + entries[end].length
                end += 1
            raw = memoryview(self._files.read_at(fd, upto - base, base))
            for entry in entries[start:end]:
                inside = entry.offset - base
                yield entry, raw[inside : inside + entry.length]
            start = end


def _checked(path: Path, entry: FrameEntry, raw: memoryview) -> FrameHeader:
    header = decode_header(raw)
    if (
        header is None
        or header.frame_no != entry.frame_no
        or not body_is_valid(header, raw[HEADER_BYTES:])
    ):
        raise CorruptSegment(
            f"segment {path} is damaged: frame {entry.frame_no} at byte {entry.offset} does not "
            "match its checksum",
            path=str(path),
            offset=entry.offset,
            hint="restore this file from a copy; reading after this frame still works",
        )
    return header


def _cut(
    header: FrameHeader, body: memoryview, first: int, last: int, max_bytes: int
) -> tuple[bytes, int]:
    """Records `first`..`last` (exclusive) of a frame, as stored.

    Ends before `last` where the records would take more than `max_bytes`, but gives one at least;
    returns the end it came to.
    """
    start, end = records_region(header)
    if first == 0 and last == header.records and end - start <= max_bytes:
        return bytes(body[start:end]), last
    ends = record_ends(header, body)
    begin = ends[first - 1] + 1 if first else 0
    if ends[last - 1] - begin > max_bytes:
        last = max(first + 1, bisect_right(ends, begin + max_bytes, first, last))
    return bytes(body[start + begin : start + ends[last - 1]]), last
