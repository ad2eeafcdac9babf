"""Partition key -> hash key -> shard. Hash key ranges have inclusive ends, 0..2^128-1."""

from __future__ import annotations

from dataclasses import dataclass

try:  # CPython's own MD5: half the cost per call of OpenSSL's, and allowed where FIPS is on
    from _md5 import md5 as md5  # type: ignore[import-not-found]
except ImportError:  # pragma: no cover - a CPython built without it
    from hashlib import md5 as md5

MAX_HASH_KEY = 2**128 - 1


def hash_digest(partition_key: str) -> bytes:
    """The hash key of a partition key as 16 bytes, which order as the number does."""
    digest: bytes = md5(partition_key.encode()).digest()
    return digest


def hash_key(partition_key: str) -> int:
    """The 128-bit hash key of a partition key: MD5 of its UTF-8 bytes, big endian."""
    return int.from_bytes(hash_digest(partition_key), "big")


@dataclass(frozen=True, slots=True, order=True)
class HashKeyRange:
    """Hash keys `start`..`end`, both ends included."""

    start: int
    end: int

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self.start <= key <= self.end

    def is_adjacent_to(self, other: HashKeyRange) -> bool:
        """True when `other` begins right after this one ends."""
        return self.end + 1 == other.start


def uniform_ranges(count: int) -> list[HashKeyRange]:
    """`count` >= 1 ranges of equal size that tile all hash keys, as AWS lays out a new stream.

    The last range takes what the division leaves over.
    """
    step = 2**128 // count
    return [
        HashKeyRange(i * step, MAX_HASH_KEY if i == count - 1 else (i + 1) * step - 1)
        for i in range(count)
    ]
