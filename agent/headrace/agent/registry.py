"""All files being tailed, and the budget of open descriptors they share."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from headrace.agent.copies import may_be_copy, proof
from headrace.agent.identity import HEAD_BYTES, FileKey, Head
from headrace.agent.source import Source
from headrace.agent.tracked import Newcomer, TrackedFile

#: Descriptors that are not ours to use: sockets, the store, whatever the process has open.
_RESERVED_FILES = 128
#: Heads are indexed by the digests of their first 1, 2, 4, 8 and 16 bytes.
_INDEX_STEP = 4


class Registry:
    """Tracked files by identity, by device and inode, and by how they begin."""

    def __init__(self, max_open_files: int) -> None:
        self.files: dict[str, TrackedFile] = {}
        #: Files not tracked yet: empty, or perhaps copies. By stream and key.
        self.newcomers: dict[tuple[str, FileKey], Newcomer] = {}
        self._by_key: dict[tuple[str, FileKey], TrackedFile] = {}
        self._by_head: dict[tuple[str, int, bytes], dict[str, TrackedFile]] = {}
        self._indexed: dict[str, tuple[bytes, ...]] = {}
        self.max_open_files = min(max_open_files, _raise_limit(max_open_files))

    def __iter__(self) -> Iterator[TrackedFile]:
        return iter(list(self.files.values()))

    def __len__(self) -> int:
        return len(self.files)

    def get(self, stream: str, key: FileKey) -> TrackedFile | None:
        """The file of that stream with that device and inode."""
        return self._by_key.get((stream, key))

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
        self._drop_from_index(file.flow.stream, identity)

    def index(self, file: TrackedFile) -> None:
        """Note how the file begins; call it again when its head has grown."""
        identity, stream = file.position.identity, file.flow.stream
        steps = file.position.head.steps[: _INDEX_STEP + 1]
        if self._indexed.get(identity) == steps:
            return
        self._drop_from_index(stream, identity)
        self._indexed[identity] = steps
        for step, value in enumerate(steps):
            self._by_head.setdefault((stream, step, value), {})[identity] = file

    def _drop_from_index(self, stream: str, identity: str) -> None:
        for step, value in enumerate(self._indexed.pop(identity, ())):
            entries = self._by_head[stream, step, value]
            entries.pop(identity, None)
            if not entries:
                del self._by_head[stream, step, value]

    def originals_of(self, source: Source, stream: str) -> list[TrackedFile]:
        """Files that `source` may be a copy of, by what is remembered of them."""
        steps = Head.of(source.read_at(0, HEAD_BYTES)).steps[: _INDEX_STEP + 1]
        top = len(steps) - 1
        found: list[TrackedFile] = []
        for step, value in enumerate(steps):
            for identity, file in self._by_head.get((stream, step, value), {}).items():
                # Of a file whose head is shorter than the source's, its longest step decides.
                is_longest = step in (top, len(self._indexed[identity]) - 1)
                if is_longest and may_be_copy(source, file.position):
                    found.append(file)
        return found

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
        tracked = sum(1 for file in self.files.values() if file.source is not None)
        return tracked + len(self.newcomers)

    def make_room(self, count: int = 1) -> int:
        """Close quiet files until `count` more may be opened; returns how many may.

        Files that were read to their end go first, the longest quiet of them before others. A
        deleted file is never closed before it is finished: nothing could open it again.
        """
        free = self.max_open_files - self.open_count
        if free >= count:
            return free
        candidates = [
            file
            for file in self.files.values()
            if file.source is not None and file.is_linked and not file.in_turn
        ]
        candidates.sort(key=lambda file: (file.has_news, file.grown_ms))
        for file in candidates[: count - free]:
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
