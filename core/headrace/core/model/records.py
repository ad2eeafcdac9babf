"""Records as the client side hands them around, and the names an idempotent producer gives.

These are values only; the server side keeps records in frames and does not make one of these
per record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

PRODUCER_HEADER = "x-headrace-producer"
PRODUCER_EPOCH_HEADER = "x-headrace-producer-epoch"
PRODUCER_SEQUENCES_HEADER = "x-headrace-producer-sequences"


class PutEntry(msgspec.Struct, frozen=True, gc=False):
    """One record to put: data 0..10 MiB, partition key 1..256 characters.

    A struct, because producers make one per line: a tenth of a frozen dataclass's 0.4 us.
    """

    data: bytes
    partition_key: str
    explicit_hash_key: str | None = None


@dataclass(frozen=True, slots=True)
class PutResult:
    """The answer for one entry: a sequence number and shard, or an error code and message."""

    sequence_number: str | None
    shard_id: str | None
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record read. `approximate_arrival_ms` is Unix milliseconds."""

    data: bytes
    partition_key: str
    sequence_number: str
    approximate_arrival_ms: int


@dataclass(frozen=True, slots=True)
class ProducerStamp:
    """Who puts a batch, so that putting it again stores nothing twice.

    `producer_id` (1..256 printable ASCII characters) never changes for one source of records;
    `epoch` >= 0 rises when that source starts over; `sequences` has one integer >= 0 per entry,
    rising (equal is allowed only for entries that are the same record). The log keeps the last
    sequence per producer and hash key range, so a producer puts in order: what was refused goes
    again before anything later does.
    """

    producer_id: str
    epoch: int
    sequences: Sequence[int]

    def headers(self) -> dict[str, str]:
        return {
            PRODUCER_HEADER: self.producer_id,
            PRODUCER_EPOCH_HEADER: str(self.epoch),
            PRODUCER_SEQUENCES_HEADER: encode_sequences(self.sequences),
        }


def encode_sequences(sequences: Sequence[int]) -> str:
    """`first,+delta,+delta…`: a header of some hundred bytes where full numbers take 25 KB."""
    if not sequences:
        return ""
    parts = [str(sequences[0])]
    previous = sequences[0]
    for sequence in sequences[1:]:
        parts.append(str(sequence - previous))
        previous = sequence
    return ",".join(parts)


def decode_sequences(text: str) -> list[int]:
    """Inverse of `encode_sequences`. Raises ValueError on anything else."""
    out: list[int] = []
    value = 0
    for part in text.split(","):
        if len(part) > 80:  # beyond 2^256 nothing is a place in a file or a stream
            raise ValueError("a producer sequence has at most 80 digits")
        value += int(part)
        if value < 0:
            raise ValueError("a producer sequence is not negative")
        out.append(value)
    return out


class StartingPosition(StrEnum):
    """Where a consumer starts on a shard that has no checkpoint."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"
