"""ShardLog on a local frame log: group commit.

While one sync runs in a writer thread, the next window fills; the length of a window is the time
a sync takes, so no timer is needed. Whoever put into a window waits for that window.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from headrace.core.clock import Clock
from headrace.core.engine.seam import ShardPut, StampedRecord
from headrace.core.errors import (
    HeadraceError,
    InternalFailure,
    ProducerFenced,
    ServiceUnavailable,
    StorageFull,
)
from headrace.core.limits import KIB, MIB
from headrace.core.log.producers import Piece
from headrace.core.log.reading import Slice
from headrace.core.log.stream_log import StreamLog
from headrace.core.log.window import OpenFrame, Window
from headrace.core.log.writing import Written
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.sequence import Position

log = logging.getLogger("headrace.core")

MAX_IN_FLIGHT_BYTES = 256 * MIB
# A window of this many bytes of data is written without waiting for the other requests of the same
# turn: else they are all decoded first, the disk idle, then all written, the processor idle.
PROMPT_BYTES = 32 * KIB
IDLE_MARK_S = 0.05  # how long without puts until a MARK frame vouches for the last ones


class EmbeddedShardLog:
    """See `seam.ShardLog`. Belongs to one event loop."""

    def __init__(
        self,
        stream_log: StreamLog,
        writers: Executor,
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._log = stream_log
        self._writers = writers
        self._clock = clock
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._writing = False
        self._scheduled = False
        self._in_flight_bytes = 0
        self._last_commit_s = 0.0
        self._mark_timer: asyncio.TimerHandle | None = None
        self._failed: BaseException | None = None
        self._arrivals: dict[int, set[asyncio.Future[None]]] = {}

    # -- putting -------------------------------------------------------------------------------

    async def append(self, puts: Sequence[ShardPut]) -> list[list[str]]:
        self._refuse_if_failed()
        self._admit(sum(put.payload_bytes for put in puts))
        now_ms = self._clock.now_ms()
        numbers = [
            self._log.append(p.shard, p.created_s, p.data, p.keys, now_ms, p.is_encrypted)[1]
            for p in puts
        ]
        await self._durable()
        return numbers

    async def append_once(
        self, producer_id: str, epoch: int, records: Sequence[StampedRecord]
    ) -> list[str]:
        self._refuse_if_failed()
        memory = self._log.memory
        pieces = [memory.piece_of(record.hash_key) for record in records]
        for piece in pieces:
            known = piece.producers.get(producer_id)
            if known is not None and known.epoch > epoch:
                raise ProducerFenced(
                    f"Producer {producer_id} has written with epoch {known.epoch}; "
                    f"this request has epoch {epoch}."
                )
        answers: list[str | None] = [None] * len(records)
        fresh: dict[int, list[int]] = {}
        latest: dict[int, tuple[Piece, int]] = {}
        for i, (record, piece) in enumerate(zip(records, pieces, strict=True)):
            known = piece.producers.get(producer_id)
            if known is not None and known.epoch == epoch and record.sequence <= known.sequence:
                answers[i] = known.sequence_number
                continue
            before = latest.get(piece.start)
            if before is not None and record.sequence <= before[1]:
                continue  # the same record twice in one request: answered with its twin's below
            latest[piece.start] = (piece, record.sequence)
            fresh.setdefault(record.shard, []).append(i)
        # what is stored already takes no room
        self._admit(sum(records[i].payload_bytes for of_shard in fresh.values() for i in of_shard))
        self._append_fresh(producer_id, epoch, records, pieces, fresh, answers)
        for i, piece in enumerate(pieces):
            if answers[i] is None:
                answers[i] = piece.producers[producer_id].sequence_number
        # also when nothing is fresh: what is known may still be on its way to the disk
        await self._durable()
        return [answer or "" for answer in answers]

    def _append_fresh(
        self,
        producer_id: str,
        epoch: int,
        records: Sequence[StampedRecord],
        pieces: Sequence[Piece],
        fresh: dict[int, list[int]],
        answers: list[str | None],
    ) -> None:
        now_ms = self._clock.now_ms()
        for shard, indexes in fresh.items():
            chosen = [records[i] for i in indexes]
            frame, numbers = self._log.append(
                shard,
                chosen[0].created_s,
                [record.data for record in chosen],
                [record.key for record in chosen],
                now_ms,
                chosen[0].is_encrypted,
            )
            last: dict[int, tuple[Piece, int, str]] = {}
            for i, number in zip(indexes, numbers, strict=True):
                answers[i] = number
                last[pieces[i].start] = (pieces[i], records[i].sequence, number)
            for piece, sequence, number in last.values():
                self._remember(frame, piece, producer_id, epoch, sequence, number, now_ms)

    def _remember(
        self,
        frame: OpenFrame,
        piece: Piece,
        producer_id: str,
        epoch: int,
        sequence: int,
        number: str,
        now_ms: int,
    ) -> None:
        window = self._log.window
        assert window is not None
        window.undos.append(
            self._log.memory.remember(piece, producer_id, epoch, sequence, number, now_ms)
        )
        frame.mark(piece, producer_id, epoch, sequence)

    def _refuse_if_failed(self) -> None:
        if self._failed is not None:
            raise InternalFailure("The store has failed and is stopping.")

    def _admit(self, payload_bytes: int) -> None:
        """Count what is about to be appended; a commit sets the count back."""
        if self._in_flight_bytes + payload_bytes > MAX_IN_FLIGHT_BYTES and self._in_flight_bytes:
            raise ServiceUnavailable(
                "More is being written than the disk takes. Try again in a moment."
            )
        self._in_flight_bytes += payload_bytes

    def _durable(self) -> asyncio.Future[None]:
        """Done when all that was appended so far is synced. Raises if it cannot be."""
        self._refuse_if_failed()
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._log.window is None and not self._writing:
            waiter.set_result(None)
            return waiter
        self._waiters.append(waiter)
        if not self._writing:
            if self._in_flight_bytes >= PROMPT_BYTES:
                self._commit()
            elif not self._scheduled:
                self._scheduled = True
                # requests that came in the same turn of the loop share the window
                self._loop.call_soon(self._commit_scheduled)
        return waiter

    # -- committing ----------------------------------------------------------------------------

    def _commit_scheduled(self) -> None:
        self._scheduled = False
        if not self._writing:
            self._commit()

    def _commit(self) -> None:
        now_ms = self._clock.now_ms()
        window = self._log.close_window(now_ms)
        waiters, self._waiters = self._waiters, []
        self._in_flight_bytes = 0
        if window is None:
            _answer(waiters, None)
            return
        self._writing = True
        done = self._loop.run_in_executor(self._writers, self._log.write, window, now_ms)
        done.add_done_callback(lambda future: self._written(window, waiters, future))

    def _written(
        self,
        window: Window,
        waiters: list[asyncio.Future[None]],
        future: asyncio.Future[Written],
    ) -> None:
        self._writing = False
        error = future.exception()
        if error is None:
            written = future.result()
            self._log.publish(written)
            _answer(waiters, None)
            if self._arrivals:
                self._announce({shard for shard, _ in written.entries})
        elif isinstance(error, StorageFull):
            self._log.fail(window)
            self._in_flight_bytes = 0
            waiters += self._waiters
            self._waiters = []
            _answer(waiters, error)
        else:
            # After a failed write or sync the kernel may drop what it could not write, and a
            # second sync would succeed without it. Only a restart, which reads back, is safe.
            self._failed = error
            waiters += self._waiters
            self._waiters = []
            _answer(waiters, InternalFailure("The store could not write and is stopping."))
            self._on_fatal(error)
            return
        if self._log.window is not None or self._waiters:
            self._commit()
        else:
            self._last_commit_s = self._loop.time()
            if self._mark_timer is None:
                self._mark_timer = self._loop.call_later(IDLE_MARK_S, self._mark_if_idle)

    def _mark_if_idle(self) -> None:
        self._mark_timer = None
        if self._writing or self._log.window is not None or self._failed is not None:
            return  # the commit under way starts the timer again
        idle_s = self._loop.time() - self._last_commit_s
        if idle_s < IDLE_MARK_S:
            self._mark_timer = self._loop.call_later(IDLE_MARK_S - idle_s, self._mark_if_idle)
            return
        try:
            self._log.write_mark()
        except (OSError, HeadraceError) as error:
            log.warning("could not write the idle mark: %s", error)

    # -- reading and the rest ------------------------------------------------------------------

    def read(
        self, shard: int, position: Position, *, floor: Position, max_records: int, max_bytes: int
    ) -> Slice:
        return self._log.read(
            shard, position, floor=floor, max_records=max_records, max_bytes=max_bytes
        )

    def arrival(self, shard: int) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        waiting = self._arrivals.setdefault(shard, set())
        waiting.add(future)
        future.add_done_callback(lambda done: self._forget_arrival(shard, done))
        return future

    def _forget_arrival(self, shard: int, future: asyncio.Future[None]) -> None:
        waiting = self._arrivals.get(shard)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._arrivals[shard]

    def _announce(self, shards: Iterable[int]) -> None:
        for shard in shards:
            for future in tuple(self._arrivals.get(shard, ())):
                if not future.done():
                    future.set_result(None)

    def find_time(self, shard: int, at_ms: int) -> Position:
        return self._log.find_time(shard, at_ms)

    @property
    def tail(self) -> Position:
        return self._log.tail

    @property
    def oldest_arrival_ms(self) -> int:
        return self._log.oldest_arrival_ms

    @property
    def stored_bytes(self) -> int:
        return self._log.stored_bytes

    async def seal(self, ranges: Iterable[HashKeyRange]) -> None:
        await self._durable()
        self._log.memory.add_boundaries(ranges)
        self._announce(tuple(self._arrivals))  # a shard may have ended

    def trim(self, before_ms: int) -> int:
        return self._log.trim(before_ms)

    async def close(self) -> None:
        """Finish what is in flight, vouch for it, release the files."""
        self._announce(tuple(self._arrivals))
        while self._failed is None and (self._writing or self._log.window is not None):
            await self._durable()
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        if self._failed is None:
            try:
                self._log.write_mark()
            except (OSError, HeadraceError) as error:
                log.warning("could not write the closing mark: %s", error)
        self._log.close()


def _answer(waiters: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for waiter in waiters:
        if waiter.done():  # its client went away
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
