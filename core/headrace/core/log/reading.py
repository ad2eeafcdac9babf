"""Reading frames: from an index entry to the slice of JSON that GetRecords sends.

Every frame read is checked against its checksums; damage is refused by name, never served. What
is given out are views of the memory the disk was read into: nothing is copied, and a frame that is
wanted whole costs the same whatever the number of its records.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.core.errors import CorruptSegment
from headrace.core.log.access import Frame, SegmentAccess
from headrace.core.log.files import NotInMemory
from headrace.core.log.format import (
    HEADER_BYTES,
    body_is_valid,
    decode_header,
    record_ends,
    records_region,
)
from headrace.core.log.index import FrameEntry
from headrace.core.log.rendering import last_sequence_number
from headrace.core.log.segment import ActiveSegment, SealedSegment
from headrace.core.model.sequence import BEGINNING, Position

Segment = SealedSegment | ActiveSegment

_JOIN_GAP_BYTES = 4096  # frames closer than this are read with one call
_MAX_JOINED_BYTES = 4 << 20
# Searching one segment's index takes some 30 us, also when nothing of the shard is in it: more than
# this many are for a thread.
SEGMENTS_AT_ONCE = 32


class Slice(msgspec.Struct, frozen=True, gc=False):
    """Part of a shard.

    `parts` are JSON objects joined by commas, `records` of them in all. `next` is where the next
    read begins; `next_arrival_ms` when the first record there arrived, None at the tail.
    `missed` says that records between the position asked for and the first one given have
    expired unread.
    """

    parts: list[memoryview]
    records: int
    next: Position
    next_arrival_ms: int | None
    missed: bool = False

    @property
    def last_sequence_number(self) -> str:
        """Of the last record of `parts`, which must not be empty."""
        return last_sequence_number(bytes(self.parts[-1][-128:]))


class _Wanted(NamedTuple):
    """A frame to be read, from record `first` on; `is_whole` if all of it will be given."""

    entry: FrameEntry
    first: int
    is_whole: bool


def read_slice(
    access: SegmentAccess,
    segments: Iterable[Segment],
    shard: int,
    asked: Position,
    start: Position,
    max_records: int,
    max_bytes: int,
    *,
    wait: bool,
) -> Slice:
    """From `start` on; `asked` <= `start` is where the reader thinks it is.

    Raises CorruptSegment; NotInMemory if it may not wait for the disk and would have to;
    FileNotFoundError for a segment that has been trimmed since `segments` was taken.
    """
    parts: list[memoryview] = []
    count = stored = 0
    at = start
    missed = False
    for looked, segment in enumerate(segments):
        if looked >= SEGMENTS_AT_ONCE and not wait:
            raise NotInMemory
        wanted: list[_Wanted] = []
        planned = count
        beyond: FrameEntry | None = None  # the first frame there is no room for
        for entry in segment.index.walk(shard, at.frame_no, wait=wait):
            first = at.ordinal if entry.frame_no == at.frame_no else 0
            if first >= entry.records:
                continue
            if planned >= max_records or (stored and stored + entry.length > max_bytes):
                beyond = entry
                break
            planned += entry.records - first
            stored += entry.length
            is_whole = first == 0 and planned <= max_records and entry.length <= max_bytes
            wanted.append(_Wanted(entry, first, is_whole))
        for (entry, first, is_whole), (header, body) in _frames(access, segment, wanted, wait):
            if not parts:
                missed = asked != BEGINNING and header.previous >= asked.record_index
            last = entry.records
            region, end = records_region(header)
            if is_whole:
                parts.append(body[region:end])
            else:
                last = min(last, first + max_records - count)
                part, last = _cut(
                    body[region:end], record_ends(header, body), first, last, max_bytes
                )
                parts.append(part)
            count += last - first
            at = Position(entry.frame_no, last)
            if last < entry.records:
                return Slice(parts, count, at, entry.arrival_ms, missed)
        if beyond is not None:
            return Slice(parts, count, at, beyond.arrival_ms, missed)
    return Slice(parts, count, at, None, missed)


def _frames(
    access: SegmentAccess, segment: Segment, wanted: list[_Wanted], wait: bool
) -> Iterator[tuple[_Wanted, Frame]]:
    """The frames, checked; neighbours with one read.

    One that is wanted in part is kept: the next read is likely to go on in it, and a reader of a
    record at a time must not cost a whole frame each time.
    """
    if not wanted:
        return
    # the file being written has just been used: opening it does not wait for the disk
    may_open = wait or isinstance(segment, ActiveSegment)
    with access.open_files.take(segment.path, wait=may_open) as fd:
        for run in _runs(wanted):
            entry = run[0].entry
            if not run[0].is_whole:
                key = (segment.path, entry.offset)
                frame = access.frames.get(key)
                if frame is None:
                    raw = access.read(fd, entry.offset, entry.length, wait=wait)
                    frame = _checked(segment.path, entry, raw)
                    access.frames.put(key, frame, entry.length)
                yield run[0], frame
                continue
            base = entry.offset
            raw = access.read(fd, base, run[-1].entry.end - base, wait=wait)
            for one in run:
                entry = one.entry
                yield (
                    one,
                    _checked(segment.path, entry, raw[entry.offset - base : entry.end - base]),
                )


def _runs(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    """Frames to be read with one call: neighbours that are wanted whole."""
    run: list[_Wanted] = []
    for one in wanted:
        if run and not (
            one.is_whole
            and run[-1].is_whole
            and one.entry.offset - run[-1].entry.end <= _JOIN_GAP_BYTES
            and one.entry.end - run[0].entry.offset <= _MAX_JOINED_BYTES
        ):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _checked(path: Path, entry: FrameEntry, raw: memoryview) -> Frame:
    header = decode_header(raw)
    body = raw[HEADER_BYTES:]
    if header is None or header.frame_no != entry.frame_no or not body_is_valid(header, body):
        raise CorruptSegment(
            f"segment {path} is damaged: frame {entry.frame_no} at byte {entry.offset} does not "
            "match its checksum",
            path=str(path),
            offset=entry.offset,
            hint="restore this file from a copy; reading after this frame still works",
        )
    return header, body


def _cut(
    records: memoryview, ends: memoryview, first: int, last: int, max_bytes: int
) -> tuple[memoryview, int]:
    """Records `first`..`last` (exclusive) of a frame's joined `records`.

    Ends before `last` where they would take more than `max_bytes`, but gives one at least;
    returns the end it came to.
    """
    begin = ends[first - 1] + 1 if first else 0
    if ends[last - 1] - begin > max_bytes:
        last = max(first + 1, bisect_right(ends, begin + max_bytes, first, last))
    return records[begin : ends[last - 1]], last
