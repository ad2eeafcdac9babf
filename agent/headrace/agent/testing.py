"""A stream in memory, for tests of whatever puts records as the agent does.

`RecordingSink` stands where a producer and the stream behind it would be: it takes batches,
remembers the last sequence per producer and shard as the stream's log does, and can be away,
lose answers, or die in the middle of a batch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.core.errors import HeadraceError, ProducerFenced
from headrace.core.model.hashing import hash_key, uniform_ranges
from headrace.core.model.records import PutEntry, PutResult


class Crash(BaseException):
    """The process died here: what the sink stored is stored, the caller never heard of it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One record as stored."""

    data: bytes
    partition_key: str
    shard: int
    producer_id: str | None
    epoch: int
    sequence: int


@dataclass
class RecordingSink:
    """One stream. `records` is what it holds, in the order of arrival over all shards."""

    shard_count: int = 4
    records: list[Stored] = field(default_factory=list)
    #: Records put again and recognised.
    repeated_count: int = 0
    put_count: int = 0
    #: The share of records refused at first, and of answers lost; each is then put again.
    refused_share: float = 0.0
    lost_answer_share: float = 0.0
    #: Raised by the next put instead of storing anything, until set to None.
    error: HeadraceError | None = None
    #: Take this many more records, then raise Crash before the answer; None is never.
    crash_after_count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._last: dict[tuple[str, int], tuple[int, int]] = {}
        self._epochs: dict[str, int] = {}
        self._ranges = uniform_ranges(self.shard_count)
        self._random = random.Random(self.seed)
        self._is_there = asyncio.Event()
        self._is_there.set()

    def go_away(self) -> None:
        """From now on puts wait, as a producer does that retries through an outage."""
        self._is_there.clear()

    def come_back(self) -> None:
        """The outage is over."""
        self._is_there.set()

    async def put_batch(
        self,
        entries: Sequence[PutEntry],
        *,
        producer_id: str | None = None,
        epoch: int = 0,
        sequences: Sequence[int] | None = None,
    ) -> list[PutResult]:
        """Store a batch, once, whatever goes wrong on the way."""
        self.put_count += 1
        await asyncio.sleep(0)
        await self._is_there.wait()
        if self.error is not None:
            raise self.error
        results: dict[int, PutResult] = {}
        left = list(range(len(entries)))
        while left:
            refused: list[int] = []
            for index in left:
                # As the log does: behind a refused record nothing of the producer is taken.
                if refused or self._random.random() < self.refused_share:
                    refused.append(index)
                    continue
                sequence = sequences[index] if sequences is not None else 0
                shard = self._store(entries[index], producer_id, epoch, sequence)
                results[index] = PutResult(str(len(self.records)), f"shardId-{shard:012d}")
            if self.crash_after_count == 0:
                raise Crash
            if self._random.random() >= self.lost_answer_share:
                left = refused
        return [results[index] for index in range(len(entries))]

    def _store(self, entry: PutEntry, producer_id: str | None, epoch: int, sequence: int) -> int:
        if self.crash_after_count is not None:
            if self.crash_after_count == 0:
                raise Crash
            self.crash_after_count -= 1
        key = (
            int(entry.explicit_hash_key)
            if entry.explicit_hash_key is not None
            else hash_key(entry.partition_key)
        )
        shard = next(n for n, hash_range in enumerate(self._ranges) if key in hash_range)
        if producer_id is not None:
            if epoch < self._epochs.get(producer_id, 0):
                raise ProducerFenced(f"a newer epoch of producer {producer_id} has written")
            self._epochs[producer_id] = epoch
            if (epoch, sequence) <= self._last.get((producer_id, shard), (-1, -1)):
                self.repeated_count += 1
                return shard
            self._last[producer_id, shard] = (epoch, sequence)
        self.records.append(
            Stored(entry.data, entry.partition_key, shard, producer_id, epoch, sequence)
        )
        return shard

    @property
    def lines(self) -> list[bytes]:
        """The data of every record, in order of arrival."""
        return [record.data for record in self.records]
