"""The consumer's promises against the real server: everything read, in order, shared evenly."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from client_support import Collector, consumer, put, running, split, until
from headrace.core.client import StreamClient
from headrace.core.consumer import ShardLease
from headrace.core.errors import ConfigError, InvalidArgument, ValidationError
from headrace.core.leases import StreamLeases
from headrace.core.model.leases import SHARD_END
from headrace.core.model.records import StartingPosition


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
            for _ in range(10):  # a worker held up for 0.8 s loses its leases, and begins anew
                held = [frozenset(work.now) for work in works]
                await asyncio.sleep(1.5)  # several rounds: nothing wanders any more
                if [frozenset(work.now) for work in works] == held:
                    break
            assert [len(shards) for shards in held] == [2, 2, 2]
        await until(lambda: len(works[0].now) == 6)


async def test_children_are_looked_for_as_soon_as_their_parent_has_been_read(
    direct: StreamClient, stream: str
) -> None:
    work = Collector()
    async with running(direct, stream, "w", work, shard_sync_ms=3_600_000):
        await put(direct, stream, 0, 100)
        await split(direct, stream, "shardId-000000000000")
        await put(direct, stream, 100, 100)
        await until(lambda: work.numbers == list(range(200)))


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


async def test_two_processes_of_one_name_are_told_apart(direct: StreamClient, stream: str) -> None:
    elder, younger = Collector(), Collector()
    # six seconds: who is held up for as long loses its leases, and may be the younger then
    made = consumer(direct, stream, "w", elder, lease_duration_ms=6_000)
    task = asyncio.create_task(made.run())
    await until(lambda: len(elder.now) == 2)
    async with running(direct, stream, "w", younger, lease_duration_ms=6_000):
        with pytest.raises(ConfigError, match="worker name of its own"):
            await asyncio.wait_for(task, 20)
        assert elder.now == set()
        await asyncio.sleep(0.5)
        await until(lambda: len(younger.now) == 2)


async def test_a_worker_holds_no_more_than_it_may(direct: StreamClient, stream: str) -> None:
    small, large = Collector(), Collector()
    options = {"lease_duration_ms": 600}
    await direct.ensure_stream("four", shards=4)
    async with running(direct, "four", "small", small, max_leases=1, **options):
        await until(lambda: len(small.now) == 1)
        async with running(direct, "four", "large", large, **options):
            # the rest, not just its half
            await until(lambda: (len(small.now), len(large.now)) == (1, 3))


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
