"""What a put brings, by column, and what is checked of it before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from headrace.core.errors import InvalidArgument, ValidationError
from headrace.core.limits import MAX_PUT_REQUEST_BYTES, MIB
from headrace.core.model.hashing import MAX_HASH_KEY
from headrace.core.model.usage import Extent


@dataclass(slots=True)
class PutColumns:
    """The records of a put, by column. `data` is valid base64 text, `sizes` the bytes it holds.

    `path` is where errors say that a record's members lie, `{}` being its number. A record
    without a partition key has an empty one; `is_keyless` says that there are such.
    """

    data: list[str]
    keys: list[str]
    explicit: Sequence[str | None] | None
    sizes: list[int]
    path: str
    is_keyless: bool = False

    def only(self, kept: Sequence[int]) -> PutColumns:
        """The records at these indexes."""
        explicit = self.explicit
        return PutColumns(
            [self.data[i] for i in kept],
            [self.keys[i] for i in kept],
            None if explicit is None else [explicit[i] for i in kept],
            [self.sizes[i] for i in kept],
            self.path,
        )

    def check_sizes(self, extent: Extent, limit: int) -> None:
        """Raises ValidationError for a record of more than `limit` bytes with its key, and
        InvalidArgument for too much in all.
        """
        # cheap bound first: only a request with something large in it is looked at by record
        if extent.largest + extent.longest_key > limit:
            over = [
                i
                for i, (size, key) in enumerate(zip(self.sizes, self.keys, strict=True))
                if size + len(key.encode()) > limit
            ]
            if over:
                rule = f"Member must have length less than or equal to {limit}"
                raise _broken_members(f"Value at '{self.path}data'", over, rule)
        if extent.payload_bytes > MAX_PUT_REQUEST_BYTES:
            raise InvalidArgument(f"Records size exceeds {MAX_PUT_REQUEST_BYTES // MIB} MB limit")

    def keyless(self) -> ValidationError:
        """What records without a partition key are refused with."""
        indexes = [i for i, key in enumerate(self.keys) if not key]
        subject = f"Value null at '{self.path}partitionKey'"
        return _broken_members(subject, indexes, "Member must not be null")

    def check_hash_keys(self) -> None:
        """Raises InvalidArgument for an explicit hash key beyond the last."""
        for given in self.explicit or ():
            if given is not None and int(given) > MAX_HASH_KEY:
                raise InvalidArgument(
                    "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                    f"Specified value was {given}"
                )


@dataclass(frozen=True, slots=True)
class Stamp:
    """The producer of an idempotent put; `sequences` has one per record."""

    producer_id: str
    epoch: int
    sequences: Sequence[int]

    def only(self, kept: Sequence[int]) -> Stamp:
        """The same for the records at these indexes."""
        return Stamp(self.producer_id, self.epoch, [self.sequences[i] for i in kept])

    def check(self, records: int) -> None:
        """Raises InvalidArgument unless it fits so many records."""
        if len(self.sequences) != records:
            raise InvalidArgument(
                f"The request has {records} records but {len(self.sequences)} producer sequences."
            )
        if any(b < a for a, b in pairwise(self.sequences)):
            raise InvalidArgument("The producer sequences of a request must not go down.")


@dataclass(slots=True)
class PutAnswer:
    """One sequence number and shard id per record, in the request's order.

    `refused` has the message of each record, by index, that was over its shard's capacity.
    `encryption` is None for a stream that is not encrypted.
    """

    sequence_numbers: list[str]
    shard_ids: list[str]
    refused: dict[int, str] = field(default_factory=dict)
    encryption: str | None = None


def _broken_members(subject: str, indexes: Sequence[int], rule: str) -> ValidationError:
    """What AWS says of a member of several records that breaks a rule: the first ten are named.

    `subject` is such as `Value at 'records.{}.member.data'`.
    """
    lines = [f"{subject.format(i + 1)} failed to satisfy constraint: {rule}" for i in indexes[:10]]
    noun = "error" if len(lines) == 1 else "errors"
    return ValidationError(f"{len(lines)} validation {noun} detected: {'; '.join(lines)}")
