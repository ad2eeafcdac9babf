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
from pathlib import PurePath

from headrace.agent.identity import HEAD_BYTES, MARK_BYTES, FileKey, key_of
from headrace.agent.positions import Position
from headrace.agent.source import Source, open_source

GZIP_SUFFIX = ".gz"
#: Names of archives. They are never tailed; `find_rest` looks into those made by gzip.
ARCHIVE_SUFFIXES = frozenset((GZIP_SUFFIX, ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tgz"))

#: Less than this in common is a date or a word: too little to take any file of the folder for
#: the copy of another one.
MIN_EVIDENCE_BYTES = 16


def is_archive(path: str) -> bool:
    """Whether the name is one of a compressed file."""
    return PurePath(path).suffix in ARCHIVE_SUFFIXES


def evidence(source: Source, position: Position) -> int:
    """How many bytes of what the position remembers of its file are found in `source`.

    -1 if something differs, so it is not a copy. 0 if there is nothing to compare. A copy, whole
    or still being written, gives more; so does, while it is short, a file that begins alike.
    """
    common = position.head.common(source.read_at(0, HEAD_BYTES))
    if common <= 0:
        return common
    size = source.state().size
    for mark in reversed(position.marks):
        if mark.offset <= size:
            before = source.read_at(mark.start, mark.offset - mark.start)
            return max(common, len(before)) if mark.holds(before) else -1
    return common


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
                with contextlib.closing(source):
                    if _is_same_file(source, position):
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
                evidence(source, position) >= MIN_EVIDENCE_BYTES and source.state().size > best_size
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


def _is_same_file(source: Source, position: Position) -> bool:
    if source.inode_generation is not None and position.inode_generation is not None:
        return source.inode_generation == position.inode_generation
    try:
        return position.head.begins(source.read_at(0, position.head.length))
    except OSError:
        return False


def _open_quietly(path: str, *, is_compressed: bool) -> Source | None:
    try:
        return open_source(path, is_compressed=is_compressed)
    except OSError:
        return None
