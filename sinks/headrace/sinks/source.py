"""Where delivery gets a shard's records from: the part of a lease that it needs."""

from __future__ import annotations

import asyncio
from typing import Protocol

from headrace.core.model.records import Record


class ReadBatch(Protocol):
    """What a read gives. `lost_after`: records after that number expired before this read."""

    @property
    def records(self) -> list[Record]: ...
    @property
    def millis_behind_latest(self) -> int: ...
    @property
    def lost_after(self) -> str | None: ...


class ShardSource(Protocol):
    """What delivery needs of a shard: `headrace.core.consumer.ShardLease` is one."""

    shard_id: str
    checkpoint: str | None
    stopping: asyncio.Event

    async def read(self, *, max_records: int = ..., wait_ms: int | None = ...) -> ReadBatch | None:
        """Records after the last read; an empty batch after `wait_ms`; None at the end."""

    async def reread(self, first_exclusive: str | None, last_inclusive: str) -> list[Record]:
        """That range again. Raises RecordsExpired."""

    async def save(self, sequence_number: str) -> None:
        """Checkpoint. Raises LeaseLost when somebody else has the shard."""

    async def finish(self) -> None:
        """The shard is closed and everything of it is done."""
