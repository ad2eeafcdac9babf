"""Positions: how far each file has been shipped, kept so that no crash repeats or loses a line.

A `Position` is one producer to the stream: its `identity` is the producer id, its `generation`
the epoch, and the sequence of a record is the byte offset its line starts at. It is stored before
the first put it is named in, and again after puts are acknowledged. Whatever is put again after
a crash carries the numbers it carried before, so the stream stores it once.
"""

from __future__ import annotations

import msgspec

from headrace.agent.identity import FileKey, Head, Mark

#: All of the newest marks are kept, of older ones fewer the older they are.
NEWEST_MARKS = 4


class Position(msgspec.Struct, kw_only=True):
    """How far one file has been shipped to one stream. All offsets are bytes from its start."""

    identity: str
    stream: str
    home: str  # the path it was found at; a rotated file has moved away from it
    path: str  # where it was last seen
    device: int
    inode: int
    inode_generation: int | None = None
    generation: int = 0
    offset: int = 0  # everything before it is acknowledged
    size: int = 0  # bytes known to belong to this generation
    mtime_ns: int = 0
    head: Head = Head()
    marks: tuple[Mark, ...] = ()  # of the last acknowledged offsets, oldest first
    sent: Mark | None = None  # of the end of what is being put, while little is acknowledged
    cut: int = 0  # a line ends here though no newline stands here; 0 is none
    line_start: int | None = None  # where the over-long line began that `offset` lies inside
    framing: int = 0  # max_line that decided where over-long lines are cut
    lost_to: int = 0  # bytes before this one that nobody can read any more have been reported
    is_rotated: bool = False
    is_compressed: bool = False
    seen_ms: int = 0  # wall time

    @property
    def key(self) -> FileKey:
        return FileKey(self.device, self.inode)

    @property
    def mark(self) -> Mark | None:
        """What must stand before `offset`, or None at the start of a generation."""
        return self.marks[-1] if self.marks else None

    def advance(self, offset: int, mark: Mark, *, line_start: int | None) -> None:
        """Everything before `offset` is acknowledged."""
        self.offset = offset
        self.line_start = line_start
        self.marks = _thin((*self.marks, mark))
        if self.cut <= offset:
            self.cut = 0
        if self.sent is not None and self.sent.offset <= offset:
            self.sent = None

    def start_over(self) -> None:
        """A new generation: the file's content has been replaced, offsets begin at 0."""
        self.generation += 1
        self.offset = self.size = self.cut = self.lost_to = 0
        self.is_rotated = False
        self.line_start = self.sent = None
        self.head = Head()
        self.marks = ()


def _thin(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Some of the marks: the newest, the first, and between them ever wider apart.

    Whatever length a copy has, one of its marks is not far below; 16 are enough for a terabyte.
    """
    newest = marks[-1].offset
    kept = list(marks[-NEWEST_MARKS:])
    for mark in reversed(marks[1:-NEWEST_MARKS]):
        if newest - mark.offset >= 4 * (newest - kept[0].offset):
            kept.insert(0, mark)
    if len(marks) > NEWEST_MARKS:
        kept.insert(0, marks[0])
    return tuple(kept)


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes `start`..`end` (exclusive) of a file that were gone before they could be read."""

    at_ms: int
    path: str
    identity: str
    generation: int
    start: int
    end: int
    reason: str
