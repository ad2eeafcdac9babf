"""Finding the end of a log, agreeing on columns, files by another version of the writer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import DeliveryError
from headrace.sinks import parquet
from headrace.sinks.json_types import INT64, STRING
from headrace.sinks.plan import decode_plan, encode
from headrace.sinks.plan_log import PlanLog, SchemaLog, last_number
from headrace.sinks.schema import TableSchema
from headrace.sinks.testing import ScriptedShard, make_records
from sinks_support import assert_exactly, deliver, open_context, sink_config

SHARD = "shardId-000000000000"


@given(last=st.integers(0, 5_000_000), back=st.integers(0, 100))
def test_the_end_of_a_log_is_found_in_few_looks(last: int, back: int) -> None:
    looks = 0

    async def exists(number: int) -> bool:
        nonlocal looks
        looks += 1
        assert number >= 1
        return number <= last

    assert asyncio.run(last_number(exists)) == last
    assert looks <= 2 * last.bit_length() + 2
    assert asyncio.run(last_number(exists, max(0, last - back))) == last


async def test_many_who_grow_the_columns_at_once_end_with_one_schema(tmp_path: Path) -> None:
    context = await open_context(sink_config("lake"), tmp_path)
    logs = [SchemaLog(context.store, "access") for _ in range(6)]
    seen = [{f"c{i}": INT64, "both": INT64 if i % 2 else STRING} for i in range(len(logs))]
    await asyncio.gather(*(log.grow(s) for log, s in zip(logs, seen, strict=True)))
    final = [await log.refresh() for log in logs]
    assert all(schema == final[0] for schema in final)
    assert {column.key for column in final[0].columns} == {*(f"c{i}" for i in range(6)), "both"}
    before = TableSchema()
    for version in range(1, final[0].version + 1):
        data = await context.store.get(f"_sink/access/schema/{version:012d}.json")
        assert data is not None
        schema = TableSchema.from_json(json.loads(data))
        assert all(schema.by_key[c.key] == c for c in before.columns), "nothing ever changes"
        before = schema


async def _one_plan(tmp_path: Path) -> tuple[ScriptedShard, PlanLog]:
    shard = ScriptedShard(make_records([b'{"a":1}'] * 30))
    context = await deliver(sink_config("lake"), tmp_path, shard)
    return shard, PlanLog(context.store, "access", SHARD)


async def test_a_plan_is_readable_and_reads_back(tmp_path: Path) -> None:
    _, log = await _one_plan(tmp_path)
    plan = await log.plan(1)
    assert plan is not None
    assert decode_plan(encode(plan), "x") == plan
    text = json.loads((tmp_path / f"lake/_sink/access/{SHARD}/000000000001.plan").read_text())
    assert text["settings"]["partition_by"] == ["!{timestamp:yyyy/MM/dd/HH}"]
    assert text["table"]["columns"] == [{"key": "a", "name": "a", "type": "int64"}]
    newer = msgspec.structs.replace(plan, format=2)
    with pytest.raises(DeliveryError, match="format 2"):
        decode_plan(encode(newer), "x")


async def test_an_upgrade_between_plan_and_redo_is_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the writer may make other bytes of the same rows."""
    shard, log = await _one_plan(tmp_path)
    plan = await log.plan(1)
    assert plan is not None
    (file,) = (tmp_path / "lake").rglob("*.parquet")
    (done,) = (tmp_path / "lake").rglob("*.done")
    file.unlink()
    done.unlink()
    monkeypatch.setattr(parquet, "writer", lambda: "headrace 99")
    await deliver(sink_config("lake"), tmp_path, ScriptedShard(shard.records))
    made = await log.done(1)
    assert made is not None and made.files[0].sha256 != plan.files[0].sha256
    done.unlink()
    await deliver(sink_config("lake"), tmp_path, ScriptedShard(shard.records))
    again = await log.done(1)
    assert again is not None and again.files == made.files
    context = await open_context(sink_config("lake"), tmp_path)
    await assert_exactly(context.store, {SHARD: shard.records})


async def test_a_file_tells_its_plan_so_the_log_could_be_rebuilt(tmp_path: Path) -> None:
    shard, log = await _one_plan(tmp_path)
    plan = await log.plan(1)
    (file,) = (tmp_path / "lake").rglob("*.parquet")
    footer = parquet.read_footer(file.read_bytes())
    assert plan is not None and footer is not None
    assert (footer.plan, footer.number, footer.shard) == (plan.id, 1, SHARD)
    assert (footer.first, footer.last) == (plan.first, plan.last)
    assert (footer.rows, footer.is_void, footer.stream) == (len(shard.records), False, "access")
