"""Delivery in one process, on real stores: buffers, plans, redo, races, losses, alarms."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from headrace.core.errors import DeliveryError
from headrace.core.model.records import Record
from headrace.core.testing.manual_clock import ManualClock
from headrace.sinks import planning, rows
from headrace.sinks.config import SinkConfig
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.plan_log import PlanLog
from headrace.sinks.sink import open_store
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.testing import ScriptedShard, make_records
from sinks_support import (
    Bucket,
    assert_exactly,
    deliver,
    open_context,
    read_tables,
    sink_config,
    until,
)

SHARD = "shardId-000000000000"


@dataclass
class Lake:
    """A target of either kind, with a handle of the test's own to look at it."""

    config: SinkConfig
    base: Path
    store: ObjectStore

    async def deliver(self, shard: ScriptedShard) -> None:
        await deliver(self.config, self.base, shard)

    def log(self) -> PlanLog:
        return PlanLog(self.store, self.config.sink_name, SHARD)


@pytest.fixture(params=["folder", "bucket"])
async def lake(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket
) -> AsyncIterator[Lake]:
    config = (
        sink_config("./lake/")
        if request.param == "folder"
        else sink_config(bucket.url, s3=bucket.config)
    )
    store = open_store(config, tmp_path)
    await store.open()
    yield Lake(config, tmp_path, store)
    await store.close()


def records(count: int, first_index: int = 1) -> list[Record]:
    data = [json.dumps({"id": i, "path": f"/{i}"}).encode() for i in range(count)]
    return make_records(data, first_index=first_index)


async def test_every_record_lands_once_and_the_log_tells_of_all(lake: Lake) -> None:
    shard = ScriptedShard(records(500), batch_records=50)
    await lake.deliver(shard)
    await assert_exactly(lake.store, {SHARD: shard.records})
    assert shard.is_finished and shard.saved[-1] == shard.records[-1].sequence_number
    log = lake.log()
    last = await log.last_plan()
    assert last > 3
    position = None
    for number in range(1, last + 1):
        plan, done = await log.plan(number), await log.done(number)
        assert plan is not None and done is not None
        assert (plan.after, done.state, done.plan) == (position, "done", plan.id)
        assert done.files == plan.files and done.rows == plan.records
        position = plan.last
    assert position == shard.records[-1].sequence_number


async def test_a_restart_after_everything_delivers_nothing_again(lake: Lake) -> None:
    shard = ScriptedShard(records(100), is_closed=True)
    await lake.deliver(shard)
    again = ScriptedShard(shard.records)  # no checkpoint at all: the log knows
    await lake.deliver(again)
    await assert_exactly(lake.store, {SHARD: shard.records})
    assert again.saved == [shard.records[-1].sequence_number]


async def test_an_empty_shard_finishes_without_a_plan(lake: Lake) -> None:
    shard = ScriptedShard([])
    await lake.deliver(shard)
    assert shard.is_finished and await lake.log().last_plan() == 0


async def test_the_folder_reads_as_one_table(tmp_path: Path) -> None:
    shard = ScriptedShard(records(300), batch_records=50)
    await deliver(sink_config("lake"), tmp_path, shard)
    table = ds.dataset(tmp_path / "lake", format="parquet").to_table()
    assert table.num_rows == 300
    assert sorted(table.column("id").to_pylist()) == list(range(300))


async def test_a_file_lies_under_the_arrival_of_its_oldest_record(lake: Lake) -> None:
    await lake.deliver(ScriptedShard(records(10)))
    (key,) = await read_tables(lake.store)
    assert key == f"2025/11/22/08/access-{SHARD}-000000000001-0.parquet"


