"""A shard without a server: what delivery needs of a lease, in memory and a file."""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from headrace.core.errors import RecordsExpired
from headrace.core.model.leases import SHARD_END
from headrace.core.model.records import Record
from headrace.core.model.sequence import Position, compose
from headrace.core.shard_reader import ReadBatch


def make_records(
    data: Sequence[bytes], *, shard: int = 0, first_index: int = 1, arrival_ms: int = 0
) -> list[Record]:
    """Records as a shard gives them, in frames of 100, a millisecond apart."""
    start_ms = arrival_ms or 1_763_800_000_000
    made = []
    for i, item in enumerate(data, first_index):
        at_ms = start_ms + i
        place = Position(1 + i // 100, i % 100)
        number = compose(1_763_800_000, place.record_index, at_ms // 1000, shard)
        made.append(Record(item, f"key-{i % 7}", str(number), at_ms))
    return made


class ScriptedShard:
    """A shard lease without a server: what delivery needs of `ShardLease`.

    Records are given at the start or through `put`. The checkpoint is kept in a file when one is
    named, so that a process can be killed and started again. `expire` makes the oldest go.
    """

    def __init__(
        self,
        records: Sequence[Record] = (),
        *,
        shard_id: str = "shardId-000000000000",
        checkpoint: str | None = None,
        checkpoint_file: Path | None = None,
        is_closed: bool = True,
        batch_records: int = 1000,
    ) -> None:
        self.shard_id = shard_id
        self.records = list(records)
        self.is_closed = is_closed
        self.is_finished = False
        self.stopping = asyncio.Event()
        self.saved: list[str] = []
        self.read_count = 0
        self._batch_records = batch_records
        self._file = checkpoint_file
        self._arrived = asyncio.Event()
        self.checkpoint = checkpoint
        if checkpoint_file is not None and checkpoint_file.exists():
            self.checkpoint = json.loads(checkpoint_file.read_text())
        self._position = self.checkpoint

    def put(self, records: Sequence[Record]) -> None:
        self.records.extend(records)
        self._arrived.set()

    def close(self) -> None:
        """No more records: the shard was split or merged."""
        self.is_closed = True
        self._arrived.set()

    def expire(self, count: int) -> None:
        """The oldest records go out of retention."""
        del self.records[:count]

    def restart(self) -> ScriptedShard:
        """The same shard for the next worker: reads from the checkpoint."""
        return ScriptedShard(
            self.records,
            checkpoint=self.checkpoint,
            shard_id=self.shard_id,
            checkpoint_file=self._file,
            is_closed=self.is_closed,
            batch_records=self._batch_records,
        )

    async def read(
        self, *, max_records: int = 10_000, wait_ms: int | None = None
    ) -> ReadBatch | None:
        self.read_count += 1
        while not self.stopping.is_set():
            following = self._after(self._position)[: min(max_records, self._batch_records)]
            if following:
                lost = self._lost_before(following[0])
                self._position = following[-1].sequence_number
                return ReadBatch(following, 0, lost)
            if self.is_closed:
                return None
            self._arrived.clear()
            stop = asyncio.ensure_future(self.stopping.wait())
            new = asyncio.ensure_future(self._arrived.wait())
            timeout_s = None if wait_ms is None else wait_ms / 1000
            await asyncio.wait({stop, new}, timeout=timeout_s, return_when="FIRST_COMPLETED")
            stop.cancel()
            new.cancel()
            if not self.stopping.is_set() and not self._arrived.is_set():
                return ReadBatch([], 0)
        return None

    async def reread(self, first_exclusive: str | None, last_inclusive: str) -> list[Record]:
        last = int(last_inclusive)
        found = [r for r in self._after(first_exclusive) if int(r.sequence_number) <= last]
        is_whole = bool(found) and found[-1].sequence_number == last_inclusive
        if not is_whole or (first_exclusive is not None and self._is_gone(first_exclusive)):
            raise RecordsExpired(
                "expired", first_exclusive=first_exclusive, last_inclusive=last_inclusive,
                records=found,
            )  # fmt: skip
        return found

    async def save(self, sequence_number: str) -> None:
        assert self.checkpoint is None or int(sequence_number) > int(self.checkpoint)
        self.saved.append(sequence_number)
        self._keep(sequence_number)

    async def finish(self) -> None:
        self.is_finished = True
        self._keep(SHARD_END)

    def _keep(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        if self._file is not None:
            # A name of its own: workers that race for a shard keep their checkpoints at once.
            temporary = self._file.with_suffix(f".{uuid.uuid4().hex}.new")
            temporary.write_text(json.dumps(checkpoint))
            os.replace(temporary, self._file)

    def _after(self, position: str | None) -> list[Record]:
        if position is None:
            return self.records
        start = bisect.bisect_right(
            self.records, int(position), key=lambda r: int(r.sequence_number)
        )
        return self.records[start:]

    def _is_gone(self, position: str) -> bool:
        """Whether the record at a position, and so perhaps some after it, has expired."""
        return not self.records or int(self.records[0].sequence_number) > int(position)

    def _lost_before(self, record: Record) -> str | None:
        position = self._position
        if position is None or not self._is_gone(position):
            return None
        return position if record is self.records[0] else None
