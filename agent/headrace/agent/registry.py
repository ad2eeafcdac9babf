"""All files being tailed, and the budget of open descriptors they share."""

from __future__ import annotations

import functools
import resource
from collections.abc import Iterator
from typing import NamedTuple

from headrace.agent.copies import holds_marks, proof
from headrace.agent.identity import HEAD_BYTES, FileKey, Head, digest
from headrace.agent.source import Source
from headrace.agent.tracked import Newcomer, TrackedFile

#: Descriptors that are not ours to use: sockets, the store, whatever the process has open.
_RESERVED_FILES = 128
#: Heads are indexed by the digests of their first 1, 16, 128 and 1024 bytes.
_INDEX_STEPS = (0, 4, 7, 10)


class _Place(NamedTuple):
    """A place in the index: the digest of a stream's file's first 2^step bytes."""

    stream: str
    step: int
    value: bytes
    is_longest: bool = False  # nothing longer of the file is in the index


def _places(stream: str, head: Head) -> list[_Place]:
    return [
        _Place(stream, step, head.steps[step]) for step in _INDEX_STEPS if step < len(head.steps)
    ]


class Registry:
    """Tracked files by identity, by device and inode, and by how they begin."""

    def __init__(self, max_open_files: int) -> None:
        self.files: dict[str, TrackedFile] = {}
        #: Files not tracked yet: empty, or perhaps copies. By stream and key.
        self.newcomers: dict[tuple[str, FileKey], Newcomer] = {}
        self._by_key: dict[tuple[str, FileKey], TrackedFile] = {}
        self.open_files: set[TrackedFile] = set()
        self._by_head: dict[_Place, dict[str, TrackedFile]] = {}
        self._places: dict[str, list[_Place]] = {}
        self.max_open_files = min(max_open_files, _raise_limit(max_open_files))

    def __iter__(self) -> Iterator[TrackedFile]:
        return iter(list(self.files.values()))

    def __len__(self) -> int:
        return len(self.files)

    def get(self, stream: str, key: FileKey) -> TrackedFile | None:
        """The file of that stream with that device and inode."""
        return self._by_key.get((stream, key))

    def located(self) -> list[tuple[tuple[str, FileKey], TrackedFile]]:
        """Every file with the stream, device and inode it is known by."""
        return list(self._by_key.items())

    def estranged(self) -> list[TrackedFile]:
        """Files whose device and inode are another content's by now."""
        return [file for file in self.files.values() if file.is_estranged]

    def keys(self, stream: str) -> set[FileKey]:
        """Device and inode of every file that is tracked for a stream."""
        return {key for owner, key in self._by_key if owner == stream}

    def add(self, file: TrackedFile) -> None:
        """Track a file, or note that its identity, key or head has changed."""
        identity = file.position.identity
        self.files[identity] = file
        self._by_key[file.flow.stream, file.key] = file
        self.index(file)

    def remove(self, file: TrackedFile) -> None:
        """Forget a file (its descriptor is not closed)."""
        identity = file.position.identity
        if self.files.get(identity) is file:
            del self.files[identity]
        if self._by_key.get((file.flow.stream, file.key)) is file:
            del self._by_key[file.flow.stream, file.key]
        self._drop_from_index(identity)

    def index(self, file: TrackedFile) -> None:
        """Note how the file begins; call it again when its head has grown."""
        identity = file.position.identity
        places = _places(file.flow.stream, file.position.head)
        if places:
            places.append(places[-1]._replace(is_longest=True))
        if self._places.get(identity) == places:
            return
        self._drop_from_index(identity)
        self._places[identity] = places
        for place in places:
            self._by_head.setdefault(place, {})[identity] = file

    def _drop_from_index(self, identity: str) -> None:
        for place in self._places.pop(identity, ()):
            entries = self._by_head[place]
            entries.pop(identity, None)
            if not entries:
                del self._by_head[place]

    def originals_of(self, source: Source, stream: str) -> list[TrackedFile]:
        """Files that `source` may be a copy of, by what is remembered of them."""
        data = source.read_at(0, HEAD_BYTES)
        places = _places(stream, Head.of(data))
        if not places:
            return []
        # Those known for at least as long a beginning as the source's, then those known for less.
        candidates = list(self._by_head.get(places[-1], {}).values())
        for place in places[:-1]:
            candidates += self._by_head.get(place._replace(is_longest=True), {}).values()
        # Equal beginnings are common among very many files, so each is digested once.
        digest_of = functools.cache(lambda length: digest(data[:length]))
        return [
            file
            for file in candidates
            if file.position.head.common(data, digest_of) > 0 and holds_marks(source, file.position)
        ]

    def copy_of(self, file: TrackedFile) -> Newcomer | None:
        """The newcomer that has the content the file had before it was truncated, or None."""
        best: Newcomer | None = None
        best_rank = (0, 0)
        for newcomer in self.newcomers.values():
            if newcomer.flow.stream != file.flow.stream:
                continue
            try:
                rank = (proof(newcomer.source, file.position), newcomer.size)
            except OSError:
                continue
            if rank[0] > 0 and rank > best_rank:
                best, best_rank = newcomer, rank
        return best

    def release_key(self, file: TrackedFile) -> None:
        """Its device and inode are not the file's any more: who has them now is to be met."""
        if self._by_key.get((file.flow.stream, file.key)) is file:
            del self._by_key[file.flow.stream, file.key]

    @property
    def open_count(self) -> int:
        """Files held open."""
        return len(self.open_files) + len(self.newcomers)

    def make_room(self, count: int = 1) -> int:
        """Close quiet files until `count` more may be opened; returns how many may.

        Files that were read to their end go first, the longest quiet of them before others. A
        deleted file is never closed before it is finished: nothing could open it again.
        """
        free = self.max_open_files - self.open_count
        if free >= count:
            return free
        candidates = [file for file in self.open_files if file.is_linked and not file.in_turn]
        candidates.sort(key=lambda file: (file.has_news, file.grown_ms))
        # A few more than needed, so that not every opening has to look for one to close.
        for file in candidates[: max(count - free, self.max_open_files // 32)]:
            file.close()
            free += 1
        return free


def _raise_limit(wanted: int) -> int:
    """Raise the process's own limit of descriptors as far as allowed; returns what is usable."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            soft = reachable
        except (ValueError, OSError):  # the system sets a lower one: live with what there is
            soft = min(soft, reachable)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(8, soft - _RESERVED_FILES)
