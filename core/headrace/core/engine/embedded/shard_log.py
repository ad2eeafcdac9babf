"""ShardLog on a local frame log: numbered, idempotent puts, and what readers see of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from headrace.core.clock import Clock
from headrace.core.engine.embedded.group_commit import GroupCommit
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.seam import LogClosed, OnceAnswer, ShardPut, StampedRecord
from headrace.core.errors import ProducerFenced
from headrace.core.log.files import NotInMemory
from headrace.core.log.producers import Piece
from headrace.core.log.reading import Slice
from headrace.core.log.snapshot import LogSnapshot
from headrace.core.log.stream_log import StreamLog
from headrace.core.log.window import OpenFrame
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.sequence import Position

T = TypeVar("T")


class EmbeddedShardLog:
    """See `seam.ShardLog`. Belongs to one event loop."""

    def __init__(
        self,
        stream_log: StreamLog,
        writers: Executor,
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
        readers: Executor | None = None,
        in_loop: InLoop | None = None,
    ) -> None:
        """`readers` are threads for what must be fetched from the disk; else the loop's own.

        `in_loop` is that of all logs on the disk; else it has one of its own.
        """
        self._log = stream_log
        self._readers = readers
        self._in_threads: set[asyncio.Future[Any]] = set()
        self._is_closed = False
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.commits = GroupCommit(
            stream_log,
            writers,
            clock,
            on_fatal=on_fatal,
            on_visible=self._announce,
            in_loop=in_loop or InLoop(),
        )
        self._arrivals: dict[int, set[asyncio.Future[None]]] = {}

    # -- putting -------------------------------------------------------------------------------

    async def append(self, puts: Sequence[ShardPut]) -> list[list[str]]:
        numbers, durable = self.append_soon(puts)
        await durable
        return numbers

    def append_soon(self, puts: Sequence[ShardPut]) -> tuple[list[list[str]], asyncio.Future[None]]:
        commits = self.commits
        payload_bytes = 0
        for put in puts:
            payload_bytes += put.payload_bytes
        commits.admit(payload_bytes)
        now_ms = self._clock.now_ms()
        numbers = []
        for p in puts:
            _, of_put = self._log.append(
                p.shard, p.created_s, p.data, p.keys, now_ms, p.is_encrypted
            )
            numbers.append(of_put)
        return numbers, commits.durable()

    async def append_once(
        self, producer_id: str, epoch: int, records: Sequence[StampedRecord]
    ) -> OnceAnswer:
        self.commits.refuse_if_failed()
        memory = self._log.memory
        latest_epoch = memory.epoch_of(producer_id)
        if latest_epoch is not None and latest_epoch > epoch:
            raise ProducerFenced(
                f"Producer {producer_id} has written with epoch {latest_epoch}; "
                f"this request has epoch {epoch}."
            )
        pieces = [memory.piece_of(record.hash_key) for record in records]
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
        self.commits.admit(
            sum(records[i].payload_bytes for of_shard in fresh.values() for i in of_shard)
        )
        self._append_fresh(producer_id, epoch, records, pieces, fresh, answers)
        for i, piece in enumerate(pieces):
            if answers[i] is None:
                answers[i] = piece.producers[producer_id].sequence_number
        # also when nothing is fresh: what is known may still be on its way to the disk
        await self.commits.durable()
        return OnceAnswer([answer or "" for answer in answers], fresh)

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

    # -- reading and the rest ------------------------------------------------------------------

    async def read(
        self, shard: int, position: Position, *, floor: Position, max_records: int, max_bytes: int
    ) -> Slice:
        found = self.read_now(
            shard, position, floor=floor, max_records=max_records, max_bytes=max_bytes
        )
        if found is not None:
            return found
        return await self._look(
            lambda snapshot, wait: snapshot.read(
                shard,
                position,
                floor=floor,
                max_records=max_records,
                max_bytes=max_bytes,
                wait=wait,
            )
        )

    def read_now(
        self, shard: int, position: Position, *, floor: Position, max_records: int, max_bytes: int
    ) -> Slice | None:
        if self._is_closed:
            return None
        start = max(position, floor)
        if start >= self._log.tail:
            return Slice([], 0, start, None)
        newest = self._log.newest
        if newest is None:
            return None
        return newest.read(shard, position, start, max_records, max_bytes)

    async def find_time(self, shard: int, at_ms: int) -> Position:
        return await self._look(lambda snapshot, wait: snapshot.find_time(shard, at_ms, wait=wait))

    async def _look(self, look: Callable[[LogSnapshot, bool], T]) -> T:
        """Look something up: here and now if it is in memory, else in a thread."""
        while True:
            if self._is_closed:
                raise LogClosed("the log is closed")
            snapshot = self._log.snapshot()
            try:
                return look(snapshot, False)
            except NotInMemory:
                pass
            try:
                return await self._in_thread(look, snapshot, True)
            except FileNotFoundError:
                if snapshot.sealed is self._log.snapshot().sealed:
                    raise
                # trimmed while the thread was on its way: what it held has expired, look again

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Have something done in a thread; `close` waits for it even if the caller does not."""
        future = self._loop.run_in_executor(self._readers, work, *args)
        self._in_threads.add(future)
        future.add_done_callback(self._out_of_thread)
        return await asyncio.shield(future)

    def _out_of_thread(self, future: asyncio.Future[Any]) -> None:
        self._in_threads.discard(future)
        if not future.cancelled():
            future.exception()  # has been seen, if only here

    def after_puts(self) -> asyncio.Future[None] | None:
        return self.commits.after_puts()

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

    @property
    def tail(self) -> Position:
        return self._log.tail

    @property
    def last_shard(self) -> int:
        return self._log.last_shard

    @property
    def oldest_arrival_ms(self) -> int:
        return self._log.oldest_arrival_ms

    @property
    def stored_bytes(self) -> int:
        return self._log.stored_bytes

    async def seal(self, ranges: Iterable[HashKeyRange]) -> None:
        await self.commits.durable()
        self._log.memory.add_boundaries(ranges)
        self._announce(tuple(self._arrivals))  # a shard may have ended

    async def trim(self, before_ms: int) -> int:
        if self._is_closed:
            raise LogClosed("the log is closed")
        expired = self._log.take_expired(before_ms)
        if expired:
            await self._in_thread(self._log.remove, expired)
        return len(expired)

    async def close(self) -> None:
        """Finish what is in flight, vouch for it, release the files."""
        if self._is_closed:
            return
        self._is_closed = True
        self._announce(tuple(self._arrivals))
        await asyncio.gather(*self._in_threads, return_exceptions=True)
        await self.commits.close()
        self._log.close()
