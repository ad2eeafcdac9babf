"""The bytes of a segment: frame headers and bodies, encoded and decoded by pure functions.

A segment is a run of frames. A frame is one shard's records of one commit window, or a control
frame. All integers are little endian.

Header, 64 bytes:

| offset | size | field         | meaning                                                      |
|--------|------|---------------|--------------------------------------------------------------|
| 0      | 4    | magic         | `HRF1`                                                       |
| 4      | 1    | version       | 1                                                            |
| 5      | 1    | codec         | 1: records as the JSON objects that GetRecords answers       |
| 6      | 2    | flags         | SNAPSHOT, MARK                                               |
| 8      | 4    | header crc    | CRC32C of the header with this field zero                    |
| 12     | 4    | body length   | bytes after the header                                       |
| 16     | 4    | body crc      | CRC32C of the body                                           |
| 20     | 4    | records       | records in the frame, 0..16384                               |
| 24     | 4    | shard         | shard number; 0xFFFFFFFF in control frames                   |
| 28     | 4    | producers     | length of the producer table at the end of the body          |
| 32     | 8    | frame number  | consecutive within the stream, from 1                        |
| 40     | 8    | arrival       | Unix ms; never goes back within the stream                   |
| 48     | 8    | durable up to | bytes of this file known to be synced when this was written  |
| 56     | 8    | previous      | sequence index of the shard's last record before; 0 for none |

Body: `u32 end[records]`, the records joined by a comma, the producer table. `end[i]` counts from
the first record's first byte; record i+1 begins one byte (the comma) after. The producer table
is MessagePack: `[[range start, range end, producer, epoch, sequence], …]`, the four numbers
as big-endian byte strings where they may exceed 64 bits.

*Durable up to* is what tells a torn tail from corruption: a byte below some valid header's value
was on disk once, so if it is wrong now, it was damaged (refused by name); a byte at or above all
of them may be a write that was never finished (cut off). A MARK frame has no body and exists to
say this for the frames before it once a stream falls idle.

*Previous* is frame number << 14 | ordinal. It is how a reader whose place has expired knows
whether it missed anything in between.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from crc32c import crc32c

from headrace.core.speedups import compiled

MAGIC = int.from_bytes(b"HRF1", "little")
MAGIC_BYTES = b"HRF1"
VERSION = 1
CODEC_JSON = 1
FLAG_SNAPSHOT = 1
FLAG_MARK = 2
CONTROL_SHARD = 0xFFFF_FFFF
HEADER_BYTES = 64
_HELD_CRC_BYTES = 1024 * 1024  # 50 us; a busy loop gives the interpreter back after many times that
_JOINED_BYTES = 64 * 1024  # up to here one piece costs less than many
MAX_BODY_BYTES = 2**31  # a length beyond this is damage, not a frame

_HEADER = struct.Struct("<IBBHIIIIIIQQQQ")
_CRC_AT = slice(8, 12)
_CRC = struct.Struct("<I")
assert _HEADER.size == HEADER_BYTES


class FrameHeader(NamedTuple):
    """A decoded header; see the module's table."""

    codec: int
    flags: int
    body_bytes: int
    body_crc: int
    records: int
    shard: int
    producers_bytes: int
    frame_no: int
    arrival_ms: int
    durable_upto: int
    previous: int

    @property
    def is_control(self) -> bool:
        return self.flags != 0

    @property
    def frame_bytes(self) -> int:
        return HEADER_BYTES + self.body_bytes


class ProducerMark(NamedTuple):
    """The last sequence of a producer within a hash key range, as a frame records it."""

    range_start: int
    range_end: int
    producer_id: str
    epoch: int
    sequence: int


def encode_header(
    *body: bytes,
    records: int,
    shard: int,
    frame_no: int,
    arrival_ms: int,
    durable_upto: int,
    previous: int = 0,
    producers_bytes: int = 0,
    flags: int = 0,
) -> bytes:
    """The 64 bytes that go before `body`, which may come in pieces."""
    crc = body_bytes = 0
    for piece in body:
        size = len(piece)
        body_bytes += size
        # 0: without letting go of the interpreter; a large piece is worth the wait to get it back
        crc = crc32c(piece, crc, 0 if size <= _HELD_CRC_BYTES else 1)
    header = _HEADER.pack(
        MAGIC, VERSION, CODEC_JSON, flags, 0, body_bytes, crc, records, shard,
        producers_bytes, frame_no, arrival_ms, durable_upto, previous,
    )  # fmt: skip
    return header[: _CRC_AT.start] + _CRC.pack(crc32c(header)) + header[_CRC_AT.stop :]