async def test_a_small_batch_waits_for_the_interval_by_the_monotonic_clock(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    context = await open_context(sink_config("lake"), tmp_path, clock=clock)
    shard = ScriptedShard(records(3), is_closed=False)
    running = asyncio.create_task(ShardDelivery(context, shard).run())
    await until(lambda: shard.read_count >= 2)
    clock.step_wall(-86_400_000)
    clock.step_wall(3 * 86_400_000)
    shard.put(records(1, 4))
    await until(lambda: shard.read_count >= 3)
    assert await read_tables(context.store) == {}
    await clock.advance(60_000)
    shard.put(records(1, 5))  # wakes the read, whose wait is by the real clock
    await until(lambda: shard.saved)
    (table,) = (await read_tables(context.store)).values()
    assert table.num_rows == 5
    shard.stopping.set()
    await running
    assert not shard.is_finished


async def test_stopping_writes_what_is_buffered(lake: Lake) -> None:
    shard = ScriptedShard(records(5), is_closed=False)
    running = asyncio.create_task(lake.deliver(shard))
    await until(lambda: shard.read_count >= 2)
    shard.stopping.set()
    await running
    await assert_exactly(lake.store, {SHARD: shard.records})
    assert not shard.is_finished


async def test_files_are_made_beside_the_loop_that_sends_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    real = rows.convert

    def watched(*args: Any, **kwargs: Any) -> Any:
        threads.add(threading.current_thread())
        return real(*args, **kwargs)

    monkeypatch.setattr(planning, "convert", watched)
    await deliver(sink_config("lake"), tmp_path, ScriptedShard(records(300)))
    assert threads and threading.main_thread() not in threads


async def test_two_shards_share_one_schema(tmp_path: Path) -> None:
    context = await open_context(sink_config("lake"), tmp_path)
    shards = []
    for number in range(4):
        data = [json.dumps({"id": i, f"only-{number}": i}).encode() for i in range(50)]
        shards.append(
            ScriptedShard(make_records(data, shard=number), shard_id=f"shardId-{number:012d}")
        )
    await asyncio.gather(*(ShardDelivery(context, shard).run() for shard in shards))
    await assert_exactly(context.store, {shard.shard_id: shard.records for shard in shards})
    names = {column.name for column in context.schemas.current.columns}
    assert names == {"id", "only-0", "only-1", "only-2", "only-3"}
    assert context.budget.used_bytes == 0


# -- redo, races ----------------------------------------------------------------------------------


async def test_two_workers_on_one_shard_agree(lake: Lake) -> None:
    """Neither knows of the other, as when a lease is lost without being noticed."""
    shard = ScriptedShard(records(400), batch_records=37)
    others = [ScriptedShard(shard.records, batch_records=n) for n in (11, 37, 90)]
    await asyncio.gather(*(lake.deliver(one) for one in (shard, *others)))
    await assert_exactly(lake.store, {SHARD: shard.records})


async def test_a_plan_without_files_is_redone_with_its_own_boundaries_and_settings(
    lake: Lake, tmp_path: Path
) -> None:
    shard = ScriptedShard(records(40))
    await lake.deliver(shard)
    plan = await lake.log().plan(1)
    assert plan is not None
    other_base = tmp_path / "elsewhere"
    target = sink_config("lake", partition_by=["other"], compression="gzip", buffer={"size": 10})
    store = open_store(target, other_base)
    await store.open()
    await PlanLog(store, "access", SHARD).propose(plan)  # a worker died right after this
    await deliver(target, other_base, ScriptedShard(shard.records))
    assert list(await read_tables(store)) == [file.key for file in plan.files]
    done = await PlanLog(store, "access", SHARD).done(1)
    assert done is not None and done.files == plan.files, "the same bytes under the same name"


async def test_files_that_are_there_are_not_made_again(lake: Lake, tmp_path: Path) -> None:
    """A crash after the files and before the done entry, with the records gone since."""
    shard = ScriptedShard(records(40), is_closed=False)
    shard.stopping.set()
    shard.stopping.clear()
    shard.close()
    await lake.deliver(shard)
    plan = await lake.log().plan(1)
    assert plan is not None
    await lake.store.delete(f"_sink/access/{SHARD}/000000000001.done")
    again = ScriptedShard([], checkpoint_file=None)
    await lake.deliver(again)
    await assert_exactly(lake.store, {SHARD: shard.records})
    done = await lake.log().done(1)
    assert done is not None and done.state == "done"


# -- losses and alarms ---------------------------------------------------------------------------


async def test_records_that_expired_before_they_were_read_are_reported(lake: Lake) -> None:
    shard = ScriptedShard(records(20), is_closed=False)
    running = asyncio.create_task(lake.deliver(shard))
    await until(lambda: shard.read_count >= 2)
    shard.stopping.set()
    await running
    later = shard.restart()
    later.put(records(30, 21))
    later.expire(30)
    later.close()
    context = await deliver(lake.config, lake.base, later)
    (problem,) = context.troubles.current()
    assert "LOST" in problem and "retention" in problem
    plan = await lake.log().plan(2)
    assert plan is not None
    (gap,) = plan.lost
    assert gap.after == shard.records[19].sequence_number
    assert gap.before == later.records[0].sequence_number
    assert context.figures.lost_ranges == 1


async def test_a_plan_whose_records_expired_is_void_and_its_name_is_held(lake: Lake) -> None:
    shard = ScriptedShard(records(30))
    await lake.deliver(shard)
    plan = await lake.log().plan(1)
    assert plan is not None and plan.records == 30
    for key in (plan.files[0].key, f"_sink/access/{SHARD}/000000000001.done"):
        await lake.store.delete(key)  # as if the worker had died after the plan
    later = ScriptedShard(shard.records)
    later.expire(12)
    context = await deliver(lake.config, lake.base, later)
    await assert_exactly(lake.store, {SHARD: shard.records[12:]})
    log = lake.log()
    void, second = await log.done(1), await log.plan(2)
    assert void is not None and void.state == "void" and void.rows == 0
    assert second is not None and second.after is None
    assert [gap.before for gap in second.lost] == [shard.records[12].sequence_number]
    assert any("LOST" in problem for problem in context.troubles.current())
    held = await lake.store.head(plan.files[0].key)
    assert held is not None, "nobody can put the lost file under its name any more"


async def test_a_worker_that_holds_expired_records_delivers_them_under_the_next_number(
    lake: Lake,
) -> None:
    """Its plan was voided by another while it slept: its records are nowhere yet."""
    context = await open_context(lake.config, lake.base)
    shard = ScriptedShard(records(30), is_closed=False)
    delivery = ShardDelivery(context, shard)
    store = context.store
    original = store.put_if_absent

    async def slow_put(key: str, data: bytes, metadata: object) -> bool:
        if key.endswith("000000000001-0.parquet"):
            other = ScriptedShard([])
            await lake.deliver(other)  # the records have expired for the other one
        return await original(key, data, metadata)  # type: ignore[arg-type]

    store.put_if_absent = slow_put  # type: ignore[method-assign]
    running = asyncio.create_task(delivery.run())
    await until(lambda: shard.read_count >= 2)
    shard.close()
    await running
    await assert_exactly(lake.store, {SHARD: shard.records})
    log = lake.log()
    void, second = await log.done(1), await log.done(2)
    assert void is not None and void.state == "void"
    assert second is not None and second.state == "done"
    await store.close()


async def test_something_else_under_a_planned_name_stops_with_an_alarm(lake: Lake) -> None:
    shard = ScriptedShard(records(30))
    await lake.deliver(shard)
    plan = await lake.log().plan(1)
    assert plan is not None
    data = await lake.store.get(plan.files[0].key)
    assert data is not None
    for key in (plan.files[0].key, f"_sink/access/{SHARD}/000000000001.done"):
        await lake.store.delete(key)
    tampered = data[:-200] + bytes([data[-200] ^ 1]) + data[-199:]
    await lake.store.put_if_absent(plan.files[0].key, tampered, {})
    again = ScriptedShard(shard.records)
    context = await open_context(lake.config, lake.base)
    with pytest.raises(DeliveryError, match="is not the file that plan 1") as error:
        await ShardDelivery(context, again).run()
    assert not error.value.retryable
    (problem,) = context.troubles.current()
    assert "stopped" in problem and "move it away" in problem
    assert again.saved == []
    await lake.store.delete(plan.files[0].key)
    await ShardDelivery(context, again.restart()).run()
    assert context.troubles.current() == ()
    await assert_exactly(lake.store, {SHARD: shard.records})
    await context.store.close()


async def test_other_records_under_the_same_numbers_stop_with_an_alarm(lake: Lake) -> None:
    shard = ScriptedShard(records(30))
    await lake.deliver(shard)
    plan = await lake.log().plan(1)
    assert plan is not None
    for key in (plan.files[0].key, f"_sink/access/{SHARD}/000000000001.done"):
        await lake.store.delete(key)
    changed = [
        Record(b"{}", r.partition_key, r.sequence_number, r.approximate_arrival_ms)
        for r in shard.records
    ]
    with pytest.raises(DeliveryError, match="are not those that plan 1"):
        await lake.deliver(ScriptedShard(changed))


async def test_a_plan_log_that_vanished_stops_with_an_alarm(lake: Lake) -> None:
    shard = ScriptedShard(records(30))
    shard.checkpoint = shard.records[10].sequence_number
    with pytest.raises(DeliveryError, match=r"ahead of the plan log.*wrong disk"):
        await lake.deliver(shard)
    assert await read_tables(lake.store) == {}


async def test_a_hole_in_the_log_stops_with_an_alarm(lake: Lake) -> None:
    """Plan 2 was removed: its number is free, and 3 goes on from where 2 ended."""
    shard = ScriptedShard(records(200), batch_records=50)
    await lake.deliver(shard)
    for number in (2, 3):
        await lake.store.delete(f"_sink/access/{SHARD}/{number:012d}.plan")
    assert await lake.log().last_plan() == 1
    with pytest.raises(DeliveryError, match="ahead of the plan log"):
        await lake.deliver(ScriptedShard(shard.records, checkpoint=shard.saved[-1]))
    with pytest.raises(DeliveryError, match=r"begins after|is not the file that plan"):
        await lake.deliver(ScriptedShard(shard.records, batch_records=50))


async def test_a_damaged_plan_stops_with_an_alarm(lake: Lake) -> None:
    await lake.store.put_if_absent(f"_sink/access/{SHARD}/000000000001.plan", b"{}", {})
    with pytest.raises(DeliveryError, match=r"000000000001\.plan cannot be read"):
        await lake.deliver(ScriptedShard(records(3)))


# -- memory --------------------------------------------------------------------------------------


async def test_many_shards_stay_within_the_memory_of_one_sink(tmp_path: Path) -> None:
    limit = 16 * 1024 * 1024
    config = sink_config("lake", buffer={"size": "64MiB", "memory": limit})
    context = await open_context(config, tmp_path)
    data = [b"x" * 10_000] * 400
    shards = [
        ScriptedShard(make_records(data, shard=n), shard_id=f"shardId-{n:012d}", batch_records=20)
        for n in range(8)
    ]
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, context.budget.used_bytes)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(ShardDelivery(context, shard).run() for shard in shards))
    watching.cancel()
    assert limit <= most < limit + 8 * 20 * 10_400, "the limit, and a batch per shard on top"
    assert context.budget.used_bytes == 0
    await assert_exactly(context.store, {shard.shard_id: shard.records for shard in shards})
