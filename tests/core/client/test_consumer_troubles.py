"""The consumer through outages and kills, when it is stopped, and when its stream goes away."""

from __future__ import annotations

import asyncio

import pytest

from client_support import Collector, consumer, crash, put, running, through, until
from headrace.core.client import StreamClient
from headrace.core.consumer import ShardLease
from headrace.core.errors import LeaseLost, UnknownOperation
from headrace.core.leases import StreamLeases
from headrace.core.model.leases import SHARD_END
from headrace.core.model.records import StartingPosition
from headrace.core.testing.faulty_proxy import ERROR_500, FaultyProxy
from headrace.core.testing.server_process import ServerProcess


async def test_a_worker_that_comes_back_has_its_leases_at_once(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 100)
    first, second = Collector(), Collector()
    await crash(direct, stream, "w", first, lambda: first.saved_count == 100)
    await put(direct, stream, 100, 100)
    async with running(direct, stream, "w", second):
        await until(lambda: len(second.seen) == 100)  # in 30 s, and a lease lasts 60 s
    assert second.numbers == list(range(100, 200))


async def test_a_worker_that_died_is_replaced_after_the_lease_duration(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 100)
    first, second = Collector(), Collector()
    await crash(direct, stream, "w1", first, lambda: first.saved_count == 100)
    await put(direct, stream, 100, 100)
    started = asyncio.get_running_loop().time()
    async with running(direct, stream, "w2", second, lease_duration_ms=600):
        await until(lambda: len(second.seen) >= 100)
        assert asyncio.get_running_loop().time() - started > 0.6
    # a worker that is held up for so long loses its leases, and may read some again
    assert set(second.numbers) == set(range(100, 200))


async def test_what_a_stopped_worker_leaves_is_taken_without_waiting(
    direct: StreamClient, stream: str
) -> None:
    first, second = Collector(), Collector()
    async with running(direct, stream, "w1", first):
        await until(lambda: len(first.now) == 2)
    await put(direct, stream, 0, 50)
    async with running(direct, stream, "w2", second):
        await until(lambda: len(second.seen) == 50)  # in 30 s, and a lease lasts 60 s


