"""The consumer's promises against the real server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from client_support import QUICK, through, until
from headrace.core.client import StreamClient
from headrace.core.consumer import Consumer, ShardLease
from headrace.core.errors import (
    ConfigError,
    InvalidArgument,
    LeaseLost,
    UnknownOperation,
    ValidationError,
)
from headrace.core.leases import StreamLeases
from headrace.core.model.leases import SHARD_END
from headrace.core.model.records import PutEntry, StartingPosition
from headrace.core.producer import Producer
from headrace.core.testing.faulty_proxy import ERROR_500, FaultyProxy
from headrace.core.testing.server_process import ServerProcess

Work = Callable[[ShardLease], Awaitable[None]]
LONG_MS = 60_000  # a lease that does not expire while a test runs


class Collector:
    """Work that notes what it reads, and saves after every batch."""

    def __init__(self, *, max_records: int = 10_000) -> None:
        self.seen: list[tuple[str, int]] = []  # shard, number in the record
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


async def crash(client: StreamClient, stream: str, worker: str, work: Work, done: Any) -> None:
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


async def test_everything_is_read_once_and_what_is_done_is_not_read_again(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 1000)
    first = Collector()
    async with running(direct, stream, "w", first) as made:
        await until(lambda: len(first.seen) == 1000)
        await put(direct, stream, 1000, 500)
        await until(lambda: len(first.seen) == 1500)
        status = made.status()
        assert sorted(status) == ["shardId-000000000000", "shardId-000000000001"]
        assert all(s["millis_behind_latest"] == 0 and s["checkpoint"] for s in status.values())
        assert made.problems() == ()
    await put(direct, stream, 1500, 100)
    second = Collector()
    async with running(direct, stream, "w", second):
        await until(lambda: len(second.seen) == 100)
    assert first.numbers == list(range(1500)) and second.numbers == list(range(1500, 1600))


async def test_a_worker_that_comes_back_has_its_leases_at_once(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 100)
    first, second = Collector(), Collector()
    await crash(direct, stream, "w", first, lambda: len(first.seen) == 100)
    await put(direct, stream, 100, 100)
    async with running(direct, stream, "w", second):
        await until(lambda: len(second.seen) == 100, within_s=5)  # not the lease duration, 60 s
    assert second.numbers == list(range(100, 200))


async def test_a_worker_that_died_is_replaced_after_the_lease_duration(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 100)
    first, second = Collector(), Collector()
    await crash(direct, stream, "w1", first, lambda: len(first.seen) == 100)
    await put(direct, stream, 100, 100)
    started = asyncio.get_running_loop().time()
    async with running(direct, stream, "w2", second, lease_duration_ms=600):
        await until(lambda: len(second.seen) == 100)
        assert asyncio.get_running_loop().time() - started > 0.6
    assert second.numbers == list(range(100, 200))


async def test_what_a_stopped_worker_leaves_is_taken_without_waiting(
    direct: StreamClient, stream: str
) -> None:
    first, second = Collector(), Collector()
    async with running(direct, stream, "w1", first):
        await until(lambda: len(first.now) == 2)
    await put(direct, stream, 0, 50)
    async with running(direct, stream, "w2", second):
        await until(lambda: len(second.seen) == 50, within_s=5)


async def test_workers_share_the_shards_evenly_and_read_everything(
    direct: StreamClient,
) -> None:
    await direct.ensure_stream("shared", shards=6)
    works = [Collector() for _ in range(3)]
    async with running(direct, "shared", "w0", works[0], lease_duration_ms=900):
        await until(lambda: len(works[0].now) == 6)
        await put(direct, "shared", 0, 600)
        async with (
            running(direct, "shared", "w1", works[1], lease_duration_ms=900),
            running(direct, "shared", "w2", works[2], lease_duration_ms=900),
        ):
            await until(lambda: all(len(work.now) == 2 for work in works))
            await put(direct, "shared", 600, 600)
            everything = set(range(1200))
            await until(lambda: {n for work in works for n in work.numbers} == everything)
            held = [frozenset(work.now) for work in works]
            await asyncio.sleep(1.5)  # several rounds: nothing wanders any more
            assert [frozenset(work.now) for work in works] == held
        await until(lambda: len(works[0].now) == 6)


async def test_children_wait_for_their_parents_through_splits_and_merges(
    direct: StreamClient, stream: str
) -> None:
    work = Collector(max_records=7)
    async with running(direct, stream, "w", work, shard_sync_ms=200):
        await put(direct, stream, 0, 300)
        await split(direct, stream, "shardId-000000000000")  # -> 2, 3
        await put(direct, stream, 300, 300)
        await split(direct, stream, "shardId-000000000002")  # -> 4, 5
        await put(direct, stream, 600, 300)
        await direct.call(
            "MergeShards",
            {
                "StreamName": stream,
                "ShardToMerge": "shardId-000000000005",
                "AdjacentShardToMerge": "shardId-000000000003",
            },
        )  # -> 6
        await direct.wait_active(stream)
        await put(direct, stream, 900, 300)
        await until(lambda: len(work.seen) == 1200)
        await until(lambda: len(work.finished) == 4)
    assert work.numbers == list(range(1200))
    by_key: dict[int, list[int]] = {}
    for _, number in work.seen:
        by_key.setdefault(number % 20, []).append(number)
    assert all(found == sorted(found) for found in by_key.values())
    order = {shard_id[-1]: place for place, shard_id in enumerate(work.finished)}
    assert order["0"] < order["2"] < order["5"] and order["0"] < order["3"]
    first_of = {s[-1]: work.seen.index((s, n)) for s, n in reversed(work.seen)}
    last_of = {s[-1]: place for place, (s, _) in enumerate(work.seen)}
    for parent, child in (pair.split(">") for pair in ("0>2", "0>3", "2>4", "2>5", "5>6", "3>6")):
        assert last_of[parent] < first_of[child]


async def test_a_parent_closed_before_the_start_is_still_read(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 200)
    await split(direct, stream, "shardId-000000000000")
    await put(direct, stream, 200, 200)
    work = Collector()
    async with running(direct, stream, "w", work):
        await until(lambda: len(work.seen) == 400)
    assert work.numbers == list(range(400))


async def test_latest_begins_when_the_application_began_not_when_a_process_did(
    direct: StreamClient, stream: str
) -> None:
    await put(direct, stream, 0, 50)
    await split(direct, stream, "shardId-000000000001")
    await put(direct, stream, 50, 50)
    work = Collector()
    options = {"start": StartingPosition.LATEST}
    async with running(direct, stream, "w", work, **options):
        await until(lambda: len(work.now) == 3)
    await put(direct, stream, 100, 50)  # nobody is there
    await split(direct, stream, "shardId-000000000000")
    await put(direct, stream, 150, 50)
    async with running(direct, stream, "w", work, **options):
        await until(lambda: len(work.seen) == 100)
    assert work.numbers == list(range(100, 200)) and work.lost == []


async def test_at_timestamp_begins_there(direct: StreamClient, stream: str) -> None:
    await put(direct, stream, 0, 50)
    await asyncio.sleep(0.01)
    await put(direct, stream, 50, 50)
    everything = Collector()
    arrivals: list[int] = []

    async def look(lease: ShardLease) -> None:
        batch = await lease.read()
        assert batch is not None
        arrivals.extend(r.approximate_arrival_ms for r in batch.records if int(r.data) >= 50)
        await lease.stopping.wait()

    async with running(
        direct, stream, "other", look, leases=StreamLeases(direct, "o", stream, "other")
    ):
        await until(lambda: len(arrivals) == 50)
    options = {"start": StartingPosition.AT_TIMESTAMP, "start_at_ms": min(arrivals)}
    async with running(direct, stream, "w", everything, **options):
        await until(lambda: len(everything.seen) == 50)
    assert everything.numbers == list(range(50, 100))
    with pytest.raises(ValidationError, match="start_at_ms"):
        consumer(direct, stream, "w", everything, start=StartingPosition.AT_TIMESTAMP)


async def test_work_that_fails_starts_again_from_its_checkpoint_and_disturbs_nobody(
    direct: StreamClient, stream: str
) -> None:
    collector = Collector(max_records=10)
    attempts: Counter[str] = Counter()
    counters: list[int] = []

    async def work(lease: ShardLease) -> None:
        attempts[lease.shard_id] += 1
        if lease.shard_id.endswith("0"):
            counters.append(lease.counter)
            batch = await lease.read(max_records=10)
            if attempts[lease.shard_id] == 1 and batch is not None:
                await lease.save(batch.records[3].sequence_number)
                await lease.prepare(batch.records[5].sequence_number, b"plan")
            if attempts[lease.shard_id] < 4:
                raise RuntimeError("no luck")
            assert batch is not None and lease.pending_state == b"plan"
            first.append(int(batch.records[0].data))
            await lease.save(lease.checkpoint or "")
            collector.seen += [(lease.shard_id, int(r.data)) for r in batch.records]
        await collector(lease)

    first: list[int] = []
    await put(direct, stream, 0, 400)
    async with running(direct, stream, "w", work) as made:
        await until(lambda: any("no luck" in problem for problem in made.problems()))
        await until(lambda: len(collector.seen) == 396)
        await until(lambda: not made.problems() or attempts["shardId-000000000000"] >= 4)
    assert attempts == {"shardId-000000000000": 4, "shardId-000000000001": 1}
    assert counters == sorted(set(counters))  # each attempt is fenced off from the one before
    assert len(first) == 1


async def test_work_that_just_returns_is_started_again(direct: StreamClient, stream: str) -> None:
    calls: Counter[str] = Counter()

    async def work(lease: ShardLease) -> None:
        calls[lease.shard_id] += 1

    async with running(direct, stream, "w", work) as made:
        await until(lambda: min(calls.values(), default=0) >= 3)
        assert any("without being asked to stop" in problem for problem in made.problems())


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
        await until(lambda: made.problems())
        assert "cannot be reached" in made.problems()[0]
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
            assert events == ["first ended", "second began"]
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
    await asyncio.wait_for(made.run(), 5)


async def test_stopping_ends_during_an_outage(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    work = Collector()
    async with through(proxy.endpoint, timeout_ms=60_000) as client:
        made = consumer(client, stream, "w", work, lease_duration_ms=1000)
        task = asyncio.create_task(made.run())
        await until(lambda: len(work.now) == 2)
        await proxy.refuse()
        await asyncio.wait_for(made.stop(), 5)
        await task


async def test_two_processes_of_one_name_are_told_apart(direct: StreamClient, stream: str) -> None:
    elder, younger = Collector(), Collector()
    made = consumer(direct, stream, "w", elder, lease_duration_ms=900)
    task = asyncio.create_task(made.run())
    await until(lambda: len(elder.now) == 2)
    async with running(direct, stream, "w", younger, lease_duration_ms=900):
        with pytest.raises(ConfigError, match="worker name of its own"):
            await asyncio.wait_for(task, 10)
        assert elder.now == set()
        await asyncio.sleep(0.5)
        assert len(younger.now) == 2


async def test_a_worker_holds_no_more_than_it_may(direct: StreamClient, stream: str) -> None:
    small, large = Collector(), Collector()
    options = {"lease_duration_ms": 600}
    await direct.ensure_stream("four", shards=4)
    async with running(direct, "four", "small", small, max_leases=1, **options):
        await until(lambda: len(small.now) == 1)
        async with running(direct, "four", "large", large, **options):
            await until(lambda: len(large.now) == 3)  # the rest, not just its half
            assert len(small.now) == 1


async def test_an_unfinished_shard_cannot_be_finished(direct: StreamClient, stream: str) -> None:
    caught: list[BaseException] = []

    async def work(lease: ShardLease) -> None:
        await lease.stopping.wait()
        assert await lease.read() is None
        try:
            await lease.finish()
        except InvalidArgument as error:
            caught.append(error)

    async with running(direct, stream, "w", work) as made:
        await until(lambda: len(made.status()) == 2)
    assert len(caught) == 2
    leases = await StreamLeases(direct, "app", stream, "w").list()
    assert all(lease.checkpoint != SHARD_END for lease in leases)


async def test_an_endpoint_that_keeps_no_leases_ends_the_run(direct: StreamClient) -> None:
    class Elsewhere(StreamLeases):
        async def heartbeat(self) -> None:
            raise UnknownOperation("Heartbeat")

    leases = Elsewhere(direct, "app", "s", "w")
    with pytest.raises(UnknownOperation):
        await asyncio.wait_for(consumer(direct, "s", "w", Collector(), leases=leases).run(), 5)


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
        await until(lambda: len(work.seen) == 10)
        old = await leases.list()
        await direct.call("DeleteStream", {"StreamName": name})
        await asyncio.sleep(1.2)  # a shard of the new stream is younger, by the second
        await direct.ensure_stream(name, shards=1)
        await put(direct, name, 100, 10)
        await until(lambda: len(work.seen) == 20)
        # whoever worked on the old stream cannot write on the new one
        with pytest.raises(LeaseLost):
            await leases.save(old[0].shard_id, old[0].counter, SHARD_END)
        assert (await leases.list())[0].counter > old[0].counter
    assert work.numbers == [*range(10), *range(100, 110)]
    assert work.lost == []
