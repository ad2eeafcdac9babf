"""Which shard each record of a put goes to: by its partition key, or (strategy AUTO) in turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from headrace.core.model.hashing import hash_key
from headrace.core.service.catalog import OpenStream


class Spreading:
    """The turns of streams whose records are spread evenly, whatever their partition keys."""

    def __init__(self) -> None:
        self._turns = itertools.count()

    def routes(self, opened: OpenStream, count: int) -> list[int]:
        """Index into `opened.routing.shards` for each of `count` records, one after the other."""
        shards = len(opened.routing.shards)
        turns = itertools.islice(self._turns, count)
        return [turn % shards for turn in turns]


def stamped_hash_keys(producer_id: str, sequences: Sequence[int], keys: Sequence[str]) -> list[str]:
    """Explicit hash keys for an idempotent put on such a stream.

    A record sent again must meet what remembers it, so its place is a function of the record: of
    its partition key where it has one, else of who sends it as which one.
    """
    return [
        str(hash_key(key or f"{producer_id}/{sequence}"))
        for key, sequence in zip(keys, sequences, strict=True)
    ]
