"""A commit window: what concurrent puts gather while the one before is being synced.

Frame numbers and arrival times are given when a frame is begun, so a record's sequence number is
known, and the record rendered, before anything is written; `StreamLog` writes windows whole and
in order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

import msgspec

from headrace.core.log.format import HEADER_BYTES, ProducerMark
from headrace.core.log.producers import Piece, Undo
from headrace.core.log.rendering import Rendered
from headrace.core.model.sequence import MAX_FRAME_RECORDS, ORDINAL_BITS

FRAME_SOFT_LIMIT_BYTES = 8 * 1024 * 1024  # a frame is read whole; begin another beyond this


def _no_ends() -> array[int]:
    return array("I")


class OpenFrame(msgspec.Struct, gc=False):
    """One shard's records in an open window."""

    shard: int
    frame_no: int
    arrival_ms: int
    previous: int
    objects: list[bytes] = []  # see `rendering.Rendered`
    ends: array[int] = msgspec.field(default_factory=_no_ends)
    marks: dict[tuple[int, int, str], ProducerMark] = {}

    @property
    def records(self) -> int:
        return len(self.ends)

    @property
    def body_bytes(self) -> int:
        """But for the producer table."""
        ends = self.ends
        return ends.itemsize * len(ends) + ends[-1] if ends else 0

    @property
    def next_start(self) -> int:
        """Where among the objects the next one will begin: after a comma."""
        return self.ends[-1] + 1 if self.ends else 0

    def has_room(self, count: int) -> bool:
        return (
            self.records + count <= MAX_FRAME_RECORDS and self.body_bytes < FRAME_SOFT_LIMIT_BYTES
        )

    def add(self, rendered: Rendered) -> None:
        """Records that were rendered to start at `next_start`."""
        self.objects.append(rendered.objects)
        self.ends.extend(rendered.ends)

    def add_one(self, rendered: bytes) -> None:
        """One record's object."""
        ends = self.ends
        ends.append((ends[-1] + 1 if ends else 0) + len(rendered))
        self.objects.append(rendered)

    @property
    def last_index(self) -> int:
        """Sequence index of its last record."""
        return self.frame_no << ORDINAL_BITS | (self.records - 1)

    def mark(self, piece: Piece, producer_id: str, epoch: int, sequence: int) -> None:
        """Note the producer's last sequence; only the newest per piece is stored.

        A piece that is cut while the frame is open is another one from then on: its mark speaks of
        the part that was cut off too. It stays, before those of its parts, as they must be applied.
        """
        self.marks[piece.start, piece.end, producer_id] = ProducerMark(
            piece.start, piece.end, producer_id, epoch, sequence
        )


class Window(msgspec.Struct, gc=False):
    """The frames that one sync makes durable together."""

    first_frame_no: int
    frames: list[OpenFrame] = []
    by_shard: dict[int, OpenFrame] = {}
    undos: list[Undo] = []
    roll_snapshot: Callable[[], bytes] | None = None  # set when a new segment begins after it
    stored_bytes: int = 0  # there once it is closed

    def close(self) -> None:
        """Nothing is added any more."""
        for frame in self.frames:
            self.stored_bytes += HEADER_BYTES + frame.body_bytes
