"""ShardLease: one shard as the work on it sees it. Reading, checkpoints, and when to stop.

Promises. `read` returns every record after the checkpoint once, in order, or says what expired.
`prepare`, `save` and `finish` are durable when they return, and refused with LeaseLost from the
moment somebody else has the lease: the lease's counter goes with each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from headrace.core.client import StreamClient
from headrace.core.clock import Clock
from headrace.core.errors import (
    HeadraceError,
    InvalidArgument,
    LeaseLost,
    RecordsExpired,
    ResourceNotFound,
)
from headrace.core.leases import LeaseStore
from headrace.core.limits import MAX_RECORDS_PER_GET
from headrace.core.model.leases import SHARD_END, Lease
from headrace.core.model.records import Record
from headrace.core.racing import pause, unless
from headrace.core.retry import Backoff, is_passing
from headrace.core.shard_reader import ReadBatch, ShardReader, Start
from headrace.core.troubles import Troubles

__all__ = ["ReadBatch", "ShardLease", "Surroundings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all leases of one consumer share. `idle_ms` is how long to wait before asking again."""

    client: StreamClient
    leases: LeaseStore
    stream: str
    start: Start
    idle_ms: Callable[[], float]
    clock: Clock
    backoff: Backoff
    troubles: Troubles


class ShardLease:
    """The right to work on a shard. Made by the Consumer; used by one piece of work at a time.

    `stopping`: finish what is in hand, then return; `read` returns None from then on.
    `lost`: somebody else has the shard, or may have; the work is cancelled as well.
    `checkpoint`: the last sequence number done. `pending_checkpoint` and `pending_state`: what
    was prepared and not saved, here or by a worker before.
    """

    def __init__(self, around: Surroundings, lease: Lease) -> None:
        self.shard_id = lease.shard_id
        self.stream = around.stream
        self.counter = lease.counter
        self.checkpoint = lease.checkpoint
        self.pending_checkpoint = lease.pending_checkpoint
        self.pending_state = lease.pending_state
        self.stopping = asyncio.Event()
        self.lost = asyncio.Event()
        self.is_finished = lease.is_finished
        self.millis_behind_latest: int | None = None
        self._around = around
        self._start = Start(
            kind=around.start.kind,
            at_ms=around.start.at_ms,
            since_ms=lease.since_ms,
            shard_from=lease.starting_sequence_number,
        )
        self._reader = self._reader_from(self.checkpoint)

    async def read(
        self, *, max_records: int = MAX_RECORDS_PER_GET, wait_ms: int | None = None
    ) -> ReadBatch | None:
        """The next records after the last read; the first read begins after the checkpoint.

        Waits until there are some, or answers with none once `wait_ms` have passed. A batch may
        hold no record and still say what was lost. Outages are waited out. Cancelling it loses
        nothing: the next read returns what this one would have.

        Args:
            max_records: 1..10,000. A batch also ends at 10 MiB.

        Returns:
            None when stopping, or when the shard has been read to its end: then `finish()`.
        """
        clock = self._around.clock
        deadline_ms = None if wait_ms is None else clock.monotonic_ms() + wait_ms
        while not self._reader.is_at_end:
            reader = self._reader
            fetched = await unless(self.stopping, reader.fetch(max_records))
            if fetched is None:
                return None
            if reader is not self._reader:
                continue  # a save has moved on meanwhile, beyond what was being read
            batch = reader.accept(fetched)
            self.millis_behind_latest = batch.millis_behind_latest
            if batch.records or batch.lost_after is not None:
                return batch
            if self._reader.is_at_end:
                break
            left_ms = None if deadline_ms is None else deadline_ms - clock.monotonic_ms()
            if left_ms is not None and left_ms <= 0:
                return batch
            idle_ms = self._around.idle_ms()
            await pause(clock, idle_ms if left_ms is None else min(idle_ms, left_ms), self.stopping)
        return None

    async def reread(self, first_exclusive: str | None, last_inclusive: str) -> list[Record]:
        """Exactly the records after `first_exclusive` up to `last_inclusive`, once more.

        None as the first begins where a shard without a checkpoint begins. Does not move `read`.
        Raises RecordsExpired, with what is left, when (part of) the range is no longer there.
        """
        reader = self._reader_from(first_exclusive)
        found: list[Record] = []
        last = int(last_inclusive)
        is_cut = False
        while not reader.is_at_end:
            batch = reader.accept(await reader.fetch(MAX_RECORDS_PER_GET))
            is_cut = is_cut or batch.lost_after is not None
            for record in batch.records:
                if int(record.sequence_number) > last:
                    break
                found.append(record)
            if found and found[-1].sequence_number == last_inclusive and not is_cut:
                return found
            if batch.records and int(batch.records[-1].sequence_number) >= last:
                break
            if not batch.records and batch.millis_behind_latest == 0:
                break
        raise RecordsExpired(
            f"records {first_exclusive or 'from the beginning'} to {last_inclusive} of "
            f"{self.shard_id} (stream {self.stream}) are not all there any more",
            first_exclusive=first_exclusive,
            last_inclusive=last_inclusive,
            records=found,
            hint="they went out of retention; a longer retention leaves more time",
        )

    async def prepare(self, sequence_number: str, state: bytes) -> None:
        """Keep `state` (up to 8 MiB) durably, until `sequence_number` or another one is saved.

        If this worker dies before, the next finds it as `pending_state`.
        """
        await self._insist(
            lambda: self._around.leases.prepare(self.shard_id, self.counter, sequence_number, state)
        )
        self.pending_checkpoint, self.pending_state = sequence_number, state

    async def save(self, sequence_number: str) -> None:
        """Everything up to `sequence_number` is done; what was prepared is cleared.

        Saving beyond what was read here, as when settling what a worker before had prepared,
        moves `read` on: it never returns what is behind the checkpoint.
        Raises InvalidArgument if the checkpoint would go back.
        """
        await self._save(sequence_number)
        position = self._reader.position
        if position is None or int(position) < int(sequence_number):
            self._reader = self._reader_from(sequence_number)

    async def finish(self) -> None:
        """Everything of the shard is done; its children may begin.

        Raises InvalidArgument unless `read` has come to the end of the shard: a `read` that
        returned None because of `stopping` has not.
        """
        if not self._reader.is_at_end:
            raise InvalidArgument(
                f"{self.shard_id} is not read to its end, so it cannot be finished",
                hint="when read() returns None, look at stopping before calling finish()",
            )
        await self._save(SHARD_END)
        self.is_finished = True

    async def _save(self, checkpoint: str) -> None:
        await self._insist(
            lambda: self._around.leases.save(self.shard_id, self.counter, checkpoint)
        )
        self.checkpoint = checkpoint
        self.pending_checkpoint, self.pending_state = None, b""

    async def _insist(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Write until it is done or refused. An outage ends this by losing the lease."""
        attempt = 0
        while True:
            if self.lost.is_set():
                raise LeaseLost(f"the lease of {self.shard_id} was lost")
            try:
                await write()
            except LeaseLost:
                self.lost.set()
                raise
            except ResourceNotFound as error:  # gone, and its stream with it
                self.lost.set()
                raise LeaseLost(f"the lease of {self.shard_id} is gone: {error}") from error
            except HeadraceError as error:
                if not is_passing(error):
                    raise
                self._around.troubles.report(
                    f"save {self.shard_id}",
                    f"checkpoint of {self.stream}/{self.shard_id} not saved yet: {error}",
                )
                await pause(self._around.clock, self._around.backoff.next_ms(attempt), self.lost)
                attempt += 1
            else:
                self._around.troubles.clear(f"save {self.shard_id}")
                return

    def _reader_from(self, position: str | None) -> ShardReader:
        return ShardReader(
            self._around.client,
            self.stream,
            self.shard_id,
            position=position,
            start=self._start,
            on_failure=self._on_failure,
            on_success=lambda: self._around.troubles.clear(f"read {self.shard_id}"),
            backoff=self._around.backoff,
        )

    async def _on_failure(self, error: HeadraceError, pause_ms: float) -> None:
        self._around.troubles.report(
            f"read {self.shard_id}", f"cannot read {self.stream}/{self.shard_id} now: {error}"
        )
        if self.stopping.is_set():
            raise error
        await pause(self._around.clock, pause_ms, self.stopping)
