"""One shard of one trigger: the order in which things become true.

`ShardRunner.run` is where the promise of the room is kept; read its docstring first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.core.clock import Clock
from headrace.core.consumer import ReadBatch
from headrace.core.retry import Backoff
from headrace.core.troubles import Troubles
from headrace.triggers import dead_letters, retry
from headrace.triggers.batcher import Batcher, Source
from headrace.triggers.config import BatchConfig
from headrace.triggers.event import Batch, EventSource
from headrace.triggers.function import FunctionFile, FunctionUnavailable
from headrace.triggers.invoke import BatchRun, Function
from headrace.triggers.outbox import EmitRefused, Outbox, Outlet
from headrace.triggers.patience import Interrupted, Patience
from headrace.triggers.protocol import Emit
from headrace.triggers.stats import TriggerStats

# Keys of troubles; what a shard is waiting to do reads as "cannot …".
_EMIT = "put what was emitted"
_FAILING = "failing"
_FUNCTION = "function"  # of all shards: one file, one trouble
_MESSAGE_CHARS = 300

log = logging.getLogger("headrace.triggers")


class Lease(Source, Protocol):
    """The part of a ShardLease a runner works with."""

    @property
    def shard_id(self) -> str: ...
    @property
    def pending_checkpoint(self) -> str | None: ...
    @property
    def pending_state(self) -> bytes: ...
    async def prepare(self, sequence_number: str, state: bytes) -> None: ...
    async def save(self, sequence_number: str) -> None: ...
    async def finish(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerTools:
    """What the shards of one trigger share.

    `seam` is called with the name of each step as it is passed; tests stop the process there.
    """

    function: Function
    file: FunctionFile
    batch: BatchConfig
    letters: Path
    outlet: Outlet
    stats: TriggerStats
    troubles: Troubles
    clock: Clock
    backoff: Backoff
    seam: Callable[[str], None] = lambda _step: None


class ShardRunner:
    """Works through one shard for as long as its lease is held."""

    def __init__(self, lease: Lease, source: EventSource, stream: str, tools: TriggerTools) -> None:
        self._lease = lease
        self._source = source
        self._stream = stream
        self._tools = tools
        self._label = f"{tools.function.trigger} on {stream}/{lease.shard_id}"
        self._patience = Patience(
            label=self._label,
            scope=lease.shard_id,
            stopping=lease.stopping,
            troubles=tools.troubles,
            clock=tools.clock,
            backoff=tools.backoff,
        )

    async def run(self) -> None:
        """From the checkpoint on, batch after batch.

        The order of steps for each batch is the promise:

        1. *Settle.* A pending checkpoint of an earlier life means its batch was done but what
           it left behind may not be out: steps 5 and 6 for it. Nothing is invoked.
        2. *Read* a batch.
        3. *Invoke* the function until the batch is done or given up. Nothing has left yet; a
           crash up to here runs the batch again (at least once).
        4. *Prepare*: the outbox (emits, or the dead letter) is made durable beside the pending
           checkpoint, fenced by the lease. From here on the batch is never invoked again. A
           batch that leaves nothing behind skips to 6.
        5. *Send*: the dead letter by an atomic rename, the emits as an idempotent producer.
           Doing it twice has the effect of once.
        6. *Save* the checkpoint, fenced, which clears the outbox. Next batch.

        So each record is handed to the function at least once, in order, and what it emits is
        put exactly once. Whoever loses the lease is refused at 4 or 6; if that happens after 4,
        the new holder sends the same outbox. Returns at the end of the shard or when stopping.
        """
        tools, lease = self._tools, self._lease
        batcher = Batcher(
            lease,
            self._source,
            size=tools.batch.size,
            window_ms=tools.batch.window,
            clock=tools.clock,
            on_read=self._note_read,
        )
        try:
            if lease.pending_checkpoint is not None:
                outbox = Outbox.decode(lease.pending_state)
                await self._send(outbox, lease.pending_checkpoint)
                await lease.save(lease.pending_checkpoint)
            while (batch := await batcher.next()) is not None:
                tools.stats.has_in_hand(lease.shard_id, batch.last.approximate_arrival_ms)
                rest: Batch | None = batch
                while rest is not None:
                    rest = await self._deliver(rest)
                tools.stats.has_done(lease.shard_id)
            if not lease.stopping.is_set():
                await lease.finish()
        except Interrupted:
            log.info("%s: stopping; the next start goes on with its batch in hand", self._label)
        finally:
            tools.stats.has_left(lease.shard_id)
            tools.troubles.clear(_FUNCTION)  # a shard still held reports it again
            self._patience.clear_all()

    async def _deliver(self, batch: Batch) -> Batch | None:
        """Steps 3 to 6 for one batch; the rest of it, when it is done only in part."""
        tools = self._tools
        run = BatchRun(batch, tools.function, self._source, tools.clock, self._note_invoke)
        tools.seam("before_invoke")
        done_count, outbox = await self._invoke(run)
        tools.seam("after_invoke")
        last = batch.records[done_count - 1].record.sequence_number
        if outbox.dead_letter is not None and batch.is_oversized():
            # Too large to be kept beside a checkpoint, and it needs not: whoever reads this
            # record again comes to the same letter, under the same name.
            await self._send(outbox, last)
        elif outbox.emits or outbox.dead_letter is not None:
            await self._lease.prepare(last, outbox.encode())
            tools.seam("after_prepare")
            await self._send(outbox, last)
        tools.seam("before_save")
        await self._lease.save(last)
        tools.seam("after_save")
        tools.stats.records += done_count
        return batch.since(done_count) if done_count < len(batch) else None

    async def _invoke(self, run: BatchRun) -> tuple[int, Outbox]:
        """How many records are done with, and what they leave behind."""
        unavailable_count = 0
        while True:
            try:
                outcome = await run.attempt(self._examine)
            except FunctionUnavailable as error:
                unavailable_count += 1
                await self._await_function(error, unavailable_count)
                continue
            unavailable_count = 0
            if outcome.error is not None:
                self._tools.stats.errors += 1
            match outcome.decision:
                case retry.Done(count):
                    self._patience.clear(_FAILING)
                    return count, Outbox(emits=outcome.emits)
                case retry.GiveUp():
                    self._patience.clear(_FAILING)
                    return len(run.batch), Outbox(dead_letter=run.dead_letter())
                case retry.Again():
                    self._patience.report(
                        _FAILING,
                        f"{self._label}: invocation {run.invokes} of the batch at "
                        f"{run.batch.first.sequence_number} failed and will be repeated: "
                        f"{outcome.error!s:.{_MESSAGE_CHARS}}",
                    )
                    await self._patience.pause(run.invokes)

    async def _await_function(self, error: FunctionUnavailable, attempt: int) -> None:
        """Pause until the function's file has another content, or for a while."""
        tools = self._tools
        tools.troubles.report(_FUNCTION, f"{tools.function.trigger}: paused: {error}")
        if error.stack and attempt == 1:
            log.info("%s: %s", tools.function.trigger, error.stack.rstrip())
        seen = self._code_version()
        await self._patience.pause(attempt, unless=lambda: self._code_version() != seen)

    def _code_version(self) -> str | None:
        try:
            return self._tools.file.version()
        except FunctionUnavailable:
            return None

    async def _send(self, outbox: Outbox, sequence_number: str) -> None:
        """Step 5. Returns when all of the outbox is out."""
        tools = self._tools
        if (letter := outbox.dead_letter) is not None:
            place = await self._patience.until_it_works(
                "write a dead letter",
                lambda: asyncio.to_thread(dead_letters.write, tools.letters, letter),
            )
            tools.stats.dead_letters += 1
            log.warning("%s: gave a batch up; it is kept in %s", self._label, place)
        if outbox.emits:
            await self._patience.until_it_works(
                _EMIT, lambda: self._put(outbox.emits, sequence_number)
            )
            tools.stats.emitted += len(outbox.emits)
        tools.seam("after_send")

    async def _put(self, emits: Sequence[Emit], sequence_number: str) -> None:
        await self._patience.unless_hopeless(
            self._tools.outlet.put(
                emits,
                source=(self._stream, self._lease.shard_id),
                sequence_number=sequence_number,
                on_retry=lambda error: self._patience.report_failure(_EMIT, error),
            )
        )

    async def _examine(self, emits: Sequence[Emit]) -> None:
        await self._patience.until_it_works(
            _EMIT, lambda: self._tools.outlet.examine(emits), raises=EmitRefused
        )

    def _note_read(self, found: ReadBatch) -> None:
        self._tools.stats.has_read(self._lease.shard_id, found.millis_behind_latest)
        if found.lost_after is not None:
            first = found.records[0].sequence_number if found.records else "the oldest"
            self._tools.troubles.report(
                f"{self._lease.shard_id} lost",  # stands until somebody has seen it
                f"{self._label}: the records after {found.lost_after} and before {first} "
                "expired before they were read; raise the stream's retention",
            )

    def _note_invoke(self) -> None:
        self._tools.stats.invocations += 1
        self._tools.troubles.clear(_FUNCTION)
