"""What readers see: DuckDB and pyarrow take the folder for one table, at any moment."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from headrace.sinks.testing import ScriptedShard, make_records
from sinks_support import assert_exactly, deliver, open_context, sink_config

SHARD = "shardId-000000000000"

DRIFTING = [
    *(json.dumps({"id": i, "ms": i, "s": {"a": 1}}).encode() for i in range(60)),
    *(json.dumps({"id": i, "ms": i + 0.5, "s": {"a": 1, "b": "x"}}).encode() for i in range(60)),
    *(json.dumps({"id": i, "ms": "slow", "tags": []}).encode() for i in range(60)),
    *(json.dumps({"id": i, "new": True, "tags": ["x"], "s": 5}).encode() for i in range(60)),
    *(b"no json at all" for _ in range(60)),
]


@pytest.fixture
async def lake(tmp_path: Path) -> Path:
    """Some ten files over which types, members and columns drift."""
    shard = ScriptedShard(make_records(DRIFTING), batch_records=30)
    await deliver(sink_config("lake", buffer={"size": 1000}), tmp_path, shard)
    return tmp_path / "lake"


def test_pyarrow_reads_drifting_files_as_one_table(lake: Path) -> None:
    files = sorted(lake.rglob("*.parquet"))
    assert len(files) > 5
    assert ds.dataset(lake, format="parquet").to_table().num_rows == len(DRIFTING)
    newest = ds.dataset(lake, schema=pq.read_schema(files[-1]), format="parquet").to_table()
    assert newest.num_rows == len(DRIFTING)
    assert sum(newest.column("new").to_pylist().count(v) for v in (True,)) == 60
    types: dict[str, str] = {}
    for file in files:
        for field in pq.read_schema(file):
            known = types.setdefault(field.name, str(field.type))
            assert str(field.type).startswith(known.rstrip(">")), field.name


def test_duckdb_reads_drifting_files_as_one_table(lake: Path) -> None:
    counts = "count(*), count(distinct _sequence_number)"
    plain = duckdb.execute(f"select {counts} from '{lake}/**/*.parquet'").fetchall()
    assert plain == [(len(DRIFTING), len(DRIFTING))]
    table = f"read_parquet('{lake}/**/*.parquet', union_by_name = true)"
    whole = duckdb.execute(
        f"select sum(ms), count(*) filter (new), count(s.b), count(data), "
        f"count(_rest->>'ms'), epoch_ms(max(_arrival_time)) from {table}"
    ).fetchall()
    assert whole[0][:5] == (sum(range(60)), 60, 60, 60, 120)


async def test_a_reader_never_sees_a_half_or_a_double(tmp_path: Path) -> None:
    """It reads all the time while three workers race on one shard."""
    records = make_records([json.dumps({"id": i}).encode() for i in range(600)])
    context = await open_context(sink_config("lake"), tmp_path)
    looks = 0

    async def read_on() -> None:
        nonlocal looks
        while True:
            seen: list[str] = []
            for file in (tmp_path / "lake").rglob("*.parquet"):
                table = pq.read_table(io.BytesIO(file.read_bytes()))
                seen += table.column("_sequence_number").to_pylist()
            assert len(seen) == len(set(seen))
            looks += 1
            await asyncio.sleep(0)

    reading = asyncio.create_task(read_on())
    await asyncio.gather(
        *(
            deliver(sink_config("lake"), tmp_path, ScriptedShard(records, batch_records=n))
            for n in (20, 33, 50)
        )
    )
    assert not reading.done(), reading.exception()
    reading.cancel()
    assert looks > 5
    await assert_exactly(context.store, {SHARD: records})
