"""LogSnapshot: what of a log can be read at one moment.

Taken by the log's owner, and read there or in a thread while the owner goes on: segments may be
rolled, and trimmed, meanwhile. What is in the snapshot stays as it was, for files are only
appended to; a segment that has been trimmed and was not open shows as FileNotFoundError.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import NotInMemory
from headrace.core.log.newest import Newest
from headrace.core.log.reading import SEGMENTS_AT_ONCE, Segment, Slice, read_slice
from headrace.core.log.segment import ActiveSegment, SealedSegment
from headrace.core.model.sequence import BEGINNING, Position


class LogSnapshot(NamedTuple):
    """`tail` is after all that could be read when it was taken."""

    access: SegmentAccess
    sealed: tuple[SealedSegment, ...]
    active: ActiveSegment
    tail: Position
    newest: Newest | None

    def read(
        self,
        shard: int,
        position: Position,
        *,
        floor: Position = BEGINNING,
        max_records: int,
        max_bytes: int,
        wait: bool = True,
    ) -> Slice:
        """Records of a shard from `position` on, at least one if there are any.

        At most `max_records` and `max_bytes` of stored bytes (but one record always); nothing
        that lies before `floor`. Without `wait` raises NotInMemory rather than wait for the disk.
        """
        start = max(position, floor)
        if start >= self.tail:
            return Slice([], 0, start, None)
        if self.newest is not None:
            known = self.newest.read(shard, position, start, max_records, max_bytes)
            if known is not None:
                return known
        part = read_slice(
            self.access, self._from(start.frame_no), shard, position, start, max_records,
            max_bytes, wait=wait,
        )  # fmt: skip
        if part.next_arrival_ms is None and part.next < self.tail:
            # a reader of a quiet shard need not look through the same segments again and again
            return msgspec.structs.replace(part, next=self.tail)
        return part

    def _from(self, frame_no: int) -> Iterator[Segment]:
        index = bisect_right(self.sealed, frame_no, key=lambda s: s.first_frame) - 1
        for i in range(max(index, 0), len(self.sealed)):
            if self.sealed[i].last_frame >= frame_no:
                yield self.sealed[i]
        yield self.active

    def find_time(self, shard: int, at_ms: int, *, wait: bool = True) -> Position:
        """Where the shard's first record that arrived at `at_ms` or later is; the tail if none.

        A record that is still in flight then counts as arriving later, whatever it will say.
        Without `wait` raises NotInMemory rather than wait for the disk.
        """
        index = bisect_right(self.sealed, at_ms - 1, key=lambda s: s.last_arrival_ms)
        for i in range(index, len(self.sealed)):
            if i - index >= SEGMENTS_AT_ONCE and not wait:
                raise NotInMemory
            entry = self.sealed[i].index.first_at(shard, at_ms, wait=wait)
            if entry is not None:
                return Position(entry.frame_no, 0)
        entry = self.active.index.first_at(shard, at_ms)
        return self.tail if entry is None else Position(entry.frame_no, 0)
