"""Writing segments: what happens in the writer thread, or in the loop's where the disk is quick.

Durable before it returns, or an error that says whether anything is stored; and notes of it for
the next start, when nobody waits any more: that is all this does. Numbering, memory and what
readers see belong to `StreamLog`.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import msgspec

from headrace.core.errors import StorageFull
from headrace.core.log import format as fmt
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import is_no_room
from headrace.core.log.index import FrameEntry
from headrace.core.log.index_file import write_index
from headrace.core.log.rendering import last_sequence_number
from headrace.core.log.scan_notes import ProducerFrame, ScanNotes
from headrace.core.log.segment import ActiveSegment, SealedSegment, index_path, segment_path
from headrace.core.log.window import OpenFrame, Window

log = logging.getLogger("headrace.core")


class Written(msgspec.Struct, gc=False):
    """What `write` did, for `StreamLog.publish`."""

    window: Window
    entries: list[tuple[int, FrameEntry]]
    end: int
    owed_mark: bytes = b""
    stays_until: int = 0
    rolled: ActiveSegment | None = None
    sealed: SealedSegment | None = None


class _Unnoted(msgspec.Struct, gc=False):
    """A window that is durable, to be noted: its frames, and those of them with producers.

    There are as many `producers`, or none where no frame has any.
    """

    active: ActiveSegment
    entries: list[tuple[int, FrameEntry]]
    producers: list[ProducerFrame | None]
    end: int


class SegmentWriter:
    """Writes the segments of one folder. Called from one thread at a time."""

    def __init__(self, folder: Path, access: SegmentAccess) -> None:
        self._folder = folder
        self._access = access
        self._files = access.files
        self._unnoted: _Unnoted | None = None
        self._owes_names = False  # the folder is to be synced before anything more is durable
        self._owed_indexes: list[tuple[Path, bytes]] = []

    def write(self, active: ActiveSegment, window: Window, now_ms: int) -> Written:
        """See `StreamLog.write`."""
        if self._unnoted is not None:
            self.note()
        if self._owes_names:
            self._settle_names()
        files = self._files
        buffers: list[bytes] = [active.owed_mark] if active.owed_mark else []
        entries: list[tuple[int, FrameEntry]] = []
        tables: list[bytes] = []
        at = active.end + len(active.owed_mark)
        for frame in window.frames:
            producers = fmt.encode_producers(frame.marks.values()) if frame.marks else b""
            buffers += fmt.encode_frame(
                frame.ends,
                frame.objects,
                producers,
                frame.shard,
                frame.frame_no,
                frame.arrival_ms,
                active.synced,
                frame.previous,
            )
            tables.append(producers)
            length = fmt.HEADER_BYTES + frame.body_bytes + len(producers)
            entries.append(
                (
                    frame.shard,
                    FrameEntry(frame.frame_no, frame.arrival_ms, at, length, len(frame.ends)),
                )
            )
            at += length
        active.reserve(at - active.end)
        fd = active.fd
        try:
            files.write_at(fd, buffers, active.end)
        except StorageFull:
            self._cut_back(active)
            raise
        files.sync_data(fd)
        # From here on the window would come back after a crash: nothing may refuse it any more.
        written = Written(window, entries, at)
        if window.roll_snapshot is not None:
            self._roll(active, written, window, now_ms)
        if written.rolled is None:
            of_producers = list(map(_producers, window.frames, tables)) if any(tables) else []
            self._unnoted = _Unnoted(active, entries, of_producers, at)
        return written

    def _cut_back(self, active: ActiveSegment) -> None:
        """Leave nothing of a window that had no room: half of it may be whole frames."""
        self._files.truncate(active.fd, active.end)
        active.allocated = active.end
        try:
            self._files.sync(active.fd)  # nor is it to come back with the power
        except OSError as error:
            if not is_no_room(error):
                raise

    def note(self) -> None:
        """Note the window that was written last, if that is still to be done.

        Not done by `write`, whose end somebody waits for.
        """
        unnoted, self._unnoted = self._unnoted, None
        if unnoted is None:
            return
        notes = unnoted.active.notes
        for i, (shard, entry) in enumerate(unnoted.entries):
            notes.add(shard, entry, unnoted.producers[i] if unnoted.producers else None)
        notes.save_if_due(unnoted.end, unnoted.entries[-1][1])

    def write_mark(self, active: ActiveSegment, frame_no: int, arrival_ms: int) -> None:
        """See `StreamLog.write_mark`."""
        self._settle_names()
        self._write_owed_indexes()
        marks = active.owed_mark + _mark(frame_no, arrival_ms, active.synced)
        active.reserve(len(marks))
        self._files.write_at(active.fd, [marks], active.end)
        active.end += len(marks)
        active.owed_mark = b""

    def _roll(self, active: ActiveSegment, written: Written, window: Window, now_ms: int) -> None:
        assert window.roll_snapshot is not None
        snapshot = window.roll_snapshot()
        last_frame = window.frames[-1].frame_no
        last_arrival_ms = window.frames[-1].arrival_ms
        rolled, why = None, "no space"
        try:
            if len(snapshot) > fmt.MAX_BODY_BYTES:  # a start would take it for damage
                why = "too many producers to be remembered"
            else:
                rolled = self.create(last_frame + 1, snapshot, last_arrival_ms, now_ms)
        except StorageFull:
            pass
        if rolled is None:
            # Stay in this one. The number of the snapshot's frame is taken, for puts have been
            # numbered since; a MARK has it, synced with the next window.
            log.warning("%s for a new segment in %s; staying in the old one", why, self._folder)
            written.owed_mark = _mark(last_frame + 1, last_arrival_ms, written.end)
            written.stays_until = written.end + len(snapshot)  # not to make one for every put
            return
        path = active.path
        self._files.truncate(active.fd, written.end)
        self._files.sync(active.fd)
        written.rolled = rolled
        first_arrival_ms = active.first_arrival_ms or window.frames[0].arrival_ms
        content = active.index.encode(
            first_frame=active.first_frame,
            last_frame=last_frame,
            first_arrival_ms=first_arrival_ms,
            last_arrival_ms=last_arrival_ms,
            end=written.end,
            more=written.entries,
        )
        # The window is durable, so this must not fail it: without room, or with too many open
        # files, the index stays in memory until it can be written.
        self._owed_indexes.append((path, content))
        self._write_owed_indexes()
        if self._owed_indexes:
            log.warning("no space for the index of %s; keeping it in memory", path.name)
            written.sealed = SealedSegment.open(path, self._access, content)
        else:
            written.sealed = SealedSegment.open(path, self._access)
            active.notes.remove()

    def _write_owed_indexes(self) -> None:
        """As far as there is room."""
        while self._owed_indexes:
            path, content = self._owed_indexes[0]
            if path.exists():  # not trimmed meanwhile
                try:
                    write_index(self._files, index_path(path), content)
                except (StorageFull, OSError) as error:
                    if not is_no_room(error):
                        raise
                    return
            self._owed_indexes.pop(0)

    def _settle_names(self) -> None:
        """Raises StorageFull while it cannot be said which files the folder has."""
        if self._owes_names:
            self._files.sync_dir(self._folder)
            self._owes_names = False

    def create(
        self, first_frame: int, snapshot: bytes, arrival_ms: int, now_ms: int
    ) -> ActiveSegment:
        """A new segment file with its snapshot frame, durable. Raises StorageFull, leaving none."""
        path = segment_path(self._folder, first_frame)
        fd = self._files.open_append(path)
        self._files.truncate(fd, 0)  # a try that a full disk ended may have left something
        segment = ActiveSegment(
            path=path,
            files=self._files,
            notes=ScanNotes(path, self._files),
            first_frame=first_frame,
            created_ms=now_ms,
            open_fd=fd,
        )
        header = fmt.encode_header(
            snapshot, records=0, shard=fmt.CONTROL_SHARD, frame_no=first_frame,
            arrival_ms=arrival_ms, durable_upto=0,
            flags=fmt.FLAG_SNAPSHOT,
        )  # fmt: skip
        try:
            segment.reserve(len(header) + len(snapshot))
            self._files.write_at(fd, [header, snapshot], 0)
            self._files.sync(fd)
            self._files.sync_dir(self._folder)
        except StorageFull:
            self._files.close(fd)
            self._files.unlink(path)
            # a name that a power cut brings back would look as if frames before it were lost
            self._owes_names = True
            with contextlib.suppress(StorageFull):
                self._settle_names()
            raise
        segment.end = segment.synced = segment.snapshot_bytes = len(header) + len(snapshot)
        return segment


def _producers(frame: OpenFrame, table: bytes) -> ProducerFrame | None:
    """What is noted of a frame's producer table, if it has any."""
    if not table:
        return None
    return ProducerFrame(frame.arrival_ms, table, last_sequence_number(frame.objects[-1][-128:]))


def _mark(frame_no: int, arrival_ms: int, durable_upto: int) -> bytes:
    return fmt.encode_header(
        b"",
        records=0,
        shard=fmt.CONTROL_SHARD,
        frame_no=frame_no,
        arrival_ms=arrival_ms,
        durable_upto=durable_upto,
        flags=fmt.FLAG_MARK,
    )
