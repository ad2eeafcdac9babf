"""Shipping: what a file's turn does. It reads, puts, and moves the position.

The order within `_ship` is the guarantee of the agent:

1. what a later start must know to put the same again (the identity, how the file begins, a cut
   that is no newline) is made durable;
2. the records are put, under the file's identity, generation and the lines' offsets;
3. once all are acknowledged the position moves, and is made durable with the next commit.

A crash before 3 leads to the same puts again, which the stream knows; a crash after it to none.
One put is under way per file, several files at once; while it is, the next lines are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

from headrace.agent.config import AgentConfig
from headrace.agent.counters import Counters
from headrace.agent.flow import Putter
from headrace.agent.identity import HEAD_BYTES, new_identity
from headrace.agent.newcomers import describe_unreadable
from headrace.agent.packing import Batch, Records
from headrace.agent.position_store import PositionStore
from headrace.agent.registry import Registry
from headrace.agent.rest import find_rest_of, report_loss, split_off, take_over
from headrace.agent.tailer import ContentReplaced
from headrace.agent.tracked import LostTrack, TrackedFile
from headrace.agent.turns import REFUSED_MS, Turns
from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError, ProducerFenced, StorageError
from headrace.core.limits import MAX_RECORDS_PER_PUT, MIB
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.agent")

TURN_BYTES = 4 * MIB  # what one file may ship before the others have their turn
_RETRY_MS = 1_000  # after a file could not be opened or read

STORE_PROBLEM = "store"


def stream_problem(stream: str) -> str:
    """The key of the problem that a stream cannot be put to."""
    return f"stream:{stream}"


@dataclass(slots=True)
class _Reading:
    """A batch being read, and what the file looked like before."""

    batch: asyncio.Future[Batch | None]
    seen: tuple[int, int]


class Shipper:
    """What a turn does, and the turns of all files."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        registry: Registry,
        store: PositionStore,
        troubles: Troubles,
        counters: Counters,
        clock: Clock,
        pool: Executor,
    ) -> None:
        self._config = config
        self._registry = registry
        self._store = store
        self._troubles = troubles
        self._counters = counters
        self._clock = clock
        self._pool = pool
        self.turns = Turns(self._turn, registry=registry, troubles=troubles, clock=clock)
        self._restarting = asyncio.Lock()
        self._under_way: set[asyncio.Future[Batch | None]] = set()

    async def _turn(self, file: TrackedFile) -> None:
        if file.is_replaced:
            await self._start_over(file)
        if not await self._open(file):
            return
        is_finished = file.is_over(self._clock.monotonic_ms(), self._config.rotation_wait)
        left_bytes = TURN_BYTES
        reading: _Reading | None = self._read(file, is_finished)
        try:
            while reading is not None:
                try:
                    batch = await self._batch_of(reading)
                except ContentReplaced:
                    file.is_replaced = True
                    return
                except OSError as error:
                    self.turns.block(
                        file, _RETRY_MS, describe_unreadable(file.position.path, error)
                    )
                    return
                if batch is None:
                    file.checked = reading.seen
                    self._at_end(file, is_finished)
                    break
                left_bytes -= len(batch.span.data)
                may_go_on = left_bytes > 0 and not self.turns.is_stopping
                reading = self._read(file, is_finished) if may_go_on else None
                if not await self._ship(file, batch):
                    return
        finally:
            if reading is not None:
                await self._settle(reading.batch)
            if file.tailer is not None:
                file.tailer.rewind(file.position)
        self.turns.went_well(file)

    async def _open(self, file: TrackedFile) -> bool:
        if file.source is not None:
            return True
        self._registry.make_room()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pool, file.open)
        except LostTrack:  # the next scan finds out where it is
            if file.is_estranged:
                self._registry.release_key(file)
            file.blocked_until_ms = self._clock.monotonic_ms() + self._config.scan_interval
            return False
        except OSError as error:
            self.turns.block(file, _RETRY_MS, describe_unreadable(file.position.path, error))
            return False
        return True

    def _read(self, file: TrackedFile, is_finished: bool) -> _Reading:
        """Start reading the next batch in a thread."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, lambda: file.read(is_finished=is_finished))
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return _Reading(future, (file.size, file.mtime_ns))

    async def _batch_of(self, reading: _Reading) -> Batch | None:
        return await asyncio.shield(reading.batch)

    async def _settle(self, reading: asyncio.Future[Batch | None]) -> None:
        """Wait for a read whose result is not wanted: the thread must be out of the tailer."""
        with contextlib.suppress(ContentReplaced, OSError):  # the next turn meets it again
            await asyncio.shield(reading)

    async def _ship(self, file: TrackedFile, batch: Batch) -> bool:
        """Put one batch and move the position. False if the stream refuses it for good."""
        position, span = file.position, batch.span
        must_commit = not file.is_stored
        # While little is acknowledged (the same header, perhaps, that other files have too), what
        # is about to be put has to be known beforehand: after a crash it tells the file from
        # another one in its place, whose lines must not pass for those put already.
        if span.head is not None:
            position.head = span.head
            self._registry.index(file)
            must_commit = True
        if position.offset < HEAD_BYTES < span.end:
            position.sent = span.mark
            must_commit = True
        if span.is_cut and position.cut != span.end:
            position.cut = span.end
            must_commit = True
        if must_commit:
            self._store.put(position)
            file.is_stored = await self.commit()
        try:
            if file.flow.dead_putter is not None:
                await self._put(file, file.flow.dead_putter, batch.dead)
            await self._put(file, file.flow.putter, batch.records)
        except HeadraceError as error:
            self.turns.block(file, REFUSED_MS, _describe_refusal(file, span.start, error))
            return False
        position.advance(span.end, span.mark, line_start=span.next_line_start)
        position.size = max(position.size, span.end)
        self._store.put(position)
        self._counters.add(batch)
        return True

    async def _put(self, file: TrackedFile, putter: Putter, records: Records) -> None:
        position, size = file.position, file.flow.config.batch.size
        count = len(records.entries)
        # The producer cuts at the service's limit itself; only a smaller size is ours to cut.
        step = size if size < MAX_RECORDS_PER_PUT else max(count, 1)
        for start, end in pairwise([*range(0, count, step), count]):
            await putter.put_batch(
                records.entries[start:end],
                producer_id=position.identity,
                epoch=position.generation,
                sequences=records.sequences[start:end],
            )
            self._troubles.clear(stream_problem(file.flow.stream))

    async def commit(self) -> bool:
        """Make positions durable. When the disk refuses that is reported, and False returned."""
        try:
            await self._store.commit()
        except StorageError as error:
            self._troubles.report(STORE_PROBLEM, str(error))
            return False
        self._troubles.clear(STORE_PROBLEM)
        return True

    def _at_end(self, file: TrackedFile, is_finished: bool) -> None:
        """Everything there is has been shipped; let go of a file that cannot get more."""
        assert file.source is not None
        position = file.position
        if is_finished:
            file.is_finished = True
        is_gone = is_finished and not file.source.state().is_linked
        if is_gone or (position.is_compressed and position.offset >= file.source.state().size):
            log.info("done with %s at byte %d", position.path, position.offset)
            file.close()
            self._registry.remove(file)
            self._store.forget(position.identity)
            self.turns.active.pop(position.identity, None)

    async def _start_over(self, file: TrackedFile) -> None:
        """The file was truncated or written anew: go on in its copy if there is one, and here
        from the beginning. What neither has is reported as lost."""
        async with self._restarting:
            old = file.position
            rest = await find_rest_of(file, self._registry, self._pool)
            known_end, shipped_end = old.size, max(old.offset, old.lost_to)
            self._counters.truncations_seen += 1
            if rest is None:
                log.info("%s was truncated; going on from its beginning", old.path)
                lost_start, before = shipped_end, old
            else:
                lost_start = max(shipped_end, rest.state().size)
                self._registry.remove(file)
                self.turns.active.pop(old.identity, None)
                copied = split_off(file, new_identity())
                take_over(copied, rest, registry=self._registry)
                self._registry.add(file)
                self._store.put(copied.position)
                before = copied.position
            if known_end > lost_start:
                self._counters.bytes_lost += known_end - lost_start
                report_loss(
                    self._store,
                    before,
                    start=lost_start,
                    end=known_end,
                    reason="truncated before they were read, and no copy has them",
                    now_ms=self._clock.now_ms(),
                )
            if rest is None:
                old.start_over()
                self._store.put(old)
            file.is_stored = False
            file.is_replaced = file.is_finished = False
            file.checked = None
            self.turns.active[file.position.identity] = file
            if file.source is not None:
                file.attach(file.source)
            await self.commit()
            if rest is not None:
                self.turns.wake(copied)


def _describe_refusal(file: TrackedFile, offset: int, error: HeadraceError) -> str:
    path, stream = file.position.path, file.flow.stream
    if isinstance(error, ProducerFenced):
        return (
            f"{path} is shipped to {stream} by another agent under the same identity: stop that"
            " one, or, if this one's data folder is an old copy, remove the folder"
        )
    return (
        f"stream {stream} refuses lines of {path} from byte {offset} on: {error};"
        " they are kept and tried again every 10 s"
    )
