"""What the work on one shard relies on: nothing skipped in silence, nothing saved when not held."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import msgspec
import pytest

from api_support import server_here
from client_support import QUICK, through
from headrace.core.client import StreamClient
from headrace.core.clock import SystemClock
from headrace.core.errors import AccessDenied, InvalidArgument, LeaseLost, RecordsExpired
from headrace.core.leases import StreamLeases
from headrace.core.model.records import PutEntry, PutResult, StartingPosition
from headrace.core.part import StreamTarget
from headrace.core.producer import Producer
from headrace.core.shard_lease import ShardLease, Surroundings
from headrace.core.shard_reader import Start
from headrace.core.testing.faulty_proxy import (
    CUT_REPLY,
    DROP_REPLY,
    ERROR_500,
    RESET,
    THROTTLE_SOME,
    Call,
    Delay,
    FaultyProxy,
    Reply,
    Upstream,
)
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.troubles import Troubles

SHARD = "shardId-000000000000"


async def put(client: StreamClient, stream: str, first: int, count: int) -> list[PutResult]:
    entries = [PutEntry(b"%d" % n, "k", "0") for n in range(first, first + count)]
    return await Producer(client, stream).put_batch(entries)


async def held(
    client: StreamClient, stream: str, *, keeper: StreamClient | None = None, worker: str = "w"
) -> ShardLease:
    """A lease on the first shard, taken as the consumer would."""
    clock = SystemClock()
    leases = StreamLeases(keeper or client, "app", stream, worker)
    await leases.sync(await (keeper or client).list_shards(stream))
    listed = next(lease for lease in await leases.list() if lease.shard_id == SHARD)
    lease = await leases.take(SHARD, listed.counter, listed.heartbeat)
    around = Surroundings(
        client=client,
        leases=leases,
        stream=stream,
        start=Start(kind=StartingPosition.TRIM_HORIZON),
        idle_ms=lambda: 5,
        clock=clock,
        backoff=QUICK,
        troubles=Troubles(logging.getLogger("headrace.core"), clock),
    )
    return ShardLease(around, lease)


async def numbers(lease: ShardLease, count: int, max_records: int = 10_000) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        batch = await lease.read(max_records=max_records)
        assert batch is not None and batch.lost_after is None
        found += [int(record.data) for record in batch.records]
    return found


def answering(code: str) -> object:
    """A fault: an error of that code."""

    async def fault(call: Call, upstream: Upstream) -> Reply | None:
        return Reply(400, {}, msgspec.json.encode({"__type": code, "message": "injected"}))

    return fault


async def test_reading_goes_on_where_it_was(direct: StreamClient, stream: str) -> None:
    await put(direct, stream, 0, 100)
    lease = await held(direct, stream)
    assert await numbers(lease, 30, max_records=10) == list(range(30))
    assert await numbers(lease, 70) == list(range(30, 100))
    await put(direct, stream, 100, 5)
    assert await numbers(lease, 5) == list(range(100, 105))


async def test_an_empty_batch_when_nothing_comes_in_time(direct: StreamClient, stream: str) -> None:
    lease = await held(direct, stream)
    batch = await lease.read(wait_ms=20)
    assert batch is not None and batch.records == [] and batch.millis_behind_latest == 0
    reading = asyncio.create_task(lease.read(wait_ms=20_000))
    await asyncio.sleep(0.02)
    await put(direct, stream, 0, 1)
    found = await asyncio.wait_for(reading, 10)  # not after 20 s
    assert found is not None and len(found.records) == 1


async def test_stopping_ends_a_read_that_waits_or_hangs(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async with through(proxy.endpoint, timeout_ms=60_000) as client:
        for fault in (None, Delay(before_ms=60_000)):
            lease = await held(client, stream, keeper=direct)
            if fault is not None:
                proxy.plan(fault, None)
            reading = asyncio.create_task(lease.read())
            await asyncio.sleep(0.03)
            lease.stopping.set()
            assert await asyncio.wait_for(reading, 20) is None


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_reads_lose_nothing(
    proxy: FaultyProxy, direct: StreamClient, stream: str, seed: int
) -> None:
    await put(direct, stream, 0, 300)
    chance = random.Random(seed)
    proxy.plan_random(
        [Delay(after_ms=5), DROP_REPLY, CUT_REPLY, RESET, ERROR_500, THROTTLE_SOME(0.5, seed)],
        0.5,
        seed,
    )
    found: list[int] = []
    async with through(proxy.endpoint) as client:
        lease = await held(client, stream, keeper=direct)
        while len(found) < 300:
            try:
                async with asyncio.timeout(chance.uniform(0, 0.02)):
                    batch = await lease.read(max_records=chance.randint(1, 9))
            except TimeoutError:
                continue
            assert batch is not None and batch.lost_after is None
            found += [int(record.data) for record in batch.records]
    assert found == list(range(300))


@pytest.mark.parametrize("code", ["ExpiredIteratorException", "InvalidArgumentException"])
async def test_an_iterator_that_expired_is_made_anew(
    proxy: FaultyProxy, direct: StreamClient, stream: str, code: str
) -> None:
    await put(direct, stream, 0, 20)
    async with through(proxy.endpoint) as client:
        lease = await held(client, stream, keeper=direct)
        assert await numbers(lease, 10, max_records=10) == list(range(10))
        proxy.plan(answering(code), 1, operation="GetRecords")  # type: ignore[arg-type]
        assert await numbers(lease, 10) == list(range(10, 20))
    assert proxy.requests["GetShardIterator"] == 2


async def test_what_no_retry_can_mend_reaches_the_work(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async with through(proxy.endpoint) as client:
        lease = await held(client, stream, keeper=direct)
        proxy.plan(answering("AccessDeniedException"), 1, operation="GetRecords")  # type: ignore[arg-type]
        with pytest.raises(AccessDenied):
            await lease.read()


async def test_records_that_expired_are_reported_with_the_batch_after_them(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    """The server says with its answer that records went missing before it."""

    async def expired(call: Call, upstream: Upstream) -> Reply | None:
        reply = await upstream(call)
        members = msgspec.json.decode(reply.body)
        members["Records"] = members["Records"][3:]
        return Reply(
            200,
            {**reply.headers, "x-headrace-records-expired": "true"},
            msgspec.json.encode(members),
        )

    results = await put(direct, stream, 0, 20)
    async with through(proxy.endpoint) as client:
        lease = await held(client, stream, keeper=direct)
        await numbers(lease, 10, max_records=10)
        proxy.plan(expired, 1, operation="GetRecords")
        batch = await lease.read()
        assert batch is not None
        assert batch.lost_after == results[9].sequence_number
        assert [int(record.data) for record in batch.records] == list(range(13, 20))
        await put(direct, stream, 20, 1)
        assert await numbers(lease, 1) == [20]


class Elsewhere(StreamClient):
    """A client that takes its endpoint for AWS, which says nothing of expired records."""

    is_headrace = False


async def test_where_the_server_does_not_say_a_missing_last_record_counts_as_loss(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async def first_four_gone(call: Call, upstream: Upstream) -> Reply | None:
        """Every read begins no earlier than at record 4."""
        reply = await upstream(call)
        members = msgspec.json.decode(reply.body)
        members["Records"] = [
            r for r in members["Records"] if int(r["SequenceNumber"]) >= int(fourth)
        ]
        return Reply(200, reply.headers, msgspec.json.encode(members))

    results = await put(direct, stream, 0, 10)
    third, fourth = results[3].sequence_number or "", results[4].sequence_number or ""
    from headrace.core.part import StreamTarget

    async with Elsewhere(StreamTarget(endpoint=proxy.endpoint)) as client:
        lease = await held(client, stream, keeper=direct)
        assert await numbers(lease, 4, max_records=4) == [0, 1, 2, 3]
        await lease.save(third)
        again = await held(client, stream, keeper=direct)  # after a restart; record 3 is there
        assert await numbers(again, 6, max_records=1) == [4, 5, 6, 7, 8, 9]

        proxy.plan(first_four_gone, None, operation="GetRecords")
        late = await held(client, stream, keeper=direct)  # record 3 is gone
        batch = await late.read()
        assert batch is not None and batch.lost_after == third
        assert [int(record.data) for record in batch.records] == [4, 5, 6, 7, 8, 9]
        empty = await late.read(wait_ms=0)
        assert empty is not None and empty.lost_after is None  # said once


async def test_a_shard_that_is_gone_is_reported_and_ended(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async def without_first(call: Call, upstream: Upstream) -> Reply | None:
        reply = await upstream(call)
        members = msgspec.json.decode(reply.body)
        members["Shards"] = members["Shards"][1:]
        return Reply(200, reply.headers, msgspec.json.encode(members))

    results = await put(direct, stream, 0, 10)
    async with through(proxy.endpoint) as client:
        lease = await held(client, stream, keeper=direct)
        await numbers(lease, 5, max_records=5)
        gone = answering("ResourceNotFoundException")
        proxy.plan(gone, None, operation="GetRecords")  # type: ignore[arg-type]
        proxy.plan(without_first, None, operation="ListShards")
        batch = await lease.read()
        assert batch is not None and batch.records == []
        assert batch.lost_after == results[4].sequence_number
        assert await lease.read() is None
        await lease.finish()
    assert lease.is_finished


async def test_a_range_is_read_again_exactly(direct: StreamClient, stream: str) -> None:
    results = await put(direct, stream, 0, 30)
    number = [result.sequence_number or "" for result in results]
    lease = await held(direct, stream)
    assert await numbers(lease, 5, max_records=5) == list(range(5))
    again = await lease.reread(number[9], number[19])
    assert [int(record.data) for record in again] == list(range(10, 20))
    assert [int(r.data) for r in await lease.reread(None, number[2])] == [0, 1, 2]
    assert [int(r.data) for r in await lease.reread(number[28], number[29])] == [29]
    assert await numbers(lease, 25) == list(range(5, 30))  # reading has not moved


async def test_a_range_that_is_partly_gone_is_not_passed_off_as_whole(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    results = await put(direct, stream, 0, 30)
    number = [result.sequence_number or "" for result in results]

    def gone_before(first: int) -> object:
        async def fault(call: Call, upstream: Upstream) -> Reply | None:
            reply = await upstream(call)
            members = msgspec.json.decode(reply.body)
            kept = [r for r in members["Records"] if int(r["SequenceNumber"]) >= int(number[first])]
            headers = dict(reply.headers)
            if len(kept) < len(members["Records"]):
                headers["x-headrace-records-expired"] = "true"
            return Reply(200, headers, msgspec.json.encode({**members, "Records": kept}))

        return fault

    async with through(proxy.endpoint) as client:
        lease = await held(client, stream, keeper=direct)
        proxy.plan(gone_before(12), 1, operation="GetRecords")  # type: ignore[arg-type]
        with pytest.raises(RecordsExpired) as caught:
            await lease.reread(number[9], number[19])
        assert [int(record.data) for record in caught.value.records] == list(range(12, 20))
        proxy.plan(gone_before(25), 1, operation="GetRecords")  # type: ignore[arg-type]
        with pytest.raises(RecordsExpired) as caught:
            await lease.reread(number[9], number[19])
        assert caught.value.records == []
        with pytest.raises(RecordsExpired):
            await lease.reread(number[9], str(int(number[29]) + (1 << 80)))


async def test_what_was_prepared_is_there_for_the_next_worker(
    direct: StreamClient, stream: str
) -> None:
    results = await put(direct, stream, 0, 10)
    number = [result.sequence_number or "" for result in results]
    first = await held(direct, stream)
    await first.save(number[2])
    await first.prepare(number[7], b"plan")
    assert (first.pending_checkpoint, first.pending_state) == (number[7], b"plan")
    second = await held(direct, stream, worker="w2")
    assert (second.checkpoint, second.pending_checkpoint) == (number[2], number[7])
    assert second.pending_state == b"plan"
    assert await numbers(second, 7) == [3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(LeaseLost):
        await first.save(number[7])
    assert first.lost.is_set()
    await second.save(number[7])
    assert (second.pending_checkpoint, second.pending_state) == (None, b"")
    with pytest.raises(InvalidArgument, match="go back"):
        await second.save(number[5])


async def test_saves_get_through_whatever_happens_and_count_once(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    results = await put(direct, stream, 0, 30)
    async with through(proxy.endpoint) as client:
        lease = await held(direct, stream, keeper=client)
        proxy.plan_random([DROP_REPLY, CUT_REPLY, RESET, ERROR_500], 0.5, 2)
        for result in results:
            await lease.prepare(result.sequence_number or "", b"x" * 1000)
            await lease.save(result.sequence_number or "")
        proxy.clear()
    listed = (await StreamLeases(direct, "app", stream, "x").list())[0]
    assert (listed.checkpoint, listed.pending_checkpoint) == (results[-1].sequence_number, None)


async def test_a_save_that_cannot_get_through_ends_when_the_lease_is_lost(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async with through(proxy.endpoint) as client:
        lease = await held(direct, stream, keeper=client)
        await proxy.refuse()
        saving = asyncio.create_task(lease.save("1"))
        await asyncio.sleep(0.05)
        assert not saving.done()
        lease.lost.set()
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(saving, 20)


async def test_a_stream_on_its_way_out_is_no_shard_at_its_end(tmp_path: Path) -> None:
    """It lists no shards then; that is no sign that this one went out of retention."""
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock, state_delay_ms=60_000) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        await clock.advance(60_000)
        await client.wait_active("s")
        await put(client, "s", 0, 3)
        lease = await held(client, "s")
        assert await numbers(lease, 3) == [0, 1, 2]
        await client.call("DeleteStream", {"StreamName": "s"})
        reading = asyncio.create_task(lease.read())
        done, _ = await asyncio.wait([reading], timeout=0.3)
        assert not done, "reading goes on, for the stream may be made again"
        lease.stopping.set()
        assert await reading is None
        with pytest.raises(InvalidArgument, match="not read to its end"):
            await lease.finish()
