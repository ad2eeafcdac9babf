"""Files as the agent holds them in memory: those being tailed, and those not decided on yet."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.agent.copies import is_intact, is_same_file
from headrace.agent.flow import Flow
from headrace.agent.identity import FileKey
from headrace.agent.packing import Batch
from headrace.agent.positions import Position
from headrace.agent.source import Source, open_source
from headrace.agent.tailer import Tailer


class LostTrack(Exception):
    """The path leads to another file, or to none: this one has to be looked for."""


@dataclass(slots=True, eq=False)
class TrackedFile:
    """One file, its position and, while it is held open, its source.

    Changed on the event loop only, except that `open` and `read` run in a worker thread while
    `in_turn` is set; nothing else touches source and tailer then.
    """

    flow: Flow
    position: Position
    open_files: set[TrackedFile]  # of the registry: those that hold a source
    source: Source | None = None
    tailer: Tailer | None = None
    size: int = 0  # as last seen, of whatever generation
    mtime_ns: int = 0
    checked: tuple[int, int] | None = None  # size and mtime when a read last found nothing
    grown_ms: int = 0  # monotonic, when it was last seen to change
    is_stored: bool = False  # the position's identity is durable
    is_linked: bool = True
    is_missing: bool = False  # no path leads to it, and it is not held open
    is_estranged: bool = False  # its device and inode are another content's by now
    is_replaced: bool = False  # its content has been seen to be another
    is_finished: bool = False  # even an unfinished last line has been shipped
    in_turn: bool = False
    is_queued: bool = False
    blocked_until_ms: int = 0  # monotonic, after an error

    @property
    def key(self) -> FileKey:
        return self.position.key

    @property
    def lag_bytes(self) -> int:
        """Bytes there that are not acknowledged."""
        return max(0, self.size - self.position.offset)

    @property
    def has_news(self) -> bool:
        """Whether it has changed since it was last read to its end."""
        return self.is_replaced or self.checked != (self.size, self.mtime_ns)

    def is_as_before(self, size: int, mtime_ns: int, paths: list[str]) -> bool:
        """Whether a look finds it as the last one did, and there is nothing to do for it."""
        return (
            self.checked == (size, mtime_ns)
            and self.size == size
            and self.position.path in paths
            and not self.position.is_rotated
            and not (self.is_missing or self.is_replaced)
        )

    def is_over(self, now_ms: int, wait_ms: int) -> bool:
        """Whether nothing more is to come, and there is something to finish.

        That is so for a rotated or deleted file that has been quiet for `wait_ms`.
        """
        position = self.position
        return (
            (position.is_rotated or position.is_compressed)
            and not self.is_finished
            and (self.lag_bytes > 0 or not self.is_linked)
            and now_ms - self.grown_ms >= wait_ms
        )

    def observe(self, size: int, mtime_ns: int, now_ms: int) -> bool:
        """Take note of what stat says; True if something has changed."""
        if (size, mtime_ns) == (self.size, self.mtime_ns):
            return False
        self.size, self.mtime_ns, self.grown_ms = size, mtime_ns, now_ms
        self.is_finished = False
        if self.source is not None and not self.is_replaced:
            try:
                if size < self.position.offset or not is_intact(self.source, self.position):
                    self.is_replaced = True
                else:
                    self.position.size = max(self.position.size, size)
            except OSError:
                pass  # the read that follows says what is wrong
        return True

    def attach(self, source: Source) -> None:
        """Hold the file open by this source from now on."""
        self.source = source
        self.tailer = Tailer(source, self.position, self.flow.packer)
        self.open_files.add(self)

    def open(self) -> None:
        """Open the file at its path (blocking).

        Raises:
            LostTrack: something else is there, or nothing.
            OSError: it cannot be opened.
        """
        if self.source is not None:
            return
        try:
            source = open_source(self.position.path, is_compressed=self.position.is_compressed)
        except FileNotFoundError as error:
            raise LostTrack from error
        if source.key != self.key:
            source.close()
            raise LostTrack
        if not is_same_file(source, self.position):
            # Truncated, or deleted and its inode number given out again: while it was not held
            # open nobody can tell. What is there now is met as a new file.
            source.close()
            self.is_estranged = True
            raise LostTrack
        self.attach(source)

    def read(self, *, is_finished: bool) -> Batch | None:
        """The next batch, or None if nothing can go yet (blocking).

        Raises:
            ContentReplaced: the generation has ended.
            OSError: reading failed.
        """
        assert self.tailer is not None
        span = self.tailer.read(is_finished=is_finished)
        if span is None:
            return None
        position = self.position
        return self.flow.packer.pack(
            span, identity=position.identity, generation=position.generation, file=position.home
        )

    def close(self) -> None:
        """Give the descriptor back; the file stays tracked."""
        if self.source is not None:
            self.source.close()
        self.source = self.tailer = None
        self.open_files.discard(self)


@dataclass(slots=True, eq=False)
class Newcomer:
    """A file not tracked yet. It is held open, so that renaming or deleting it loses nothing."""

    flow: Flow
    key: FileKey
    path: str
    source: Source
    size: int
    quiet_since_ms: int  # monotonic, when its size was last seen to change
