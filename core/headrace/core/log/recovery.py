"""Reading a segment from its first byte: after a crash, or to build a lost index.

Tells the two kinds of bad end apart (see `format`): a torn tail is what was being written when
the lights went out and was never acknowledged; anything wrong below a *durable up to* mark is
damage, and is refused by name rather than cut off.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.errors import CorruptSegment, UnknownFormatVersion
from headrace.core.log.files import Files
from headrace.core.log.format import (
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

log = logging.getLogger("headrace.core")

_CHUNK = 4 << 20


@dataclass(slots=True)
class Scan:
    """What a scan found. `end` is the first byte after the last good frame.

    `producer_frames` are header, producer table and last sequence number of each frame that has
    a producer table.
    """

    index: ActiveIndex = field(default_factory=ActiveIndex)
    snapshot: bytes | None = None
    producer_frames: list[tuple[FrameHeader, bytes, str]] = field(default_factory=list)
    end: int = 0
    last_frame: int = 0
    first_arrival_ms: int = 0
    last_arrival_ms: int = 0
    durable_upto: int = 0


class _Reader:
    """Forward reading in large chunks."""

    def __init__(self, files: Files, fd: int) -> None:
        self._files, self._fd = files, fd
        self.size = files.size(fd)
        self._start = 0
        self._chunk = b""

    def get(self, offset: int, count: int) -> memoryview:
        """Up to `count` bytes at `offset`; fewer at the end of the file."""
        inside = offset - self._start
        if inside < 0 or inside + count > len(self._chunk):
            self._chunk = self._files.read_at(self._fd, max(count, _CHUNK), offset)
            self._start, inside = offset, 0
        return memoryview(self._chunk)[inside : inside + count]


def scan(files: Files, fd: int, path: Path, first_frame: int) -> Scan:
    """Read all frames of the segment that begins with `first_frame`.

    Raises CorruptSegment (path, offset, frame) where durable bytes are damaged, and
    UnknownFormatVersion where a newer Headrace wrote. The file is not changed.
    """
    found = Scan(last_frame=first_frame - 1)
    reader = _Reader(files, fd)
    while True:
        header = decode_header(reader.get(found.end, HEADER_BYTES))
        if header is None or header.frame_no != found.last_frame + 1:
            break
        body = reader.get(found.end + HEADER_BYTES, header.body_bytes)
        if not body_is_valid(header, body):
            break
        _take(found, header, body)
    _judge_the_rest(reader, files, fd, path, found)
    return found


def _take(found: Scan, header: FrameHeader, body: memoryview) -> None:
    if header.flags & FLAG_SNAPSHOT:
        found.snapshot = bytes(body)
    elif not header.is_control:
        found.index.add(
            header.shard,
            FrameEntry(
                header.frame_no, header.arrival_ms, found.end, header.frame_bytes, header.records
            ),
        )
        if header.producers_bytes:
            # the numbers are not kept per producer: the frame's last stands for all of them
            end = records_region(header)[1]
            number = last_sequence_number(bytes(body[max(end - 128, 0) : end]))
            found.producer_frames.append((header, bytes(body[end:]), number))
        found.first_arrival_ms = found.first_arrival_ms or header.arrival_ms
    found.last_arrival_ms = max(found.last_arrival_ms, header.arrival_ms)
    found.durable_upto = max(found.durable_upto, header.durable_upto)
    found.last_frame = header.frame_no
    found.end += header.frame_bytes


def _judge_the_rest(reader: _Reader, files: Files, fd: int, path: Path, found: Scan) -> None:
    """Is what follows the last good frame a torn tail? Raises if some header says otherwise."""
    if is_newer_version(reader.get(found.end, HEADER_BYTES)):
        raise UnknownFormatVersion(
            f"{path.name} was written by a newer Headrace",
            path=str(path),
            offset=found.end,
            hint="run the version that wrote it, or a later one",
        )
    durable = max(found.durable_upto, _vouched_after(reader, files, fd, found.end))
    if found.end < durable:
        raise CorruptSegment(
            f"segment {path} is damaged at byte {found.end}: frame {found.last_frame + 1} is not "
            f"what was written, and bytes up to {durable} were durable",
            path=str(path),
            offset=found.end,
            hint="restore this file from a copy; nothing of it was changed or cut off",
        )


def _vouched_after(reader: _Reader, files: Files, fd: int, start: int) -> int:
    """The greatest `durable_upto` of any valid header beyond `start`."""
    greatest = 0
    at = files.next_data(fd, start)
    while at is not None and at < reader.size:
        view = reader.get(at, _CHUNK)
        raw = bytes(view)
        hit = raw.find(MAGIC_BYTES)
        while hit >= 0:
            header = decode_header(reader.get(at + hit, HEADER_BYTES))
            if header is not None:
                greatest = max(greatest, header.durable_upto)
            hit = raw.find(MAGIC_BYTES, hit + 1)
        # a magic may lie across the edge of two chunks
        following = at + len(raw) - (len(MAGIC_BYTES) - 1)
        if following >= reader.size - len(MAGIC_BYTES) or len(raw) < len(MAGIC_BYTES):
            break
        at = files.next_data(fd, following)
    return greatest


def cut_torn_tail(files: Files, fd: int, path: Path, found: Scan) -> int:
    """Put what lies after the last good frame into `<segment>.broken` and cut it off.

    Returns the number of bytes cut; 0 when nothing but unwritten space follows.
    """
    size = files.size(fd)
    first = files.next_data(fd, found.end)
    tail = b""
    if first is not None and first < size:
        tail = files.read_at(fd, size - found.end, found.end).rstrip(b"\0")
    if tail:
        broken = path.with_suffix(".broken")
        out = files.open_append(broken)
        try:
            files.truncate(out, 0)
            files.write_at(out, [tail], 0)
            files.sync(out)
        finally:
            files.close(out)
        log.warning(
            "recovered %s: %d bytes of an unfinished write after frame %d were cut off "
            "(kept in %s); none of it had been acknowledged",
            path.name, len(tail), found.last_frame, broken.name,
        )  # fmt: skip
    files.truncate(fd, found.end)
    files.sync(fd)
    return len(tail)
