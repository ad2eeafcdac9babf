"""The window published last, kept in memory: a reader at the tail needs nothing from the disk.

That is most readers most of the time: they poll, and what they find has just been written. Only a
small window is kept, and none of a stream that has gone quiet.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.core.limits import KIB
from headrace.core.log.format import HEADER_BYTES
from headrace.core.log.reading import Slice
from headrace.core.log.window import OpenFrame, Window
from headrace.core.model.sequence import BEGINNING, Position

# Of one stream, and there may be thousands: what is kept takes up to twice these bytes.
MAX_KEPT_BYTES = 16 * KIB
MAX_KEPT_FRAMES = 16


class Newest(msgspec.Struct, frozen=True, gc=False):
    """All records that are stored from the frame `first_frame_no` on, by shard; `tail` is after."""

    first_frame_no: int
    tail: Position
    frames: Mapping[int, OpenFrame]

    @classmethod
    def of(cls, window: Window, before: Position, tail: Position) -> Newest | None:
        """What to keep of a window that has been published; `before` was the tail before it.

        From there to the window's first frame are none with records: a MARK of an idle moment, a
        new segment's snapshot.
        """
        frames = window.by_shard
        count = len(window.frames)
        if len(frames) < count or count > MAX_KEPT_FRAMES or window.stored_bytes > MAX_KEPT_BYTES:
            return None
        return cls(before.frame_no, tail, frames)

    def read(
        self, shard: int, asked: Position, start: Position, max_records: int, max_bytes: int
    ) -> Slice | None:
        """As `reading.read_slice`; None if the disk must be asked."""
        if start.frame_no < self.first_frame_no:
            return None
        frame = self.frames.get(shard)
        if frame is None or frame.frame_no < start.frame_no:
            return Slice([], 0, self.tail, None)
        is_in_part = start.ordinal and frame.frame_no == start.frame_no
        records = len(frame.ends)
        if is_in_part or records > max_records:
            return None
        if HEADER_BYTES + frame.body_bytes > max_bytes:
            return None
        missed = asked != BEGINNING and frame.previous >= asked.record_index
        parts = [memoryview(objects) for objects in frame.objects]
        return Slice(parts, records, self.tail, None, missed)
