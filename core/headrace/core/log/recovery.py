"""Reading a segment from its first byte: after a crash, or to build a lost index.

Tells the two kinds of bad end apart (see `format`): a torn tail is what was being written when
the lights went out and was never acknowledged; anything wrong below a *durable up to* mark is
damage, and is refused by name rather than cut off.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.errors import CorruptSegment, StorageFull, UnknownFormatVersion
from headrace.core.log.files import Files, is_no_room
from headrace.core.log.format import (
    FLAG_MARK,
    FLAG_SNAPSHOT,
    HEADER_BYTES,
    MAGIC_BYTES,
    FrameHeader,
    body_is_valid,
    decode_header,
    is_newer_version,
    records_region,
)
from headrace.core.log.index import ActiveIndex, FrameEntry
from headrace.core.log.rendering import last_sequence_number
from headrace.core.log.scan_notes import Noted, ProducerFrame, ScanNotes

log = logging.getLogger("headrace.core")

_CHUNK = 4 << 20
_ZEROS = bytes(1 << 20)


@dataclass(slots=True)
class Scan:
    """What a scan found. `end` is the first byte after the last good frame.

    `producer_frames` are those of frames that have a producer table. `records_end` is the end of
    the last frame that is no MARK, `last_settled` its
    number, `written_end` the end of whatever lies after the last good frame.
    """

    index: ActiveIndex = field(default_factory=ActiveIndex)
    snapshot: bytes | None = None
    producer_frames: list[ProducerFrame] = field(default_factory=list)
    end: int = 0
    records_end: int = 0
    written_end: int = 0
    last_frame: int = 0
    last_settled: int = 0
    first_arrival_ms: int = 0
    last_arrival_ms: int = 0
    durable_upto: int = 0

    @property
    def is_vouched_for(self) -> bool:
        """All of it is known to be on the disk: a MARK says so."""
        return self.durable_upto >= self.records_end


class _Reader:
    """Forward reading in large chunks."""

    def __init__(self, files: Files, fd: int) -> None:
        self._files, self._fd = files, fd
        self.size = files.written_end(fd)
        self._start = 0
        self._chunk = b""

    def get(self, offset: int, count: int) -> memoryview:
        """Up to `count` bytes at `offset`; fewer at the end of what was written."""
        inside = offset - self._start
        if inside < 0 or inside + count > len(self._chunk):
            want = min(max(count, _CHUNK), max(self.size - offset, 0))
            self._chunk = self._files.read_at(self._fd, want, offset)
            self._start, inside = offset, 0
        return memoryview(self._chunk)[inside : inside + count]

    def frame_at(self, offset: int) -> tuple[FrameHeader, bytes] | None:
        """One frame by itself, if it is a valid one."""
        header = decode_header(self._files.read_at(self._fd, HEADER_BYTES, offset))
        if header is None:
            return None
        body = self._files.read_at(self._fd, header.body_bytes, offset + HEADER_BYTES)
        return (header, body) if body_is_valid(header, body) else None


def scan(
    files: Files, fd: int, path: Path, first_frame: int, notes: ScanNotes | None = None
) -> Scan:
    """Read all frames of the segment that begins with `first_frame`.

    Given `notes`, begins where the notes of the segment end, if there are any that fit, and adds
    to them; what comes before is checked when it is read.

    Raises CorruptSegment (path, offset, frame) where durable bytes are damaged or missing, and
    UnknownFormatVersion where a newer Headrace wrote. The file is not changed.
    """
    found = Scan(last_frame=first_frame - 1, last_settled=first_frame - 1)
    reader = _Reader(files, fd)
    misfit = None
    if notes is not None and notes.noted is not None and not _skip(found, reader, notes.noted):
        log.warning("the notes beside %s do not fit it; reading all of it", path.name)
        misfit = notes
        found.durable_upto = notes.noted.end  # only what is durable is noted
    while True:
        header = decode_header(reader.get(found.end, HEADER_BYTES))
        if header is None or header.frame_no != found.last_frame + 1:
            break
        body = reader.get(found.end + HEADER_BYTES, header.body_bytes)
        if not body_is_valid(header, body):
            break
        _take(found, header, body, notes)
    _judge_the_rest(reader, files, fd, path, found)
    if misfit is not None:
        misfit.remove()
    return found


def _skip(found: Scan, reader: _Reader, noted: Noted) -> bool:
    """Take over what was noted, if the segment's first frame and the last one noted are there."""
    first = reader.frame_at(0)
    last = reader.frame_at(noted.last_offset)
    if first is None or not first[0].flags & FLAG_SNAPSHOT or last is None:
        return False
    if (last[0].frame_no, noted.last_offset + last[0].frame_bytes) != (noted.last_frame, noted.end):
        return False
    found.snapshot = first[1]
    found.index = noted.entries
    found.producer_frames = noted.producers
    found.end = found.records_end = found.durable_upto = noted.end
    found.last_frame = found.last_settled = noted.last_frame
    found.first_arrival_ms = noted.first_arrival_ms
    found.last_arrival_ms = noted.last_arrival_ms
    return True


