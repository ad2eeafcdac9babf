"""StreamLog: one stream's records on disk, in one log of segments.

Owns the segment files, the numbering of frames and the memory of idempotent producers. Promises:
what `write` has returned from survives kill -9 and power loss, frames are numbered without gaps,
arrival times never go back, reads see only what is durable. Does not know what a request is, and
has no event loop: `write` and `note` are called from one thread at a time, all else from the
owner's; `publish` hands over between the two.

Life of a put: `append` (numbers and renders it into the open window) -> `close_window` -> `write`
(in a thread: pwritev, fdatasync) -> `publish` (readers see it) or `fail` (nobody ever does); in
the end `note`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from headrace.core.log import format as fmt
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import Files
from headrace.core.log.newborn import drop_unborn
from headrace.core.log.newest import Newest
from headrace.core.log.opening import open_sealed, segment_files
from headrace.core.log.producers import Dump, ProducerMemory, dump
from headrace.core.log.recovery import cut_torn_tail, scan
from headrace.core.log.rendering import quote_keys, render, render_one
from headrace.core.log.scan_notes import ScanNotes, load_notes
from headrace.core.log.segment import ActiveSegment, SealedSegment, index_path
from headrace.core.log.snapshot import LogSnapshot
from headrace.core.log.window import OpenFrame, Window
from headrace.core.log.writing import SegmentWriter, Written
from headrace.core.model import sequence
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.sequence import Position

DEFAULT_SEGMENT_BYTES = 128 << 20
DEFAULT_SEGMENT_AGE_MS = 3_600_000
MAX_SEGMENT_FRAMES = 1 << 18  # bounds the arrays of the active index and the scan at start


@dataclass(frozen=True, slots=True)
class StreamLogOptions:
    """When a segment is sealed: with so many bytes of records, or (on the next put) at this age.

    The records are at least as much as the snapshot before them, which remembers every producer of
    the last days and may be larger than `segment_bytes`.
    """

    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    segment_age_ms: int = DEFAULT_SEGMENT_AGE_MS


class _Snapshot(msgspec.Struct):
    """Body of the frame a segment begins with: what must be known without older segments."""

    pieces: Dump
    last_index: dict[int, int]


class StreamLog:
    """See the module. Open with `StreamLog.open`."""

    def __init__(self, folder: Path, access: SegmentAccess, options: StreamLogOptions) -> None:
        self._folder = folder
        self._access = access
        self._files = access.files
        self._options = options
        self._sealed: tuple[SealedSegment, ...] = ()  # never changed, only replaced
        self._active: ActiveSegment
        self._writer = SegmentWriter(folder, access)
        self._unremoved: list[SealedSegment] = []  # of those taken leave of
        self.window: Window | None = None  # the open one, if anything is in it
        self.newest: Newest | None = None  # what was published last, if it is kept
        self._next_frame = 1
        # Just after everything that can be read, and before all that is still in flight. Anywhere
        # later, a reader who starts here could miss records: a put may still join a frame in
        # flight, and the numbers of a window that fails are given out again.
        self.tail = Position(1, 0)
        self._last_arrival_ms = 0
        self._last_index: dict[int, int] = {}  # of each shard's last record
        self.memory = ProducerMemory()

    # -- opening -----------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: Path,
        access: SegmentAccess | Files,
        *,
        now_ms: int,
        ranges: Iterable[HashKeyRange] = (),
        options: StreamLogOptions | None = None,
        is_new: bool = True,
    ) -> StreamLog:
        """Open the log in `folder`; recover its end. It is made if it `is_new` and not there.

        `ranges` are those of all the stream's shards, for the producers' memory. Logs of one
        process share one `access`; a log by itself may be given its files instead. Raises
        CorruptSegment naming file, byte and frame where durable bytes are damaged,
        or gone.
        """
        if not isinstance(access, SegmentAccess):
            access = SegmentAccess(access)
        self = cls(folder, access, options or StreamLogOptions())
        found = segment_files(folder, access.files)
        paths = drop_unborn(folder, found, access.files, is_new=is_new)
        self._sealed = open_sealed(paths, access)
        if paths:
            self._open_active(paths[-1], now_ms)
        else:
            self._active = self._writer.create(1, self._snapshot(), self._last_arrival_ms, now_ms)
            self._next_frame, self.tail = 2, Position(2, 0)
        self.memory.add_boundaries(ranges)
        self._active.release()  # it may be long until the first put
        return self

    def _open_active(self, path: Path, now_ms: int) -> None:
        first = int(path.stem)
        notes = ScanNotes(path, self._files, load_notes(path, self._files))
        fd = self._files.open_append(path)
        try:
            found = scan(self._files, fd, path, first, notes)
            cut_torn_tail(self._files, fd, path, found)
        finally:
            self._files.close(fd)
        if not found.is_vouched_for:
            self._files.sync_dir(self._folder)  # its name may be on its way only, too
        assert found.snapshot is not None, "drop_unborn has seen to that"
        self._active = ActiveSegment(
            path=path, files=self._files, notes=notes, first_frame=first, created_ms=now_ms,
            end=found.end, synced=found.records_end, allocated=found.end,
            snapshot_bytes=fmt.HEADER_BYTES + len(found.snapshot),
            first_arrival_ms=found.first_arrival_ms, last_arrival_ms=found.last_arrival_ms,
            index=found.index,
        )  # fmt: skip
        self._next_frame = found.last_frame + 1
        # Not after the MARKs: they are not synced. A reader who starts behind one that a power cut
        # takes would miss the record that gets its number.
        self.tail = Position(found.last_settled + 1, 0)
        previous = self._sealed[-1].last_arrival_ms if self._sealed else 0
        self._last_arrival_ms = max(found.last_arrival_ms, previous)
        snapshot = msgspec.msgpack.decode(found.snapshot, type=_Snapshot)
        self.memory.load(snapshot.pieces)
        self._last_index = snapshot.last_index | found.index.last_indexes()
        for frame in found.producer_frames:
            marks = fmt.decode_producers(frame.table)
            self.memory.apply(marks, frame.last_number, frame.arrival_ms)

    def close(self) -> None:
        """Release the files. Nothing may be in flight, and no snapshot being read."""
        self.note()
        self._access.open_files.forget_folder(self._folder)
        self._active.release()

    # -- writing: the owner's side -------------------------------------------------------------

    def append(
        self,
        shard: int,
        created_s: int,
        data: Sequence[str],
        keys: Sequence[str],
        now_ms: int,
        is_encrypted: bool = False,
    ) -> tuple[OpenFrame, list[str]]:
        """Put records into the open window; returns their frame and sequence numbers.

        `data` is valid base64 text, `keys` partition keys, empty for a record that has none;
        `created_s` is the shard's creation. `is_encrypted` is what readers are told, no more.
        The records are neither durable nor visible before `write` and `publish`.
        """
        window = self.window
        if window is None:
            window = self.window = Window(self._next_frame)
        frame = window.by_shard.get(shard)
        if frame is None or not frame.has_room(len(data)):
            self._last_arrival_ms = max(self._last_arrival_ms, now_ms)
            frame = OpenFrame(
                shard, self._next_frame, self._last_arrival_ms, self._last_index.get(shard, 0)
            )
            self._next_frame += 1
            window.frames.append(frame)
            window.by_shard[shard] = frame
        index = frame.frame_no << sequence.ORDINAL_BITS | len(frame.ends)
        arrival_ms = frame.arrival_ms
        if len(data) == 1:
            one = render_one(created_s, index, arrival_ms, shard, data[0], keys[0], is_encrypted)
            if one is not None:
                number, rendered = one
                frame.add_one(rendered)
                self._last_index[shard] = index
                return frame, [number]
        first = sequence.compose(created_s, index, arrival_ms // 1000, shard)
        numbers = sequence.run(first, len(data))
        quoted = quote_keys(keys)
        frame.add(render(numbers, arrival_ms, data, quoted, is_encrypted, frame.next_start))
        self._last_index[shard] = frame.last_index
        return frame, numbers

    def close_window(self, now_ms: int) -> Window | None:
        """Take the open window, to be written next. None when it is empty."""
        window = self.window
        if window is None:
            return None
        self.window = None
        window.close()
        if self._is_last(window, now_ms):
            # The memory is now exactly what the frames up to this window say. A snapshot that
            # held more could outlive those frames in a crash, and their records with it.
            self.memory.forget_silent(now_ms)
            window.roll_snapshot = self._snapshot_maker()
            self._next_frame += 1  # the snapshot's own
        return window

    def _is_last(self, window: Window, now_ms: int) -> bool:
        """Whether a new segment is to begin after a window."""
        active, options = self._active, self._options
        end = active.end + window.stored_bytes
        size = end - active.snapshot_bytes
        return end >= active.stays_until and (
            (size >= options.segment_bytes and size >= active.snapshot_bytes)
            or active.index.frames >= MAX_SEGMENT_FRAMES
            or (active.index.frames > 0 and now_ms - active.created_ms >= options.segment_age_ms)
        )

    def publish(self, written: Written) -> None:
        """Let readers see what was written."""
        active = self._active
        for shard, entry in written.entries:
            active.index.add(shard, entry)
            active.first_arrival_ms = active.first_arrival_ms or entry.arrival_ms
            active.last_arrival_ms = entry.arrival_ms
        active.end = active.synced = written.end
        active.owed_mark = written.owed_mark
        if written.stays_until > active.stays_until:
            active.stays_until = written.stays_until
        before, self.tail = self.tail, Position(written.entries[-1][1].frame_no + 1, 0)
        self.newest = Newest.of(written.window, before, self.tail)
        if written.rolled is not None and written.sealed is not None:
            self._sealed = (*self._sealed, written.sealed)
            self._active = written.rolled
            active.release()

    def fail(self, window: Window) -> None:
        """Forget a window that could not be written, and the open one, which builds on it."""
        doomed = [window] if self.window is None else [window, self.window]
        self.window = None
        for one in reversed(doomed):
            self.memory.take_back(reversed(one.undos))
            for frame in reversed(one.frames):
                self._last_index[frame.shard] = frame.previous
        self._next_frame = window.first_frame_no

    # -- writing: the writer thread's side ---------------------------------------------------

    def write(self, window: Window, now_ms: int) -> Written:
        """Write a window and make it durable; begin a new segment after it if it is time.

        Raises StorageFull with nothing of it stored. Any other OSError is beyond repair: the
        kernel may have dropped the dirty pages, so the process must stop.
        """
        return self._writer.write(self._active, window, now_ms)

    def write_mark(self) -> None:
        """Append a MARK frame: it says that all before it is durable. Not synced itself.

        Called by the owner when the stream has been idle for a moment: no window is open and
        none is being written.
        """
        self._writer.write_mark(self._active, self._next_frame, self._last_arrival_ms)
        self._next_frame += 1

    def note(self) -> None:
        """Take down, for the next start, what was written last.

        Called while nothing is being written. May be left out: the next `write` does it.
        """
        self._writer.note()

    def release(self) -> None:
        """Close the file that is written to until the next write, and keep nothing of it in memory.

        Nothing may be in flight.
        """
        self._active.release()
        self.newest = None

    def _snapshot(self) -> bytes:
        return self._snapshot_maker()()

    def _snapshot_maker(self) -> Callable[[], bytes]:
        """Makes the body of a snapshot of this moment, later and in any thread: with a million
        remembered sequences that takes half a second."""
        pieces, last_index = self.memory.copy(), self._last_index.copy()
        return lambda: msgspec.msgpack.encode(_Snapshot(dump(pieces), last_index))

    # -- reading -------------------------------------------------------------------------------

    def snapshot(self) -> LogSnapshot:
        """What can be read now: to be read here, or in a thread."""
        return LogSnapshot(self._access, self._sealed, self._active, self.tail, self.newest)

    @property
    def last_shard(self) -> int:
        """The highest number of a shard that has had records; -1 where none has."""
        return max(self._last_index, default=-1)

    @property
    def oldest_arrival_ms(self) -> int:
        """When the oldest record still stored arrived; 0 when there is none."""
        return (self._sealed[0] if self._sealed else self._active).first_arrival_ms

    @property
    def stored_bytes(self) -> int:
        return sum(s.size_bytes for s in self._sealed) + self._active.end

    def trim(self, before_ms: int) -> int:
        """Remove segments whose every record arrived before `before_ms`; returns how many."""
        expired = self.take_expired(before_ms)
        self.remove(expired)
        return len(expired)

    def take_expired(self, before_ms: int) -> Sequence[SealedSegment]:
        """Take leave of the segments whose every record arrived before `before_ms`.

        To be handed to `remove`; until then a start finds them again. Those that could not be
        removed the last time come first: a start refuses a log with a gap.
        """
        count = 0
        while count < len(self._sealed) and self._sealed[count].last_arrival_ms < before_ms:
            count += 1
        expired, self._sealed = self._sealed[:count], self._sealed[count:]
        if expired:
            self.newest = None  # it may be of what has expired
        for segment in expired:
            for path in (segment.path, index_path(segment.path)):
                self._access.open_files.forget(path)
        self._unremoved += expired
        return tuple(self._unremoved)

    def remove(self, expired: Sequence[SealedSegment]) -> None:
        """Delete segments from the disk, oldest first. May run in a thread: it takes a while."""
        for segment in expired:
            # the segment first: an index without its segment is swept, the reverse is rebuilt
            self._files.unlink(segment.path)
            self._files.unlink(index_path(segment.path))
            with contextlib.suppress(ValueError):  # two may be at it
                self._unremoved.remove(segment)
            for path in (segment.path, index_path(segment.path)):
                self._access.open_files.forget(path)  # a reader may have opened it again
        if expired:
            self._files.sync_dir(self._folder)
