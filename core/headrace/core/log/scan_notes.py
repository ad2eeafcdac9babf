"""ScanNotes: what a scan of the segment being written has found so far, beside it in a file.

With them a start reads the last few megabytes of that segment, not all of it. They are a
convenience and never the truth: they are not synced, speak only of frames that are, and where they
are missing, torn or do not fit the segment, everything is scanned.

`<segment>.scan` is a run of chunks: length u32, CRC32C u32, then MessagePack (`_Chunk`). Each
tells of the frames since the one before.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from headrace.core.errors import StorageFull
from headrace.core.limits import MIB
from headrace.core.log.files import Files
from headrace.core.log.index import ActiveIndex, Columns, FrameEntry

log = logging.getLogger("headrace.core")

EVERY_BYTES = 4 * MIB  # of the segment, or this many frames: what a start may have to scan
EVERY_FRAMES = 4096

_HEAD = struct.Struct("<II")


class ProducerFrame(NamedTuple):
    """A frame's producer table, as stored, and the sequence number of its last record."""

    arrival_ms: int
    table: bytes
    last_number: str


class _Chunk(msgspec.Struct, array_like=True):
    """`end` is the first byte after the frames told of, `last_frame` the last of their numbers,
    `last_offset` where the last one with records begins."""

    end: int
    last_frame: int
    last_offset: int
    first_arrival_ms: int
    last_arrival_ms: int
    shards: list[tuple[int, Columns]]
    producers: list[ProducerFrame]


class Noted(NamedTuple):
    """All chunks together; `length` is that of the file of notes."""

    length: int
    end: int
    last_frame: int
    last_offset: int
    first_arrival_ms: int
    last_arrival_ms: int
    entries: ActiveIndex
    producers: list[ProducerFrame]


def notes_path(segment: Path) -> Path:
    return segment.with_suffix(".scan")


def load_notes(segment: Path, files: Files) -> Noted | None:
    """What was noted of a segment; None when that is nothing, or of no use."""
    try:
        fd = files.open_read(notes_path(segment))
        try:
            raw = files.read_at(fd, files.size(fd), 0)
        finally:
            files.close(fd)
        return _decoded(raw)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, ValueError) as error:  # another version's, perhaps
        log.warning("the notes beside %s cannot be read: %s", segment.name, error)
        return None


def _decoded(raw: bytes) -> Noted | None:
    entries, producers = ActiveIndex(), list[ProducerFrame]()
    chunk: _Chunk | None = None
    at = first_arrival_ms = 0
    while at + _HEAD.size <= len(raw):
        length, crc = _HEAD.unpack_from(raw, at)
        body = raw[at + _HEAD.size : at + _HEAD.size + length]
        if not length or len(body) != length or crc32c(body) != crc:
            break  # a chunk that was never finished, and whatever follows
        chunk = msgspec.msgpack.decode(body, type=_Chunk)
        entries.extend(chunk.shards)
        producers += chunk.producers
        first_arrival_ms = first_arrival_ms or chunk.first_arrival_ms
        at += _HEAD.size + length
    if chunk is None:
        return None
    return Noted(
        at, chunk.end, chunk.last_frame, chunk.last_offset, first_arrival_ms,
        chunk.last_arrival_ms, entries, producers,
    )  # fmt: skip


class ScanNotes:
    """The notes of one segment, as they are taken."""

    def __init__(self, segment: Path, files: Files, noted: Noted | None = None) -> None:
        """`noted` is what an earlier run has left, as `load_notes` gives it."""
        self._path = notes_path(segment)
        self._files = files
        self.noted = noted
        self._length = noted.length if noted else 0
        self._noted_upto = noted.end if noted else 0
        self._fresh = ActiveIndex()
        self._producers: list[ProducerFrame] = []
        self._first_arrival_ms = 0

    def add(self, shard: int, entry: FrameEntry, producers: ProducerFrame | None) -> None:
        """A frame that is durable."""
        self._fresh.add(shard, entry)
        self._first_arrival_ms = self._first_arrival_ms or entry.arrival_ms
        if producers is not None:
            self._producers.append(producers)

    def save_if_due(self, end: int, last: FrameEntry) -> None:
        """Write down what was added, if it is much. `last` is the newest frame, `end` its end."""
        if end - self._noted_upto < EVERY_BYTES and self._fresh.frames < EVERY_FRAMES:
            return
        body = msgspec.msgpack.encode(
            _Chunk(
                end, last.frame_no, last.offset, self._first_arrival_ms, last.arrival_ms,
                self._fresh.columns(), self._producers,
            )
        )  # fmt: skip
        self._noted_upto = end
        try:
            self._write([_HEAD.pack(len(body), crc32c(body)), body])
        except (OSError, StorageFull) as error:
            log.warning("could not note the progress of %s: %s", self._path.name, error)
            return  # the next chunk tells of these frames too
        self._length += _HEAD.size + len(body)
        self._fresh, self._producers = ActiveIndex(), []

    def _write(self, buffers: Sequence[bytes]) -> None:
        fd = self._files.open_append(self._path)
        try:
            # a chunk torn in an earlier run, or one behind it, must not seem to follow this one
            self._files.truncate(fd, self._length)
            self._files.write_at(fd, buffers, self._length)
        finally:
            self._files.close(fd)

    def remove(self) -> None:
        """Begin anew, or end: the notes do not fit the segment, or its index says more."""
        self._files.unlink(self._path)
        self.noted = None
        self._length = self._noted_upto = 0