async def test_an_outage_is_waited_out(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    work = Collector()
    async with (
        through(proxy.endpoint, timeout_ms=500) as client,
        running(client, stream, "w", work) as made,
    ):
        await put(direct, stream, 0, 100)
        await until(lambda: len(work.seen) == 100)
        await proxy.refuse()
        await put(direct, stream, 100, 100)
        await until(lambda: any("cannot be reached" in text for text in made.problems()))
        await proxy.accept()
        await until(lambda: len(work.seen) == 200)
        proxy.plan_random([ERROR_500], 0.5, 1)
        await put(direct, stream, 200, 100)
        await until(lambda: len(work.seen) == 300)
        proxy.clear()
        await until(lambda: not made.problems())
    assert work.numbers == list(range(300))


async def test_kill_9_of_the_server_is_survived(server: ServerProcess) -> None:
    work = Collector(max_records=50)
    async with through(server.endpoint) as client:
        await client.ensure_stream("s", shards=2)
        async with running(client, "s", "w", work, lease_duration_ms=20_000):
            for first in range(0, 3000, 1000):
                await put(client, "s", first, 1000)
                await until(lambda least=first: len(work.seen) > least)  # type: ignore[misc]
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            await until(lambda: len(work.seen) >= 3000)
    assert work.numbers == list(range(3000))


async def test_who_cannot_beat_stops_before_another_begins(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    """One worker is cut off. Its work ends, then the other's begins; its late save is refused."""
    events: list[str] = []
    caught: list[BaseException] = []
    kept: list[ShardLease] = []

    async def cut_off(lease: ShardLease) -> None:
        kept.append(lease)
        try:
            await lease.read()
        except asyncio.CancelledError:
            events.append("first ended")
            raise

    async def other(lease: ShardLease) -> None:
        events.append("second began")
        await lease.stopping.wait()

    await direct.ensure_stream("one", shards=1)
    async with through(proxy.endpoint, timeout_ms=60_000) as client:
        first = consumer(client, "one", "w1", cut_off, lease_duration_ms=1000)
        running_first = asyncio.create_task(first.run())
        await until(lambda: kept)
        async with running(direct, "one", "w2", other, lease_duration_ms=1000):
            await asyncio.sleep(0.3)
            await proxy.refuse()
            await until(lambda: "second began" in events)
            # more than once where it was held up for as long as a lease lasts
            assert events == ["first ended"] * len(kept) + ["second began"]
            assert kept[0].lost.is_set()
            await proxy.accept()
            try:
                await kept[0].save("99")
            except LeaseLost as error:
                caught.append(error)
            stale = StreamLeases(direct, "app", "one", "w1")
            with pytest.raises(LeaseLost):
                await stale.save(kept[0].shard_id, kept[0].counter, "99")
        running_first.cancel()
        await asyncio.gather(running_first, return_exceptions=True)
    assert caught


async def test_stopping_lets_the_work_finish_what_it_has_in_hand(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 10, keys=1)
    order: list[str] = []
    in_hand = asyncio.Event()

    async def work(lease: ShardLease) -> None:
        batch = await lease.read()
        if batch is None or not batch.records:
            return
        in_hand.set()
        await lease.stopping.wait()
        await asyncio.sleep(0.1)
        await lease.save(batch.records[-1].sequence_number)
        order.append("saved")
        assert await lease.read() is None

    made = consumer(direct, stream, "w", work)
    task = asyncio.create_task(made.run())
    await in_hand.wait()
    await made.stop()
    order.append("stopped")
    await task
    assert order == ["saved", "stopped"]
    leases = await StreamLeases(direct, "app", stream, "x").list()
    assert [lease.owner for lease in leases] == [None, None]
    assert sorted(lease.checkpoint is not None for lease in leases) == [False, True]


async def test_stopping_before_and_without_running(direct: StreamClient, stream: str) -> None:
    made = consumer(direct, stream, "w", Collector())
    await made.stop()
    await asyncio.wait_for(made.run(), 20)


async def test_stopping_ends_during_an_outage(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    work = Collector()
    async with through(proxy.endpoint, timeout_ms=60_000) as client:
        made = consumer(client, stream, "w", work, lease_duration_ms=1000)
        task = asyncio.create_task(made.run())
        await until(lambda: len(work.now) == 2)
        await proxy.refuse()
        await asyncio.wait_for(made.stop(), 20)  # and a call takes up to 60 s
        await task


async def test_an_endpoint_that_keeps_no_leases_ends_the_run(direct: StreamClient) -> None:
    class Elsewhere(StreamLeases):
        async def heartbeat(self) -> None:
            raise UnknownOperation("Heartbeat")

    leases = Elsewhere(direct, "app", "s", "w")
    with pytest.raises(UnknownOperation):
        await asyncio.wait_for(consumer(direct, "s", "w", Collector(), leases=leases).run(), 20)


async def test_a_stream_that_is_not_there_yet_is_waited_for(direct: StreamClient) -> None:
    work = Collector()
    async with running(direct, "to-come", "w", work, lease_duration_ms=300) as made:
        await until(lambda: any("to-come" in problem for problem in made.problems()))
        await direct.ensure_stream("to-come", shards=1)
        await put(direct, "to-come", 0, 10)
        await until(lambda: len(work.seen) == 10)
        await until(lambda: not made.problems())


@pytest.mark.parametrize("start", [StartingPosition.TRIM_HORIZON, StartingPosition.LATEST])
async def test_a_stream_deleted_and_made_again_is_read_from_its_beginning(
    direct: StreamClient, start: StartingPosition
) -> None:
    """Its leases went with it: the new stream is all new, also to who began with the latest."""
    name = f"phoenix-{start.value}"
    await direct.ensure_stream(name, shards=1)
    work = Collector()
    async with running(
        direct, name, "w", work, lease_duration_ms=600, shard_sync_ms=100, start=start
    ):
        leases = StreamLeases(direct, "app", name, "x")
        await until(lambda: len(work.now) == 1)
        await put(direct, name, 0, 10)
        await until(lambda: len(work.seen) >= 10)
        old = await leases.list()
        await direct.call("DeleteStream", {"StreamName": name})
        await asyncio.sleep(1.2)  # a shard of the new stream is younger, by the second
        await direct.ensure_stream(name, shards=1)
        await put(direct, name, 100, 10)
        await until(lambda: {*range(100, 110)} <= set(work.numbers))
        # whoever worked on the old stream cannot write on the new one
        with pytest.raises(LeaseLost):
            await leases.save(old[0].shard_id, old[0].counter, SHARD_END)
        assert (await leases.list())[0].counter > old[0].counter
    # some of them twice where a worker was held up for as long as a lease lasts
    assert set(work.numbers) == {*range(10), *range(100, 110)}
    assert work.lost == []
