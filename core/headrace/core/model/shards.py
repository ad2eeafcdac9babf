"""Shard ids and what a shard is, as both sides of the wire see it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.core.model.hashing import HashKeyRange

_SHARD_ID = re.compile(r"^(?:.*-)?(\d{1,12})$")


def shard_id(number: int) -> str:
    return f"shardId-{number:012d}"


def shard_number(text: str) -> int | None:
    """The number in a shard id. `shardId-0` and `anything-0` mean 0, as on AWS; None if none."""
    found = _SHARD_ID.match(text)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One entry of ListShards. A shard with an ending sequence number is closed."""

    shard_id: str
    hash_key_range: HashKeyRange
    starting_sequence_number: str
    ending_sequence_number: str | None = None
    parent_shard_id: str | None = None
    adjacent_parent_shard_id: str | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        return tuple(p for p in (self.parent_shard_id, self.adjacent_parent_shard_id) if p)

    @property
    def is_open(self) -> bool:
        return self.ending_sequence_number is None
