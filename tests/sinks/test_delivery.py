"""Delivery in one process, on real stores: buffers, plans, redo, races, memory."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from headrace.core.testing.manual_clock import ManualClock
from headrace.sinks import planning, rows
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.plan_log import PlanLog
from headrace.sinks.sink import open_store
from headrace.sinks.testing import ScriptedShard, make_records
from sinks_support import (
    SHARD,
    Lake,
    assert_exactly,
    deliver,
    open_context,
    read_tables,
    records,
    sink_config,
    until,
)


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
