"""One shard's way into files. The numbered steps of `_deliver` are the guarantee."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import uuid
from collections.abc import Sequence
from functools import partial

from headrace.core.errors import DeliveryError, EndpointUnreachable
from headrace.core.model.records import Record
from headrace.sinks.buffer import Buffer
from headrace.sinks.carrying import Carrier
from headrace.sinks.context import SinkContext
from headrace.sinks.crash_points import crash_point
from headrace.sinks.plan import Done, LostRange, Plan
from headrace.sinks.plan_log import PlanLog
from headrace.sinks.planning import Prepared, Task, prepare
from headrace.sinks.rows import observe
from headrace.sinks.source import ReadBatch, ShardSource

#: Longest wait for records at a time, so that a failed flush or a full budget is noticed soon.
READ_WAIT_MS = 1_000

#: So many records show most columns of a new stream before the first batch is made.
SAMPLE_RECORDS = 1_000

#: So often a batch is cut short when it shows a new column; then it is read to its end.
EARLY_STOPS = 3


class ShardDelivery:
    """Delivers one shard until it ends, is taken away or the sink stops.

    While one file is made and put, the next buffer fills; when that is full, too, reading
    waits. The checkpoint is a cache of how far the plan log is; the log wins.
    """

    def __init__(self, sink: SinkContext, lease: ShardSource) -> None:
        self._sink = sink
        self._lease = lease
        self._shard = lease.shard_id
        self._log = PlanLog(sink.store, sink.name, self._shard)
        self._carrier = Carrier(sink, self._log, self._shard, lease.reread)
        self._buffer = Buffer()
        self._flush: asyncio.Task[None] | None = None
        self._number = 0
        self._position: str | None = None
        self._void: Plan | None = None
        self._lost_after: str | None = None

    async def run(self) -> None:
        """Deliver. Raises what ends the work on the shard; what is buffered is read again."""
        try:
            await self._recover()
            self._sink.troubles.clear(self._trouble("stopped"))
            await self._read_on()
        except DeliveryError as error:
            self._sink.troubles.report(
                self._trouble("stopped"), f"sink {self._sink.name}, {self._shard} stopped: {error}"
            )
            raise
        finally:
            await self._drop()

    async def _recover(self) -> None:
        """Find the end of the log, and carry out its last plan if nobody has."""
        self._number = await self._sink.until_done(self._shard, self._log.last_plan)
        for number in (self._number, self._number + 1):
            await self._sink.until_done(self._shard, partial(self._log.sweep, number))
        plan = await self._sink.until_done(self._shard, partial(self._log.plan, self._number))
        if plan is not None:
            await self._advance(plan, await self._outcome(plan))
        checkpoint = self._lease.checkpoint
        if checkpoint is not None and _order(checkpoint) > _order(self._position):
            raise DeliveryError(
                f"{self._sink.store.destination}: the stream's checkpoint {checkpoint} is ahead "
                f"of the plan log, which ends at {self._position or 'its beginning'}",
                destination=self._sink.store.destination,
                retryable=False,
                hint="files or the folder _sink/ were removed or the wrong disk is mounted; put "
                "them back, or give the sink a new name: to deliver everything still in the "
                "stream again",
            )

    async def _outcome(self, plan: Plan) -> Done:
        """How a plan ended; if it has not, it is carried out first."""
        done = await self._sink.until_done(self._shard, partial(self._log.done, plan.number))
        return done if done is not None else await self._carrier.redo(plan)

    async def _read_on(self) -> None:
        buffer_config = self._sink.config.buffer
        while True:
            if self._flush is not None and self._flush.done():
                await self._flushed()
            now_ms = self._sink.clock.monotonic_ms()
            if self._buffer.is_due(
                now_ms, size_bytes=buffer_config.size, interval_ms=buffer_config.interval
            ):
                await self._start_flush()
                continue
            if self._sink.budget.is_full:
                if self._sink.budget.is_largest(self._shard):
                    await self._start_flush()
                else:
                    await self._sink.budget.changed()
                continue
            wait_ms = min(READ_WAIT_MS, self._buffer.due_in_ms(now_ms, buffer_config.interval))
            batch = await self._lease.read(wait_ms=wait_ms)
            if batch is None:
                break
            self._take_in(batch)
        await self._start_flush()
        await self._flushed()
        if not self._lease.stopping.is_set():
            await self._lease.finish()

    def _take_in(self, batch: ReadBatch) -> None:
        now_ms = self._sink.clock.monotonic_ms()
        self._sink.figures.note_read(self._shard, batch.millis_behind_latest, now_ms)
        self._lost_after = batch.lost_after or self._lost_after
        if batch.records and self._lost_after is not None:
            before = batch.records[0].sequence_number
            self._buffer.lost.append(LostRange(after=self._lost_after, before=before))
            self._lost_after = None
        size = self._buffer.add(batch.records, now_ms)
        self._sink.budget.add(self._shard, size)

    async def _start_flush(self) -> None:
        """Hand the buffer over, after the one before is through."""
        await self._flushed()
        buffer, self._buffer = self._buffer, Buffer()
        if buffer.records:
            size = self._sink.budget.take(self._shard)
            self._flush = asyncio.create_task(self._flush_one(buffer, size))

    async def _flush_one(self, buffer: Buffer, size: int) -> None:
        try:
            await self._deliver(buffer.records, buffer.lost)
        finally:
            self._sink.budget.release(size)

    async def _flushed(self) -> None:
        flush, self._flush = self._flush, None
        if flush is not None:
            await flush

    async def _drop(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._flush
        self._sink.budget.drop(self._shard)
        self._sink.troubles.clear(self._trouble("store"))
        self._sink.figures.reads.pop(self._shard, None)

    async def _deliver(self, records: list[Record], lost: list[LostRange]) -> None:
        """Every record after the log's end into exactly one visible file.

        1. Make the files' bytes in memory. Nothing is visible, nothing is promised.
        2. Put the plan under the next number. From here on these records are these files,
           whoever carries it out. If somebody else has the number, their plan is carried out
           instead, and what of our records is left after it comes back to step 1.
        3. Put each file under its planned name; what is there already must be the same.
        4. Put the done entry: readers of the log see all of the plan's files or none.
        5. Save the stream's checkpoint. A cache: at the next start the log is asked.
        """
        while records := self._after_position(records):
            prepared = await self._prepare(records, lost)
            crash_point("before-plan")
            plan = await self._sink.until_done(
                self._shard, partial(self._log.propose, prepared.plan)
            )
            crash_point("after-plan")
            if plan.id == prepared.plan.id:
                done = await self._carrier.carry_out(plan, prepared.contents)
                self._count(done)
            else:
                done = await self._outcome(self._followed(plan))
            await self._advance(plan, done)

    def _followed(self, plan: Plan) -> Plan:
        """Another's plan under our next number, which must go on where the log ends."""
        if plan.after == self._position:
            return plan
        raise DeliveryError(
            f"{self._sink.store.destination}: plan {plan.number} of {self._shard} begins after "
            f"{plan.after}, the one before it ended at {self._position}",
            destination=self._sink.store.destination,
            retryable=False,
            hint="entries of the plan log were removed or changed; put them back",
        )

    async def _prepare(self, records: Sequence[Record], lost: list[LostRange]) -> Prepared:
        """Step 1. The schema grows on the way, durably, before a file is made with it."""
        schemas = self._sink.schemas
        plan_id = uuid.uuid4().hex
        early_stops = EARLY_STOPS
        if schemas.current.version == 0:
            sample = records[:SAMPLE_RECORDS]
            async with self._sink.schema_lock:  # the first batches of all shards come together
                schema = schemas.current
                if schema.version == 0:
                    seen = await self._sink.in_thread(partial(observe, sample, schema))
                    await self._sink.until_done(self._shard, partial(schemas.grow, seen))
        while True:
            task = Task(
                id=plan_id,
                number=self._number + 1,
                sink=self._sink.name,
                stream=self._sink.stream,
                shard=self._shard,
                after=self._position,
                lost=self._lost_ranges(records, lost),
                records=records,
                settings=self._sink.settings,
                schema=schemas.current,
                made_ms=self._sink.clock.now_ms(),
            )
            made = await self._sink.in_thread(partial(prepare, task, stop_early=early_stops > 0))
            if isinstance(made, Prepared):
                return made
            early_stops -= 1
            async with self._sink.schema_lock:
                await self._sink.until_done(self._shard, partial(schemas.grow, made))

    def _lost_ranges(self, records: Sequence[Record], lost: list[LostRange]) -> list[LostRange]:
        """What expired before it could be read, between the log's end and the last record."""
        found = [gap for gap in lost if _order(gap.before) > _order(self._position)]
        first = records[0].sequence_number
        if (
            self._void is not None
            and _order(first) > _order(self._void.first)
            and all(gap.before != first for gap in found)
        ):
            found.insert(0, LostRange(after=self._void.after, before=first))
        return found

    async def _advance(self, plan: Plan, done: Done) -> None:
        """The plan is carried out: go on after it, and save the checkpoint (step 5)."""
        is_void = done.state == "void"
        self._number = plan.number
        self._position = plan.after if is_void else plan.last
        self._void = plan if is_void else None
        if is_void:
            self._sink.troubles.report(
                self._trouble("void"),
                f"sink {self._sink.name}, {self._shard}: records of plan {plan.number} expired in "
                f"the stream before its files were there; LOST is {plan.first} up to the oldest "
                "record that is left",
            )
        else:
            self._sink.troubles.clear(self._trouble("void"))
        for gap in plan.lost:
            self._report_lost(gap)
        if self._position is None or _order(self._position) <= _order(self._lease.checkpoint):
            return
        # An outage must not stop deliveries: the log knows how far they are.
        with contextlib.suppress(EndpointUnreachable):
            await self._lease.save(self._position)

    def _report_lost(self, gap: LostRange) -> None:
        self._sink.figures.lost_ranges += 1
        after = f"after {gap.after}" if gap.after else "from the beginning of the shard"
        self._sink.troubles.report(
            self._trouble(f"lost-{gap.before}"),
            f"sink {self._sink.name}, {self._shard}: LOST records {after} up to {gap.before}: they "
            "expired in the stream before they were read; raise the stream's retention above the "
            "longest outage",
        )

    def _count(self, done: Done) -> None:
        figures = self._sink.figures
        figures.rows += done.rows
        figures.files += len(done.files)
        figures.bytes += sum(file.bytes for file in done.files)

    def _after_position(self, records: list[Record]) -> list[Record]:
        """Those the log does not have yet. Records are in order, so this is one cut."""
        if self._position is None or not records:
            return records
        start = bisect.bisect_right(
            records, _order(self._position), key=lambda r: _order(r.sequence_number)
        )
        return records[start:] if start else records

    def _trouble(self, what: str) -> str:
        return f"{self._sink.name}/{self._shard}/{what}"


def _order(sequence_number: str | None) -> tuple[int, str]:
    """Sequence numbers are decimal without leading zeros: longer is greater."""
    return (len(sequence_number), sequence_number) if sequence_number else (0, "")
