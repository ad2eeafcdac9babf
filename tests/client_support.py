"""What the tests of the client side share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from headrace.core.client import StreamClient
from headrace.core.consumer import Consumer, ShardLease
from headrace.core.leases import StreamLeases
from headrace.core.model.records import PutEntry, Record
from headrace.core.part import StreamTarget
from headrace.core.producer import Producer
from headrace.core.retry import Backoff

Work = Callable[[ShardLease], Awaitable[None]]
QUICK = Backoff(initial_ms=1, max_ms=20)
LONG_MS = 60_000  # a lease that does not expire while a test runs


def through(endpoint: str, *, timeout_ms: int = 5_000) -> StreamClient:
    return StreamClient(StreamTarget(endpoint=endpoint), timeout_ms=timeout_ms)


async def until(condition: Callable[[], object], *, within_s: float = 30) -> None:
    """Wait for something other tasks bring about."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - whatever it is, it has no event
            await asyncio.sleep(0.005)


async def read_all(client: StreamClient, stream: str) -> list[list[Record]]:
    """All records there are, by shard."""
    found = []
    for shard in await client.list_shards(stream):
        records: list[Record] = []
        iterator: str | None = await client.get_shard_iterator(
            stream, shard.shard_id, "TRIM_HORIZON"
        )
        while iterator is not None:
            result = await client.get_records(iterator)
            records += result.records
            iterator = result.next_iterator
            if not result.records and not result.millis_behind_latest:
                break
        found.append(records)
    return found


class Collector:
    """Work that notes what it reads, and saves after every batch."""

    def __init__(self, *, max_records: int = 10_000) -> None:
        self.seen: list[tuple[str, int]] = []  # shard, number in the record
        self.saved_count = 0  # of them, checkpoints are behind so many
        self.lost: list[tuple[str, str]] = []
        self.now: set[str] = set()  # shards being worked on
        self.finished: list[str] = []
        self._max_records = max_records

    @property
    def numbers(self) -> list[int]:
        return sorted(number for _, number in self.seen)

    async def __call__(self, lease: ShardLease) -> None:
        assert lease.shard_id not in self.now, "two works on one shard in one process"
        self.now.add(lease.shard_id)
        try:
            while (batch := await lease.read(max_records=self._max_records)) is not None:
                if batch.lost_after is not None:
                    self.lost.append((lease.shard_id, batch.lost_after))
                if batch.records:
                    self.seen += [(lease.shard_id, int(r.data)) for r in batch.records]
                    await lease.save(batch.records[-1].sequence_number)
                    self.saved_count += len(batch.records)
            if not lease.stopping.is_set():
                await lease.finish()
                self.finished.append(lease.shard_id)
        finally:
            self.now.discard(lease.shard_id)


def consumer(
    client: StreamClient, stream: str, worker: str, work: Work, **options: Any
) -> Consumer:
    options = {"lease_duration_ms": LONG_MS, "idle_poll_ms": 10, "backoff": QUICK, **options}
    leases = options.pop("leases", None) or StreamLeases(client, "app", stream, worker)
    return Consumer(client, leases, stream=stream, worker=worker, work=work, **options)


@asynccontextmanager
async def running(
    client: StreamClient, stream: str, worker: str, work: Work, **options: Any
) -> AsyncIterator[Consumer]:
    made = consumer(client, stream, worker, work, **options)
    task = asyncio.create_task(made.run())
    try:
        yield made
        await made.stop()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def crash(
    client: StreamClient, stream: str, worker: str, work: Work, done: Callable[[], object]
) -> None:
    """Run a worker until `done`, then drop it as a crash would: nothing is released."""
    made = consumer(client, stream, worker, work)
    task = asyncio.create_task(made.run())
    await until(done)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def put(client: StreamClient, stream: str, first: int, count: int, keys: int = 20) -> None:
    await Producer(client, stream).put_batch(
        [PutEntry(b"%d" % n, f"key-{n % keys}") for n in range(first, first + count)]
    )


async def split(client: StreamClient, stream: str, shard_id: str) -> None:
    shard = next(s for s in await client.list_shards(stream) if s.shard_id == shard_id)
    middle = (shard.hash_key_range.start + shard.hash_key_range.end) // 2
    await client.call(
        "SplitShard",
        {"StreamName": stream, "ShardToSplit": shard_id, "NewStartingHashKey": str(middle)},
    )
    await client.wait_active(stream)
