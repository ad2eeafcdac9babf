"""The last segment's beginning: whether it was ever there, or has been lost.

A segment begins with a snapshot, synced before anything else is done with it; only then the one
before it is indexed. So a last segment without a beginning is what a crash left of making it, and
nothing is missed with it; unless the index says that it had one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.core.errors import CorruptSegment
from headrace.core.log.files import Files
from headrace.core.log.format import FLAG_SNAPSHOT, HEADER_BYTES, body_is_valid, decode_header
from headrace.core.log.recovery import scan
from headrace.core.log.segment import index_path


def drop_unborn(folder: Path, paths: Sequence[Path], files: Files, *, is_new: bool) -> list[Path]:
    """Remove the last of the segments if it was never begun; returns the others.

    `is_new`: there need not be any. Raises CorruptSegment when a segment that was begun is gone,
    or has lost its beginning.
    """
    if not paths:
        if is_new:
            return []
        raise CorruptSegment(
            f"there is no segment in {folder}: the stream's records are gone",
            path=str(folder),
            hint="put the folder back from a copy, or delete the stream",
        )
    *before, last = paths
    if index_path(last).exists():
        raise _lost(f"the segment after {last}", last)
    if _has_beginning(last, files):
        return [*before, last]
    if index_path(before[-1]).exists() if before else not is_new:
        raise _lost(f"the beginning of {last}", last)
    files.unlink(last)
    files.sync_dir(last.parent)
    return before


def _has_beginning(path: Path, files: Files) -> bool:
    """Raises CorruptSegment when it is only damaged: something behind it says that it was there."""
    fd = files.open_read(path)
    try:
        header = decode_header(files.read_at(fd, HEADER_BYTES, 0))
        if header is not None and header.flags & FLAG_SNAPSHOT:
            body = files.read_at(fd, header.body_bytes, HEADER_BYTES)
            if body_is_valid(header, body):
                if header.frame_no != int(path.stem):
                    raise _lost(f"the beginning of {path}, which has another segment's,", path)
                return True
        return scan(files, fd, path, int(path.stem)).snapshot is not None
    finally:
        files.close(fd)


def _lost(what: str, path: Path) -> CorruptSegment:
    return CorruptSegment(
        f"{what} is missing: it was begun, and may have held records",
        path=str(path),
        hint="put the missing file back from a copy; nothing was changed",
    )
