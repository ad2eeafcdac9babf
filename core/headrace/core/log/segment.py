"""One segment file as the log sees it: the one being written, and the sealed ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.errors import CorruptSegment
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import Files
from headrace.core.log.index import ActiveIndex, FrameIndex
from headrace.core.log.scan_notes import ScanNotes
from headrace.core.log.sealed_index import SealedIndex

FIRST_ALLOCATION_BYTES = 1 << 20
MAX_ALLOCATION_BYTES = 16 << 20


def segment_path(folder: Path, first_frame: int) -> Path:
    return folder / f"{first_frame:020d}.seg"


def index_path(segment: Path) -> Path:
    return segment.with_suffix(".idx")


@dataclass(slots=True)
class ActiveSegment:
    """The segment being written. `end` is where the next frame goes; `synced` <= `end`.

    `snapshot_bytes` is what its first frame takes, the records follow. `owed_mark` is a MARK whose
    number is taken, to be written before the next frame. There was no room for a segment after
    this one: it goes on until `stays_until` before that is tried again.
    Its file is opened when it is first written to, and again after `release`.
    """

    path: Path
    files: Files
    notes: ScanNotes
    first_frame: int
    created_ms: int
    end: int = 0
    synced: int = 0
    allocated: int = 0
    snapshot_bytes: int = 0
    stays_until: int = 0
    first_arrival_ms: int = 0
    last_arrival_ms: int = 0
    index: ActiveIndex = field(default_factory=ActiveIndex)
    open_fd: int | None = None
    owed_mark: bytes = b""

    @property
    def fd(self) -> int:
        """Raises StorageFull when too many files are open, CorruptSegment if it was shortened."""
        if self.open_fd is None:
            if not self.path.exists():  # which opening it would make again, empty
                raise CorruptSegment(
                    f"segment {self.path} was removed while it was not open",
                    path=str(self.path),
                    hint="put this file back, and start again",
                )
            fd = self.files.open_append(self.path)
            if self.files.size(fd) < self.end:
                self.files.close(fd)
                raise CorruptSegment(
                    f"segment {self.path} was cut off while it was not open",
                    path=str(self.path),
                    offset=self.end,
                    hint="restore this file from a copy, and start again",
                )
            self.open_fd = fd
        return self.open_fd

    def release(self) -> None:
        """Close the file for now. Nothing may be writing."""
        if self.open_fd is not None:
            self.files.close(self.open_fd)
            self.open_fd = None

    def reserve(self, count: int) -> None:
        """Make room for `count` more bytes, so that a full disk shows before anything is written.

        Raises StorageFull with the file unchanged.
        """
        want = self.end + count
        if want <= self.allocated:
            return
        step = min(max(self.allocated, FIRST_ALLOCATION_BYTES), MAX_ALLOCATION_BYTES)
        upto = max(want, self.allocated + step)
        self.files.allocate(self.fd, self.allocated, upto - self.allocated)
        self.allocated = upto


@dataclass(slots=True)
class SealedSegment:
    """A segment that is only read. `size_bytes` is where its last frame ends."""

    path: Path
    first_frame: int
    last_frame: int
    first_arrival_ms: int
    last_arrival_ms: int
    size_bytes: int
    index: FrameIndex

    @classmethod
    def open(cls, path: Path, access: SegmentAccess, content: bytes | None = None) -> SealedSegment:
        """By its index file, or by the `content` of one that could not be written.

        Raises CorruptSegment or FileNotFoundError if the file is no use.
        """
        index = SealedIndex(index_path(path), access, content)
        footer = index.footer
        if footer.first_frame != int(path.stem):
            raise CorruptSegment("the index file is another segment's", path=str(path))
        return cls(
            path, footer.first_frame, footer.last_frame, footer.first_arrival_ms,
            footer.last_arrival_ms, footer.end, index,
        )  # fmt: skip