def decode_header(data: bytes | memoryview, offset: int = 0) -> FrameHeader | None:
    """The header at `offset`, or None where there is no whole, valid one.

    A version this code does not know is also None: `is_newer_version` tells.
    """
    if len(data) - offset < HEADER_BYTES:
        return None
    (
        magic, version, codec, flags, header_crc, body_bytes, body_crc, records, shard,
        producers_bytes, frame_no, arrival_ms, durable_upto, previous,
    ) = _HEADER.unpack_from(data, offset)  # fmt: skip
    if magic != MAGIC or version != VERSION or body_bytes > MAX_BODY_BYTES:
        return None
    raw = bytearray(data[offset : offset + HEADER_BYTES])
    raw[_CRC_AT] = b"\0\0\0\0"
    if crc32c(bytes(raw)) != header_crc:
        return None
    return FrameHeader(
        codec, flags, body_bytes, body_crc, records, shard, producers_bytes, frame_no, arrival_ms,
        durable_upto, previous,
    )  # fmt: skip


def is_newer_version(data: bytes | memoryview, offset: int = 0) -> bool:
    """True where a frame of a later format version begins."""
    return (
        len(data) - offset >= 5
        and bytes(data[offset : offset + 4]) == MAGIC_BYTES
        and data[offset + 4] > VERSION
    )


def body_is_valid(header: FrameHeader, body: bytes | memoryview) -> bool:
    return len(body) == header.body_bytes and crc32c(body) == header.body_crc


def encode_frame(
    ends: array[int],
    objects: list[bytes],
    producers: bytes,
    shard: int,
    frame_no: int,
    arrival_ms: int,
    durable_upto: int,
    previous: int,
) -> list[bytes]:
    """A record frame, as the pieces to write.

    `objects` are records, one or several joined by commas; `ends` has the end of each record.
    """
    if ends[-1] < _JOINED_BYTES:
        return [
            small_frame(
                ends, objects, producers, shard, frame_no, arrival_ms, durable_upto, previous
            )
        ]
    body = [ends.tobytes()]
    for one in objects:  # not copied once more
        body += (one, b",")
    body[-1] = producers
    header = encode_header(
        *body,
        records=len(ends),
        shard=shard,
        frame_no=frame_no,
        arrival_ms=arrival_ms,
        durable_upto=durable_upto,
        previous=previous,
        producers_bytes=len(producers),
    )
    return [header, *body]


@compiled
def small_frame(
    ends: array[int],
    objects: list[bytes],
    producers: bytes,
    shard: int,
    frame_no: int,
    arrival_ms: int,
    durable_upto: int,
    previous: int,
    /,
) -> bytes:
    """A record frame in one piece."""
    body = ends.tobytes() + b",".join(objects) + producers
    header = encode_header(
        body,
        records=len(ends),
        shard=shard,
        frame_no=frame_no,
        arrival_ms=arrival_ms,
        durable_upto=durable_upto,
        previous=previous,
        producers_bytes=len(producers),
    )
    return header + body


def record_ends(header: FrameHeader, body: bytes | memoryview) -> memoryview:
    """End offsets of the records, counted from the first record's first byte: a view of them."""
    return memoryview(body)[: 4 * header.records].cast("I")


def records_region(header: FrameHeader) -> tuple[int, int]:
    """Where in the body the joined records lie: start, end (exclusive)."""
    return 4 * header.records, header.body_bytes - header.producers_bytes


def _wide(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")


def encode_producers(marks: Iterable[ProducerMark]) -> bytes:
    """The producer table; empty for no marks."""
    rows = [
        (_wide(m.range_start), _wide(m.range_end), m.producer_id, m.epoch, _wide(m.sequence))
        for m in marks
    ]
    return msgspec.msgpack.encode(rows) if rows else b""


_PRODUCERS = msgspec.msgpack.Decoder(list[tuple[bytes, bytes, str, int, bytes]])


def decode_producers(table: bytes | memoryview) -> list[ProducerMark]:
    if not len(table):
        return []
    return [
        ProducerMark(
            int.from_bytes(start, "big"), int.from_bytes(end, "big"), producer_id, epoch,
            int.from_bytes(sequence, "big"),
        )
        for start, end, producer_id, epoch, sequence in _PRODUCERS.decode(table)
    ]  # fmt: skip
