"""Telling a copy of a tailed file from a file of its own, and finding what is left of one.

copytruncate (logrotate and many others) copies a file and then truncates it. The copy is a new
file with an old file's content: shipping it would ship every line twice; ignoring it would lose
what had not been read before the truncation. It is recognised by what the position remembers:
how the file begins, and what stood before the offsets acknowledged last.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator

from headrace.agent.identity import HEAD_BYTES, MARK_BYTES, FileKey, Mark, key_of
from headrace.agent.positions import Position
from headrace.agent.source import Source, open_source

GZIP_SUFFIX = ".gz"
#: Names of archives. They are never tailed; `find_rest` looks into those made by gzip.
ARCHIVE_SUFFIXES = frozenset((GZIP_SUFFIX, ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tgz"))

#: Less than this in common is a date or a word: too little to take any file of the folder for
#: the copy of another one.
MIN_PROOF_BYTES = 16


def is_archive(path: str) -> bool:
    """Whether the name is one of a compressed file."""
    return path[path.rfind(".") :] in ARCHIVE_SUFFIXES


def holds_marks(source: Source, position: Position) -> bool:
    """Whether no mark speaks against the source's being a copy, whole or under way.

    So it is for every file that is shorter than the first mark.
    """
    mark = _last_mark_within(source.state().size, position)
    return mark is None or _holds(source, mark)


def proof(source: Source, position: Position) -> int:
    """How many bytes show that `source` has what the position's file had; 0 if that is not so.

    It has to hold a mark. If nothing was acknowledged yet, it has to begin with all that is
    known of the file's beginning, and to hold what was being put.
    """
    common = position.head.common(source.read_at(0, HEAD_BYTES))
    if common <= 0:
        return 0
    size, sent, matched = source.state().size, position.sent, common
    if position.marks:
        mark = _last_mark_within(size, position)
        if mark is None or not _holds(source, mark):
            return 0
        matched = max(common, mark.offset - mark.start)
    elif common < position.head.length or (sent is not None and sent.offset > size):
        return 0
    if sent is not None and sent.offset <= size and not _holds(source, sent):
        return 0
    return matched


def _last_mark_within(size: int, position: Position) -> Mark | None:
    return next((mark for mark in reversed(position.marks) if mark.offset <= size), None)


def _holds(source: Source, mark: Mark) -> bool:
    return mark.holds(source.read_at(mark.start, mark.offset - mark.start))


def is_prefix_of(candidate: Source, original: Source) -> bool:
    """Whether the candidate's last bytes stand at the same place in the original."""
    size = candidate.state().size
    start = max(0, size - MARK_BYTES)
    tail = candidate.read_at(start, size - start)
    return original.read_at(start, size - start) == tail


def find_again(position: Position, *, taken: Collection[FileKey]) -> str | None:
    """The path a file has now that is not where it was: same inode, same content (blocking).

    Looked for where it was last seen and in the same folder. Its device number may have changed
    (they are handed out anew at every boot); its inode may not.
    """
    for path, key in _beside(position):
        if key.inode == position.inode and key not in taken:
            source = _open_quietly(path, is_compressed=position.is_compressed)
            if source is not None:
                with contextlib.closing(source), contextlib.suppress(OSError):
                    if is_same_file(source, position):
                        return path
    return None


def find_rest(position: Position, *, taken: Collection[FileKey]) -> Source | None:
    """The copy or the gzip archive of this position's file, from its folder (blocking).

    Files that are `taken` are left out; of several the longest wins. The caller closes it.
    """
    best: Source | None = None
    best_size = -1
    for path, key in _beside(position):
        is_compressed = path.endswith(GZIP_SUFFIX)
        if key in taken or (is_archive(path) and not is_compressed):
            continue
        source = _open_quietly(path, is_compressed=is_compressed)
        if source is None:
            continue
        try:
            is_better = (
                proof(source, position) >= MIN_PROOF_BYTES and source.state().size > best_size
            )
        except OSError:
            is_better = False
        if not is_better:
            source.close()
            continue
        if best is not None:
            best.close()
        best, best_size = source, source.state().size
    return best


def _beside(position: Position) -> Iterator[tuple[str, FileKey]]:
    """Regular files: where the file was seen last, then every name in its folders."""
    folders = dict.fromkeys(os.path.dirname(path) for path in (position.path, position.home))
    paths = dict.fromkeys([position.path])
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                paths.update(dict.fromkeys(sorted(entry.path for entry in entries)))
        except OSError:
            continue
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield path, key_of(found)


def is_same_file(source: Source, position: Position) -> bool:
    """Whether `source` is the position's file and still has what was read of it."""
    known, found = position.inode_generation, source.inode_generation
    if known is not None and found is not None and known != found:
        return False  # another file got the inode number
    return is_intact(source, position)


def is_intact(source: Source, position: Position) -> bool:
    """Whether the file still holds what was read of it.

    While little is acknowledged that may be a header that many files share: then everything
    known of the beginning, and of what was being put, has to be there too.
    """
    if position.mark is not None and not _holds(source, position.mark):
        return False
    if position.offset >= HEAD_BYTES:
        return True
    if not position.head.begins(source.read_at(0, position.head.length)):
        return False
    return position.sent is None or _holds(source, position.sent)


def _open_quietly(path: str, *, is_compressed: bool) -> Source | None:
    try:
        return open_source(path, is_compressed=is_compressed)
    except OSError:
        return None