def _take(found: Scan, header: FrameHeader, body: memoryview, notes: ScanNotes | None) -> None:
    producers: ProducerFrame | None = None
    if header.flags & FLAG_SNAPSHOT:
        found.snapshot = bytes(body)
    elif not header.is_control:
        entry = FrameEntry(
            header.frame_no, header.arrival_ms, found.end, header.frame_bytes, header.records
        )
        found.index.add(header.shard, entry)
        if header.producers_bytes:
            # the numbers are not kept per producer: the frame's last stands for all of them
            end = records_region(header)[1]
            number = last_sequence_number(bytes(body[max(end - 128, 0) : end]))
            producers = ProducerFrame(header.arrival_ms, bytes(body[end:]), number)
            found.producer_frames.append(producers)
        if notes is not None:
            notes.add(header.shard, entry, producers)
        found.first_arrival_ms = found.first_arrival_ms or header.arrival_ms
    found.last_arrival_ms = max(found.last_arrival_ms, header.arrival_ms)
    found.durable_upto = max(found.durable_upto, header.durable_upto)
    found.last_frame = header.frame_no
    found.end += header.frame_bytes
    if not header.flags & FLAG_MARK:
        found.records_end = found.end
        found.last_settled = header.frame_no


def _judge_the_rest(reader: _Reader, files: Files, fd: int, path: Path, found: Scan) -> None:
    """Is what follows the last good frame a torn tail? Raises if some header says otherwise."""
    if is_newer_version(reader.get(found.end, HEADER_BYTES)):
        raise UnknownFormatVersion(
            f"{path.name} was written by a newer Headrace",
            path=str(path),
            offset=found.end,
            hint="run the version that wrote it, or a later one",
        )
    durable = max(found.durable_upto, _look_beyond(reader, files, fd, found))
    if found.end < durable:
        raise CorruptSegment(
            f"segment {path} is damaged at byte {found.end}: frame {found.last_frame + 1} is not "
            f"what was written, and bytes up to {durable} were durable",
            path=str(path),
            offset=found.end,
            hint="restore this file from a copy; nothing of it was changed or cut off. (If a copy "
            f"is what it is: without {path.stem}.scan beside it, what it has is taken)",
        )


def _look_beyond(reader: _Reader, files: Files, fd: int, found: Scan) -> int:
    """Look at what lies after the last good frame: usually a rest of zeros.

    Sets `found.written_end`; returns the greatest `durable_upto` of any valid header there.
    """
    greatest = 0
    found.written_end = at = found.end
    overlap = len(MAGIC_BYTES) - 1  # a magic may lie across the edge of two chunks
    while at < reader.size:
        chunk = files.read_at(fd, min(len(_ZEROS), reader.size - at), at)
        if not chunk:
            break
        if chunk != _ZEROS[: len(chunk)]:
            found.written_end = at + len(chunk.rstrip(b"\0"))
            hit = chunk.find(MAGIC_BYTES)
            while hit >= 0:
                header = decode_header(reader.get(at + hit, HEADER_BYTES))
                if header is not None:
                    greatest = max(greatest, header.durable_upto)
                hit = chunk.find(MAGIC_BYTES, hit + 1)
        at = at + len(chunk) - overlap if at + len(chunk) < reader.size else reader.size
    return greatest


def cut_torn_tail(files: Files, fd: int, path: Path, found: Scan) -> int:
    """Put what lies after the last good frame into `<segment>.broken` and cut it off.

    Takes no room: on a full disk it is cut off all the same, and not kept. Returns the number of
    bytes cut; 0 when nothing but unwritten space follows.
    """
    tail = files.read_at(fd, found.written_end - found.end, found.end)
    if tail:
        broken = path.with_suffix(".broken")
        is_kept = _keep(files, broken, tail)
        log.warning(
            "recovered %s: %d bytes of an unfinished write after frame %d were cut off (%s); "
            "none of it had been acknowledged",
            path.name, len(tail), found.last_frame,
            f"kept in {broken.name}" if is_kept else "no room to keep them",
        )  # fmt: skip
    files.truncate(fd, found.end)
    if not found.is_vouched_for:
        # It may have been on its way to the disk only. After a sync that failed, the kernel may
        # even take it for written: so it is written again.
        again = files.read_at(fd, found.end - found.durable_upto, found.durable_upto)
        with contextlib.suppress(StorageFull):  # where writing anew takes space: it is there
            files.write_at(fd, [again], found.durable_upto)
    if tail or not found.is_vouched_for:
        files.sync(fd)
    return len(tail)


def cut_reserved(files: Files, fd: int, end: int) -> bool:
    """Cut off what was reserved after the last frame, which ends at `end`, and never written.

    Changes nothing and returns False where anything but zeros follows.
    """
    written_end = files.written_end(fd)
    for at in range(end, written_end, len(_ZEROS)):
        chunk = files.read_at(fd, min(len(_ZEROS), written_end - at), at)
        if chunk != _ZEROS[: len(chunk)]:
            return False
    files.truncate(fd, end)
    return True


def _keep(files: Files, broken: Path, tail: bytes) -> bool:
    """Put a torn tail aside, durable. False, with nothing left of it, where there is no room."""
    try:
        out = files.open_append(broken)
        try:
            files.truncate(out, 0)
            files.write_at(out, [tail], 0)
            files.sync(out)
        finally:
            files.close(out)
    except (StorageFull, OSError) as error:
        if not is_no_room(error):
            raise
        files.unlink(broken)
        return False
    return True
