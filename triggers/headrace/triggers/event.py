"""Records as the event document that Lambda gives a function on a Kinesis stream.

A record is encoded once, when it is read: its size decides how batches are cut, and a retry
sends the same bytes. Source of the layout: Lambda's developer guide, "Using AWS Lambda with
Amazon Kinesis", and events recorded from the real service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from headrace.core.model.records import Record

MAX_EVENT_BYTES = 6_291_456  # Lambda's 6 MB on what a function is invoked with, encoded
_HEAD = b'{"Records":['
_TAIL = b"]}"
_ENVELOPE_BYTES = len(_HEAD) + len(_TAIL)


class _Kinesis(msgspec.Struct, rename="camel"):
    kinesis_schema_version: str
    partition_key: str
    sequence_number: str
    data: bytes  # msgspec writes bytes as base64
    approximate_arrival_timestamp: float


class _EventRecord(msgspec.Struct):
    kinesis: _Kinesis
    eventSource: str
    eventVersion: str
    eventID: str
    eventName: str
    invokeIdentityArn: str
    awsRegion: str
    eventSourceARN: str


class EncodedRecord(NamedTuple):
    """A record, and its entry in the event."""

    record: Record
    body: bytes


@dataclass(frozen=True, slots=True)
class EventSource:
    """What the records of one shard have in common. `region` is that of the stream."""

    stream_arn: str
    shard_id: str
    role_arn: str
    region: str

    def encode(self, record: Record) -> EncodedRecord:
        entry = _EventRecord(
            kinesis=_Kinesis(
                kinesis_schema_version="1.0",
                partition_key=record.partition_key,
                sequence_number=record.sequence_number,
                data=record.data,
                approximate_arrival_timestamp=record.approximate_arrival_ms / 1000,
            ),
            eventSource="aws:kinesis",
            eventVersion="1.0",
            eventID=f"{self.shard_id}:{record.sequence_number}",
            eventName="aws:kinesis:record",
            invokeIdentityArn=self.role_arn,
            awsRegion=self.region,
            eventSourceARN=self.stream_arn,
        )
        return EncodedRecord(record, msgspec.json.encode(entry))


@dataclass(frozen=True, slots=True)
class Batch:
    """Records handed to a function together: 1 or more, in the order of their shard."""

    records: tuple[EncodedRecord, ...]

    @property
    def first(self) -> Record:
        return self.records[0].record

    @property
    def last(self) -> Record:
        return self.records[-1].record

    def __len__(self) -> int:
        return len(self.records)

    def event(self) -> bytes:
        """The event document, JSON."""
        return b"".join((_HEAD, b",".join(entry.body for entry in self.records), _TAIL))

    def is_oversized(self) -> bool:
        """True for a record that cannot be sent to a function even alone."""
        return size_bytes(self.records) > MAX_EVENT_BYTES

    def since(self, index: int) -> Batch:
        """The records from `index` on."""
        return Batch(self.records[index:])


def size_bytes(records: Sequence[EncodedRecord]) -> int:
    """Of the event with these records."""
    commas = max(0, len(records) - 1)
    return _ENVELOPE_BYTES + commas + sum(len(entry.body) for entry in records)


def iso_ms(unix_ms: int) -> str:
    """`2026-11-22T15:04:05.678Z`, as Lambda's documents write a time."""
    text = datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
