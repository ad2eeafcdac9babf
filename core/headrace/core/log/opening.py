"""Opening a folder of segments: what a crash left aside, and the sealed ones by their indexes."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from headrace.core.errors import CorruptSegment, StorageFull
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import Files
from headrace.core.log.index_file import make_index, write_index
from headrace.core.log.recovery import cut_reserved
from headrace.core.log.segment import SealedSegment, index_path

log = logging.getLogger("headrace.core")


# what the log itself puts into its folder: segments, and what may lie beside each
_OURS = re.compile(r"[0-9]{20}\.(seg|idx|idx\.tmp|scan|broken)")


def segment_files(folder: Path, files: Files) -> list[Path]:
    """The segments of a folder, in order; makes it if it is not there.

    Removes what belongs to none of them: half-made indexes, indexes of trimmed segments, notes of
    sealed ones. Whatever else somebody has put there stays, and is told of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = [path for path in sorted(folder.iterdir()) if _is_ours(path)]
    paths = [path for path in ours if path.suffix == ".seg"]
    if not paths:  # also where it was made by a try that came no further
        files.sync_dir(folder.parent)
    stems = {path.stem for path in paths}
    for path in ours:
        is_stale = (
            path.suffix == ".tmp"
            or (path.suffix == ".idx" and path.stem not in stems)
            or (path.suffix == ".scan" and (not paths or path.stem != paths[-1].stem))
        )
        if is_stale:
            files.unlink(path)
    return paths


def _is_ours(path: Path) -> bool:
    if _OURS.fullmatch(path.name):
        return True
    log.warning("%s is not one of this server's files; it is neither read nor removed", path)
    return False


def open_sealed(paths: Sequence[Path], access: SegmentAccess) -> tuple[SealedSegment, ...]:
    """All segments but the last. Raises CorruptSegment where one is missing or damaged."""
    opened: list[SealedSegment] = []
    for path, following in pairwise(paths):
        sealed = _open(path, access)
        if sealed.last_frame + 1 != int(following.stem):
            raise CorruptSegment(
                f"frames {sealed.last_frame + 1} to {int(following.stem) - 1} are missing or "
                f"damaged between {path} and {following.name}",
                path=str(path),
                hint="put back the segment file that was removed or changed",
            )
        _cut_reserved(sealed, access.files)
        opened.append(sealed)
    return tuple(opened)


def _cut_reserved(sealed: SealedSegment, files: Files) -> None:
    """Give back what a crash left reserved between beginning the next segment and cutting this one.

    To be called where the next frame is known to begin another file: no frame is written here any
    more, and none is missing.
    """
    size = sealed.path.stat().st_size
    if size <= sealed.size_bytes:
        return
    try:
        _cut(sealed, size, files)
    except (StorageFull, OSError) as error:  # it is only room
        log.warning("what is reserved behind %s could not be given back: %s", sealed.path, error)


def _cut(sealed: SealedSegment, size: int, files: Files) -> None:
    fd = files.open_append(sealed.path)
    try:
        if not cut_reserved(files, fd, sealed.size_bytes):
            log.warning(
                "%s has %d bytes behind its last frame that belong to none; they are left there",
                sealed.path, size - sealed.size_bytes,
            )  # fmt: skip
    finally:
        files.close(fd)


def _open(path: Path, access: SegmentAccess) -> SealedSegment:
    try:
        return SealedSegment.open(path, access)
    except (OSError, CorruptSegment):
        log.warning("building the index of %s again from the segment", path.name)
    content = make_index(access.files, path)
    try:
        write_index(access.files, index_path(path), content)
    except (StorageFull, OSError) as error:
        # even of a sync that failed: nothing rests on an index that is not used
        log.warning("keeping the index of %s in memory: %s", path.name, error)
        return SealedSegment.open(path, access, content)
    return SealedSegment.open(path, access)
