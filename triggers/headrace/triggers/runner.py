"""One shard of one trigger: the order in which things become true.

`ShardRunner.run` is where the promise of the room is kept; read its docstring first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from headrace.core.clock import Clock
from headrace.core.consumer import ReadBatch
from headrace.core.errors import HeadraceError
from headrace.core.racing import pause
from headrace.core.retry import Backoff
from headrace.core.troubles import Troubles
from headrace.triggers import dead_letters, retry
from headrace.triggers.batcher import Batcher, Source
from headrace.triggers.config import BatchConfig
from headrace.triggers.event import Batch, EventSource
from headrace.triggers.function import FunctionFile, FunctionUnavailable
from headrace.triggers.invoke import BatchRun, Function
from headrace.triggers.outbox import EmitRefused, Outbox, Outlet
from headrace.triggers.protocol import Emit
from headrace.triggers.stats import TriggerStats

_LOOK_AGAIN_MS = 1_000  # how soon a changed function file ends a pause
_MESSAGE_CHARS = 300

log = logging.getLogger("headrace.triggers")
T = TypeVar("T")


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


class Interrupted(Exception):
    """The lease is to be given back; what is in hand is left as it is, none of it lost."""


class ShardRunner:
    """Works through one shard for as long as its lease is held."""

    def __init__(self, lease: Lease, source: EventSource, stream: str, tools: TriggerTools) -> None:
        self._lease = lease
        self._source = source
        self._stream = stream
        self._tools = tools
        self._in_trouble = asyncio.Event()

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
            log.info("%s: stopping; its batch in hand will be run again", self._label)
        finally:
            tools.stats.has_left(lease.shard_id)

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
                    self._tools.troubles.clear(self._key("failing"))
                    return count, Outbox(emits=outcome.emits)
                case retry.GiveUp():
                    self._tools.troubles.clear(self._key("failing"))
                    return len(run.batch), Outbox(dead_letter=run.dead_letter())
                case retry.Again():
                    text = (
                        f"{self._label}: invocation {run.invokes} of the batch at "
                        f"{run.batch.first.sequence_number} failed and will be repeated: "
                        f"{outcome.error!s:.{_MESSAGE_CHARS}}"
                    )
                    await self._pause("failing", text, run.invokes)

    async def _send(self, outbox: Outbox, sequence_number: str) -> None:
        """Step 5. Returns when all of the outbox is out."""
        tools = self._tools
        if (letter := outbox.dead_letter) is not None:
            place = await self._until_it_works(
                "dead letter",
                lambda: asyncio.to_thread(dead_letters.write, tools.letters, letter),
            )
            tools.stats.dead_letters += 1
            log.warning("%s: gave a batch up; it is kept in %s", self._label, place)
        if outbox.emits:
            await self._until_it_works("emit", lambda: self._put(outbox.emits, sequence_number))
            tools.stats.emitted += len(outbox.emits)
        tools.seam("after_send")

    async def _put(self, emits: Sequence[Emit], sequence_number: str) -> None:
        await self._unless_stopping_in_trouble(
            self._tools.outlet.put(
                emits,
                source=(self._stream, self._lease.shard_id),
                sequence_number=sequence_number,
                on_retry=lambda error: self._report("emit", error),
            )
        )

    async def _examine(self, emits: Sequence[Emit]) -> None:
        await self._until_it_works("emit", lambda: self._tools.outlet.examine(emits))

    # Waiting, and saying why

    async def _until_it_works(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat an action whose repetition is harmless. The shard waits meanwhile: a batch is
        neither dropped nor overtaken because something around it is out of order."""
        attempt = 0
        while True:
            try:
                result = await action()
            except EmitRefused:
                raise
            except (HeadraceError, OSError) as error:
                attempt += 1
                self._report(what, error)
                await self._sleep(self._tools.backoff.next_ms(attempt - 1))
            else:
                self._tools.troubles.clear(self._key(what))
                self._in_trouble.clear()
                return result

    async def _await_function(self, error: FunctionUnavailable, attempt: int) -> None:
        """Pause until the function's file has another content, or for a while."""
        tools = self._tools
        tools.troubles.report("function", f"{tools.function.trigger}: paused: {error}")
        if error.stack:
            log.info("%s: %s", tools.function.trigger, error.stack.rstrip())
        seen = self._code_version()
        left_ms = tools.backoff.next_ms(attempt - 1)
        while left_ms > 0 and self._code_version() == seen:
            await self._sleep(min(left_ms, _LOOK_AGAIN_MS))
            left_ms -= _LOOK_AGAIN_MS

    def _code_version(self) -> str | None:
        try:
            return self._tools.file.version()
        except FunctionUnavailable:
            return None

    async def _pause(self, what: str, text: str, attempt: int) -> None:
        self._tools.troubles.report(self._key(what), text)
        await self._sleep(self._tools.backoff.next_ms(attempt - 1))

    async def _sleep(self, duration_ms: float) -> None:
        """Raises Interrupted when told to stop before it is over."""
        await pause(self._tools.clock, duration_ms, self._lease.stopping)
        if self._lease.stopping.is_set():
            raise Interrupted

    async def _unless_stopping_in_trouble(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for work that repeats itself inside; give it up when stopping finds it failing.

        It is safe at any moment: the outbox is durable and the next life sends it.
        """

        async def is_hopeless() -> None:
            await self._lease.stopping.wait()
            await self._in_trouble.wait()

        working, hopeless = asyncio.create_task(work), asyncio.create_task(is_hopeless())
        try:
            await asyncio.wait({working, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Interrupted
        finally:
            for task in (working, hopeless):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, HeadraceError):
                    await task

    def _report(self, what: str, error: Exception) -> None:
        self._in_trouble.set()
        self._tools.troubles.report(
            self._key(what), f"{self._label}: waiting, cannot {_DOING[what]}: {error}"
        )

    def _note_read(self, found: ReadBatch) -> None:
        self._tools.stats.has_read(self._lease.shard_id, found.millis_behind_latest)
        if found.lost_after is not None:
            first = found.records[0].sequence_number if found.records else "the oldest"
            self._tools.troubles.report(
                self._key("lost"),
                f"{self._label}: the records after {found.lost_after} and before {first} "
                "expired before they were read; raise the stream's retention",
            )

    def _note_invoke(self) -> None:
        self._tools.stats.invocations += 1
        self._tools.troubles.clear("function")

    def _key(self, what: str) -> str:
        return f"{self._lease.shard_id} {what}"

    @property
    def _label(self) -> str:
        return f"{self._tools.function.trigger} on {self._stream}/{self._lease.shard_id}"


_DOING = {
    "dead letter": "write a dead letter",
    "emit": "put what was emitted",
}
