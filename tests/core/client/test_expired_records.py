"""Retention overtakes a consumer: by a real server whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from client_support import QUICK, through
from headrace.core.client import StreamClient
from headrace.core.consumer import Consumer, ShardLease
from headrace.core.leases import StreamLeases
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.records import PutEntry, PutResult
from headrace.core.server import Server, ServerConfig
from headrace.core.testing.manual_clock import ManualClock

HOUR_MS = 3_600_000


@asynccontextmanager
async def serving(data: Path, clock: ManualClock) -> AsyncIterator[StreamClient]:
    options = StreamLogOptions(segment_age_ms=HOUR_MS)
    server = Server(ServerConfig(port=0, data=data, log_options=options), clock=clock)
    await server.start()
    try:
        async with through(server.endpoint) as client:
            await client.ensure_stream("s", shards=1)
            yield client
    finally:
        await server.stop()


async def put(client: StreamClient, first: int, count: int) -> list[PutResult]:
    return await client.put_records(
        "s", [PutEntry(b"%d" % n, "k") for n in range(first, first + count)]
    )


async def read_once(client: StreamClient, max_records: int, at_least: int) -> list[object]:
    """A worker's life: what it read, `lost after X` among it where it was told so."""
    found: list[object] = []
    enough = asyncio.Event()

    async def work(lease: ShardLease) -> None:
        while (batch := await lease.read(max_records=max_records)) is not None:
            if batch.lost_after is not None:
                found.append(f"lost after {batch.lost_after}")
            found.extend(int(record.data) for record in batch.records)
            if batch.records:
                await lease.save(batch.records[-1].sequence_number)
            if len(found) >= at_least:
                enough.set()
                await lease.stopping.wait()

    consumer = Consumer(
        client,
        StreamLeases(client, "app", "s", "w"),
        stream="s",
        worker="w",
        work=work,
        idle_poll_ms=5,
        backoff=QUICK,
    )
    running = asyncio.create_task(consumer.run())
    if at_least:
        await asyncio.wait_for(enough.wait(), 30)
    else:
        await asyncio.sleep(0.3)
    await consumer.stop()
    await running
    return found


async def test_what_expired_unread_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path / "data", clock) as client:
        first = await put(client, 0, 10)
        assert await read_once(client, 5, 5) == [0, 1, 2, 3, 4]
        await clock.advance(13 * HOUR_MS)
        await put(client, 10, 5)
        await clock.advance(12 * HOUR_MS)
        lost = f"lost after {first[4].sequence_number}"
        assert await read_once(client, 100, 6) == [lost, 10, 11, 12, 13, 14]


async def test_a_quiet_stream_is_no_loss_however_long_the_quiet(tmp_path: Path) -> None:
    """Everything read has expired, nothing unread has."""
    clock = ManualClock()
    async with serving(tmp_path / "data", clock) as client:
        await put(client, 0, 10)
        assert await read_once(client, 100, 10) == list(range(10))
        await clock.advance(100 * HOUR_MS)
        assert await read_once(client, 100, 0) == []
        await put(client, 10, 1)
        await clock.advance(10 * HOUR_MS)
        assert await read_once(client, 100, 1) == [10]
        await clock.advance(100 * HOUR_MS)
        await put(client, 11, 2)
        assert await read_once(client, 100, 2) == [11, 12]


async def test_an_iterator_expires_while_the_work_takes_its_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path / "data", clock) as client:
        await put(client, 0, 10)
        found: list[int] = []
        done = asyncio.Event()

        async def work(lease: ShardLease) -> None:
            while (batch := await lease.read(max_records=3)) is not None:
                found.extend(int(record.data) for record in batch.records)
                await clock.advance(10 * 60_000)
                if len(found) == 10:
                    done.set()

        leases = StreamLeases(client, "app", "s", "w")
        consumer = Consumer(client, leases, stream="s", worker="w", work=work)
        running = asyncio.create_task(consumer.run())
        await asyncio.wait_for(done.wait(), 30)
        await consumer.stop()
        await running
        assert found == list(range(10))
        assert consumer.problems() == ()
