"""Consumer: works on a stream's shards together with others of the same application.

Owns which shards this worker works on, and when. Promises: parents before children; a shard is
worked on by whoever holds its lease, and by nobody who knows not to hold it; a worker that dies is
replaced after the lease duration; a worker that comes back under its name has its leases back at
once. Does not deliver records: that is the work's business, through `ShardLease`.

Three loops: the heart beats, a round now and then looks at all leases and takes some, and each
held lease has its work running (`shard_work`). Before a round new shards get their leases
(`shard_sync`). Only a round takes; what a work that failed or ended leaves behind, the next round
picks up.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TypedDict

from headrace.core.balance import Seen, choose
from headrace.core.client import StreamClient
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import (
    ConfigError,
    HeadraceError,
    LeaseLost,
    ResourceInUse,
    ResourceNotFound,
    UnknownOperation,
    ValidationError,
)
from headrace.core.heart import Heart
from headrace.core.leases import LeaseStore
from headrace.core.model.leases import Lease
from headrace.core.model.records import StartingPosition
from headrace.core.racing import pause
from headrace.core.retry import Backoff
from headrace.core.shard_lease import ReadBatch, ShardLease, Surroundings
from headrace.core.shard_reader import Start
from headrace.core.shard_sync import ShardSync
from headrace.core.shard_work import ShardWork, Work
from headrace.core.troubles import Troubles
from headrace.core.twins import Twins

__all__ = ["Consumer", "ReadBatch", "ShardLease", "ShardStatus"]

_log = logging.getLogger("headrace.core")

_TAKES_AT_ONCE = 32
_IDLE_MS_PER_SHARD = 5  # so that one consumer asks at most 200 times a second about idle shards


class ShardStatus(TypedDict):
    """How far one held shard is. `millis_behind_latest` is None before the first read."""

    checkpoint: str | None
    millis_behind_latest: int | None


class Consumer:
    """One worker of an application on one stream."""

    def __init__(
        self,
        client: StreamClient,
        leases: LeaseStore,
        *,
        stream: str,
        worker: str,
        work: Work,
        start: StartingPosition = StartingPosition.TRIM_HORIZON,
        start_at_ms: int | None = None,
        lease_duration_ms: int = 10_000,
        shard_sync_ms: int = 10_000,
        idle_poll_ms: int = 200,
        clock: Clock | None = None,
        max_leases: int | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Args:
        leases: of the same `stream` and `worker`.
        work: called once per lease held; returns after `finish()`, or when stopping. If it
            raises, it is called again after a pause, and reads from the checkpoint.
        start: where a shard without a checkpoint begins. LATEST is the moment at which the
            application first asked for leases, so nothing is missed between two starts.
        start_at_ms: Unix ms, for AT_TIMESTAMP.
        lease_duration_ms: a worker not heard of for so long is replaced. The same for all.
        shard_sync_ms: how often to look for new shards.
        max_leases: never hold more.
        """
        if start == StartingPosition.AT_TIMESTAMP and start_at_ms is None:
            raise ValidationError("starting AT_TIMESTAMP needs start_at_ms")
        if max_leases is not None and max_leases < 1:
            raise ValidationError("max_leases is at least 1")
        self._leases = leases
        self._stream = stream
        self._worker = worker
        self._work = work
        self._period_ms = lease_duration_ms / 3
        self._clock = clock or SystemClock()
        self._max_leases = max_leases
        self._backoff = backoff or Backoff()
        self._troubles = Troubles(_log, self._clock)
        self._around = Surroundings(
            client=client,
            leases=leases,
            stream=stream,
            start=Start(kind=start, at_ms=start_at_ms),
            idle_ms=lambda: max(idle_poll_ms, _IDLE_MS_PER_SHARD * len(self._held)),
            clock=self._clock,
            backoff=self._backoff,
            troubles=self._troubles,
        )
        self._heart = Heart(
            leases.heartbeat,
            lease_duration_ms=lease_duration_ms,
            clock=self._clock,
            troubles=self._troubles,
            on_death=lambda: self._lose_all("no heartbeat got through for too long"),
        )
        self._shards = ShardSync(
            client,
            leases,
            stream=stream,
            period_ms=shard_sync_ms,
            clock=self._clock,
            troubles=self._troubles,
        )
        self._seen = Seen(lease_duration_ms)
        self._held: dict[str, ShardWork] = {}
        self._failures: dict[str, int] = {}  # in a row, by shard whose work failed last
        self._twins = Twins(stream=stream, worker=worker)
        self._since_ms = 0  # when the application began, as far back as this process knows
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_running = False

    async def run(self) -> None:
        """Work until `stop`.

        Waits out what may pass: outages, a stream that is not there yet. Raises ConfigError when
        another process works under the same worker name, and the ServiceError when the endpoint
        keeps no leases or refuses the names; all work has been cancelled by then.
        """
        self._is_running = True
        loops = {
            asyncio.create_task(self._heart.run()),
            asyncio.create_task(self._rounds()),
        }
        stopped = asyncio.create_task(self._drain())
        try:
            done, _ = await asyncio.wait({*loops, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*loops, stopped):
                task.cancel()
            await asyncio.gather(*loops, stopped, return_exceptions=True)  # nothing is taken now
            self._lose_all("the consumer ends")
            works = [held.task for held in self._held.values()]
            await asyncio.gather(*works, return_exceptions=True)
            self._is_running = False
            self._ended.set()

    async def stop(self) -> None:
        """Let all work finish what it has in hand, release the leases, let `run` return.

        Work whose lease cannot be kept because of an outage is cancelled.
        """
        self._stopping.set()
        if self._is_running:
            await self._ended.wait()

    def status(self) -> dict[str, ShardStatus]:
        """The shards worked on now, by shard id."""
        return {
            shard_id: ShardStatus(
                checkpoint=held.lease.checkpoint,
                millis_behind_latest=held.lease.millis_behind_latest,
            )
            for shard_id, held in sorted(self._held.items())
            if not held.is_lost
        }

    def problems(self) -> tuple[str, ...]:
        """What is wrong right now, a line each."""
        return self._troubles.current()

    async def _drain(self) -> None:
        """Wait for `stop`, then for all work to end; beats and rounds go on meanwhile."""
        await self._stopping.wait()
        while self._held:
            for held in self._held.values():
                held.stop()
            await asyncio.wait([held.task for held in self._held.values()])

    # -- rounds ---------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        attempt = 0
        while True:
            await self._heart.is_beating.wait()
            self._wake.clear()
            if not self._stopping.is_set():
                await self._shards.run_if_due()
            try:
                await self._round()
            except (ConfigError, UnknownOperation, ValidationError):
                raise
            except HeadraceError as error:
                self._troubles.report("leases", f"cannot look at the leases now: {error}")
                rest_ms = self._backoff.next_ms(attempt)
                attempt += 1
            else:
                self._troubles.clear("leases")
                rest_ms, attempt = self._period_ms, 0
            await pause(self._clock, rest_ms, self._wake)

    async def _round(self) -> None:
        leases = await self._leases.list()
        now_ms = self._clock.monotonic_ms()
        self._seen.look(leases, now_ms)
        known_ms = [self._since_ms, *(lease.since_ms for lease in leases)]
        self._since_ms = min(filter(None, known_ms), default=0)
        self._compare(leases)
        if self._stopping.is_set():
            return
        self._twins.check(leases)
        lost = [shard_id for shard_id, held in self._held.items() if held.is_lost]
        chosen = choose(
            leases,
            self._seen,
            worker=self._worker,
            held=self._held.keys() - set(lost),
            busy=lost,
            now_ms=now_ms,
            max_leases=self._max_leases,
        )
        for first in range(0, len(chosen), _TAKES_AT_ONCE):
            results = await asyncio.gather(
                *map(self._take, chosen[first : first + _TAKES_AT_ONCE]), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    def _compare(self, leases: list[Lease]) -> None:
        """Let go of what others have."""
        by_id = {lease.shard_id: lease for lease in leases}
        for shard_id, held in list(self._held.items()):
            listed = by_id.get(shard_id)
            if listed is None:
                held.lose("its lease is gone")
            elif listed.counter > held.lease.counter:
                held.lose(f"worker {listed.owner} has taken its lease")

    async def _take(self, lease: Lease) -> None:
        if self._stopping.is_set() or not self._heart.is_beating.is_set():
            return
        self._twins.taking(lease.shard_id)
        try:
            taken = await self._leases.take(lease.shard_id, lease.counter, lease.heartbeat)
        except (LeaseLost, ResourceInUse, ResourceNotFound):
            return  # somebody else was faster, or is alive after all
        self._twins.took(taken)
        if not self._heart.is_beating.is_set():
            return  # too late to rely on it; the next round takes it again
        held = self._held[taken.shard_id] = ShardWork(
            # a stream made again has new leases; to who was there before, it is all new
            ShardLease(self._around, replace(taken, since_ms=self._since_ms or taken.since_ms)),
            self._work,
            self._around,
            failure_count=self._failures.get(taken.shard_id, 0),
            on_end=self._end,
        )
        if self._stopping.is_set():
            held.stop()
        _log.info(
            "worker %s has %s of stream %s (counter %d)",
            self._worker, taken.shard_id, self._stream, taken.counter,
        )  # fmt: skip

    def _end(self, held: ShardWork) -> None:
        """The work on a shard has ended; the next round sees to what follows."""
        shard_id = held.lease.shard_id
        del self._held[shard_id]
        if held.failure_count:
            self._failures[shard_id] = held.failure_count
        else:
            self._failures.pop(shard_id, None)
        if held.lease.is_finished:
            self._shards.hasten()  # its children may be new
        self._wake.set()

    def _lose_all(self, why: str) -> None:
        for held in list(self._held.values()):
            held.lose(why)
