"""Sequence numbers in the layout that AWS's own show, so what decodes theirs decodes ours.

A sequence number is 186 bits, written in decimal (56 digits). From the top, in hex digits:

| digits | field            | here                                                       |
|--------|------------------|------------------------------------------------------------|
| 1      | 2                | constant                                                   |
| 9      | creation seconds | of the shard; a child's are greater than its parents'      |
| 1      | shard, low digit |                                                            |
| 16     | sequence index   | frame number << 14 | ordinal: where the record lies        |
| 2      | 00               | constant                                                   |
| 9      | arrival seconds  | of the record                                              |
| 8      | shard            | number in `shardId-000000000000`                           |
| 1      | 2                | version                                                    |

Hence numbers rise within a shard, and every number of a child exceeds every one of its parents.
Source: field order as observed on AWS by the kinesalite project.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.core.speedups import compiled

ORDINAL_BITS = 14
MAX_FRAME_RECORDS = 1 << ORDINAL_BITS
_ORDINAL_MASK = MAX_FRAME_RECORDS - 1
_INDEX_SHIFT = 80
_CREATED_SHIFT = 148
_SHARD_MASK = 0xFFFF_FFFF
_INDEX_MASK = (1 << 64) - 1
_SECONDS_MASK = (1 << 36) - 1
MAX_INDEX = (1 << 63) - 1
STEP = 1 << _INDEX_SHIFT  # from one record of a frame to the next

_LOW_DIGITS = 30
_LOW = 10**_LOW_DIGITS
_HALF = 10 ** (_LOW_DIGITS // 2)


class Position(NamedTuple):
    """A place in a shard: the `ordinal`-th record (from 0) of frame `frame_no` (from 1).

    Positions of one stream order as tuples. (0, 0) is before everything.
    """

    frame_no: int
    ordinal: int

    def after(self) -> Position:
        return Position(self.frame_no, self.ordinal + 1)

    @property
    def record_index(self) -> int:
        """The sequence index: what orders records of a stream as one number."""
        # added, not or-ed: just after the last record of a full frame the ordinal carries over
        return (self.frame_no << ORDINAL_BITS) + self.ordinal


BEGINNING = Position(0, 0)


class SequenceNumber(NamedTuple):
    """The fields of one sequence number; see the module's table."""

    created_s: int
    position: Position
    arrival_s: int
    shard: int


def compose(created_s: int, index: int, arrival_s: int, shard: int) -> int:
    """The number for the record of a sequence index; seconds are Unix seconds."""
    return (
        (2 << 184)
        | (created_s << _CREATED_SHIFT)
        | ((shard & 0xF) << 144)
        | (index << _INDEX_SHIFT)
        | (arrival_s << 36)
        | (shard << 4)
        | 2
    )


def run(first: int, count: int) -> list[str]:
    """The decimal form of `count` consecutive numbers of one frame, from `first` on.

    One big-integer formatting per record is what this costs; the upper digits hardly ever
    change within a frame, so only the lower ones are formatted (measured: half the time).
    """
    last = first + (count - 1) * STEP
    high = first // _LOW
    if last // _LOW != high:
        return [str(n) for n in range(first, last + 1, STEP)]
    upper, lower = divmod(first - high * _LOW, _HALF)
    return count_up(str(high), upper, lower, count)


@compiled
def count_up(prefix: str, upper: int, lower: int, count: int, /) -> list[str]:
    """`count` consecutive numbers whose lower thirty digits do not overflow, after a prefix.

    `upper` and `lower` are the halves of those of the first one.
    """
    low = upper * _HALF + lower
    if low >= _LOW // 10:  # no leading zeros to restore
        return [prefix + str(n) for n in range(low, low + count * STEP, STEP)]
    return [prefix + str(n).zfill(_LOW_DIGITS) for n in range(low, low + count * STEP, STEP)]


def parse(text: str) -> SequenceNumber | None:
    """The fields of a decimal sequence number, or None if it is none of this layout."""
    if not text.isascii() or not text.isdigit() or len(text) > 57:
        return None
    number = int(text)
    if number >> 184 != 2 or number & 0xF != 2:
        return None
    shard = (number >> 4) & _SHARD_MASK
    if (number >> 144) & 0xF != shard & 0xF:
        return None
    index = (number >> _INDEX_SHIFT) & _INDEX_MASK
    return SequenceNumber(
        created_s=(number >> _CREATED_SHIFT) & _SECONDS_MASK,
        position=Position(index >> ORDINAL_BITS, index & _ORDINAL_MASK),
        arrival_s=(number >> 36) & _SECONDS_MASK,
        shard=shard,
    )


def starting(created_s: int, shard: int) -> int:
    """StartingSequenceNumber of a shard: below every record's number in it."""
    return compose(created_s, 0, created_s, shard)


def ending(created_s: int, shard: int, closed_s: int) -> int:
    """EndingSequenceNumber of a closed shard: above every record's number in it."""
    return compose(created_s, 0, closed_s, shard) | (MAX_INDEX << _INDEX_SHIFT)
