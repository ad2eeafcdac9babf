"""Carrying out a plan: its files and its done entry, the first time or again.

Every step is put-if-absent under a name that follows from the plan, so it may be cut off
anywhere, done again, and done by two at once: the outcome is the same files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from headrace.core.errors import DeliveryError, RecordsExpired
from headrace.core.model.records import Record
from headrace.sinks import parquet
from headrace.sinks.context import SinkContext
from headrace.sinks.crash_points import crash_point
from headrace.sinks.plan import Done, Plan, PlannedFile
from headrace.sinks.plan_log import PlanLog
from headrace.sinks.planning import actual, empty_file, remake

_T = TypeVar("_T")

Reread = Callable[[str | None, str], Awaitable[Sequence[Record]]]


class Carrier:
    """Carries out the plans of one shard."""

    def __init__(self, sink: SinkContext, log: PlanLog, shard: str, reread: Reread) -> None:
        self._sink = sink
        self._log = log
        self._shard = shard
        self._reread = reread

    async def carry_out(self, plan: Plan, contents: Sequence[bytes]) -> Done:
        """Make the files visible and say so. Raises DeliveryError if a name holds something else.

        Returns:
            State `void` when the records had expired for somebody who tried before: the names
            hold no rows, and the records, if they are at hand, go into another plan.
        """
        files = [
            await self._place(plan, planned, data)
            for planned, data in zip(plan.files, contents, strict=True)
        ]
        crash_point("after-files")
        return await self._finish(plan, files)

    async def redo(self, plan: Plan) -> Done:
        """Carry out a plan whose records are no longer at hand: after a restart, or another's.

        The records are read again from the stream, and only if a file is missing.
        """
        there = await self._try(lambda: self._look(plan))
        files = [found for found in there if found is not None]
        if len(files) == len(plan.files):
            return await self._finish(plan, files)
        contents = await self._remade(plan)
        return await self.carry_out(plan, contents)

    async def _remade(self, plan: Plan) -> list[bytes]:
        """The files' bytes once more; files without rows when the records have expired."""
        try:
            records = await self._reread(plan.after, plan.last)
        except RecordsExpired as error:
            records = error.records
        # What expired may all lie before the plan's first record: a gap it already tells of.
        left = [record for record in records if int(record.sequence_number) >= int(plan.first)]
        if not left or left[0].sequence_number != plan.first:
            return await self._sink.in_thread(lambda: [empty_file(plan) for _ in plan.files])
        return await self._sink.in_thread(lambda: remake(plan, left))

    async def _look(self, plan: Plan) -> list[PlannedFile | None]:
        """What is under each of the plan's names; what interrupted attempts left is removed."""
        found = [await self._holder(plan, planned) for planned in plan.files]
        for planned in plan.files:  # after the look: it makes sure that what was seen stays
            await self._sink.store.discard_partial(planned.key)
        return found

    async def _place(self, plan: Plan, planned: PlannedFile, data: bytes) -> PlannedFile:
        """Put one file; what is there already must be this plan's. Returns what is there."""
        digest = hashlib.sha256(data).hexdigest()
        metadata = {"plan": plan.id, "sha256": digest, "rows": str(planned.rows)}
        put = self._sink.store.put_if_absent
        created = await self._try(lambda: put(planned.key, data, metadata))
        crash_point("after-file")
        if created:
            if digest == planned.sha256:
                return planned
            footer = parquet.read_footer(data)
            return actual(planned, data, footer.rows if footer else planned.rows)
        found = await self._try(lambda: self._holder(plan, planned, digest))
        if found is None:
            raise DeliveryError(
                f"{planned.key} was removed while it was being put",
                destination=self._sink.store.destination,
                retryable=False,
                hint="something else deletes files of this sink; stop it",
            )
        return found

    async def _holder(
        self, plan: Plan, planned: PlannedFile, digest: str | None = None
    ) -> PlannedFile | None:
        """What is under a planned name, None for nothing. Raises for anything not this plan's.

        The same bytes are the same file. Other bytes are, too, if the file says that it is of
        this plan and that another version of the writer made it, or that it holds no rows
        because the records had expired.
        """
        store = self._sink.store
        head = await store.head(planned.key)
        if head is None:
            return None
        stored = head.metadata.get("sha256")
        if stored == planned.sha256 and head.size_bytes == planned.bytes:
            return planned
        data = await store.get(planned.key)
        if data is None:
            return None
        found = hashlib.sha256(data).hexdigest()
        if found == planned.sha256:
            return planned
        footer = parquet.read_footer(data)
        if footer is not None and footer.plan == plan.id:
            is_other_version = footer.writer != plan.writer and footer.rows == planned.rows
            if footer.is_void or is_other_version or found == digest:
                return actual(planned, data, footer.rows)
        raise DeliveryError(
            f"{store.destination.rstrip('/')}/{planned.key} is not the file that plan "
            f"{plan.number} of sink {plan.sink}, {plan.shard} makes",
            destination=store.destination,
            retryable=False,
            hint="it was changed or put there by something else; move it away and the sink "
            "goes on by itself",
        )

    async def _finish(self, plan: Plan, files: list[PlannedFile]) -> Done:
        rows = sum(file.rows for file in files)
        done = Done(
            plan=plan.id,
            number=plan.number,
            state="done" if rows else "void",
            after=plan.after,
            last=plan.last,
            rows=rows,
            files=files,
            at_ms=self._sink.clock.now_ms(),
        )
        await self._try(lambda: self._log.finish(done))
        crash_point("after-done")
        return done

    async def _try(self, call: Callable[[], Awaitable[_T]]) -> _T:
        return await self._sink.until_done(self._shard, call)
