"""What is gone, or is not what it was: records, plans, files. Delivery says so, or stops."""

from __future__ import annotations

import asyncio

import pytest

from headrace.core.errors import DeliveryError
from headrace.core.model.records import Record
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.testing import ScriptedShard
from sinks_support import (
    SHARD,
    Lake,
    assert_exactly,
    deliver,
    open_context,
    read_tables,
    records,
    until,
)


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
