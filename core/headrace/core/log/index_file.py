"""Index files as a whole: made from their segments, and put in their place. See `index`."""

from __future__ import annotations

from pathlib import Path

from headrace.core.errors import StorageFull
from headrace.core.log.files import Files
from headrace.core.log.recovery import scan


def make_index(files: Files, segment: Path) -> bytes:
    """The content of a sealed segment's index file, for which all of the segment is read.

    Raises CorruptSegment where durable bytes of the segment are damaged, FileNotFoundError.
    """
    first_frame = int(segment.stem)
    fd = files.open_read(segment)
    try:
        found = scan(files, fd, segment, first_frame)
    finally:
        files.close(fd)
    return found.index.encode(
        first_frame=first_frame,
        last_frame=found.last_frame,
        first_arrival_ms=found.first_arrival_ms,
        last_arrival_ms=found.last_arrival_ms,
        end=found.end,
    )


def write_index(files: Files, target: Path, content: bytes) -> None:
    """Put an index file in its place, durable; leaves what was there before if it cannot."""
    temporary = target.with_suffix(".idx.tmp")
    try:
        fd = files.open_append(temporary)
        try:
            files.truncate(fd, 0)
            files.write_at(fd, [content], 0)
            files.sync(fd)
        finally:
            files.close(fd)
        files.rename(temporary, target)
    except (StorageFull, OSError):
        files.unlink(temporary)  # half of it would only take what room there is
        raise
    files.sync_dir(target.parent)
