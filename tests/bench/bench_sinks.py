"""How fast records become Parquet, beside what pyarrow alone does with the same bytes.

    python -m tests.bench sinks

Each line is the best of several runs in one process, interleaved, so that a busy machine hits all
alike; read the ratios. `pyarrow` is read_json of the joined lines plus write_table, which knows
nothing of sequence numbers, drift or lossless integers.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from headrace.core.clock import SystemClock
from headrace.core.model.records import Record
from headrace.core.troubles import Troubles
from headrace.sinks import parquet, rows_slow
from headrace.sinks.config import SinkConfig
from headrace.sinks.context import SinkContext
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.rows import convert, observe
from headrace.sinks.schema import TableSchema
from headrace.sinks.sink import open_store
from headrace.sinks.testing import ScriptedShard, make_records

RECORDS = 250_000
RUNS = 5
SEED = 1


def access_log(count: int) -> list[bytes]:
    """Lines as a web server's JSON log has them, some 210 bytes each."""
    chance = random.Random(SEED)
    return [
        json.dumps(
            {
                "time": f"2026-11-22T16:{i // 60 % 60:02d}:{i % 60:02d}Z",
                "remote": f"10.0.{i % 255}.{i % 7}",
                "method": "GET",
                "path": f"/item/{chance.randrange(10_000)}",
                "status": chance.choice((200, 200, 200, 404)),
                "bytes": chance.randrange(100_000),
                "ms": chance.random() * 100,
                "agent": f"Mozilla/5.0 (X11; Linux x86_64) {i % 50}",
            }
        ).encode()
        for i in range(count)
    ]


def main() -> None:
    data = access_log(RECORDS)
    records = make_records(data)
    size_mb = sum(map(len, data)) / 1e6
    schema = TableSchema()
    schema = schema.grown(observe(records[:1000], schema))
    table = convert(records, "shardId-000000000000", schema).table
    footer = parquet.Footer(
        plan="p", sink="s", stream="s", shard="s", number=1, first="1", last="2",
        rows=RECORDS, schema="f", is_void=False, writer="w",
    )  # fmt: skip
    dirty = make_records([item if i % 1000 else b'{"status":"odd"}' for i, item in enumerate(data)])

    def plain_pyarrow() -> None:
        plain = pj.read_json(pa.BufferReader(b"\n".join(data)))
        pq.write_table(plain, io.BytesIO(), compression="zstd")

    tasks: dict[str, Callable[[], object]] = {
        "pyarrow: read_json + write_table": plain_pyarrow,
        "records -> table": lambda: convert(records, "s", schema),
        "table -> Parquet, zstd": lambda: parquet.write(table, footer, compression="zstd"),
        "table -> Parquet, snappy": lambda: parquet.write(table, footer, compression="snappy"),
        "delivered to a folder, plan log and all": lambda: deliver(records),
        "records -> table, 1 in 1000 does not fit": lambda: convert(dirty, "s", schema),
        "records -> table, record by record": lambda: rows_slow.read(data, schema, {}),
    }
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(RUNS):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            best[name] = min(best[name], time.perf_counter() - started)
    limit_s = best["pyarrow: read_json + write_table"]
    print(f"{platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}")
    print(f"{RECORDS} records, {size_mb:.0f} MB, seed {SEED}, best of {RUNS}")
    for name, seconds in best.items():
        print(f"{name:45} {size_mb / seconds:7.0f} MB/s   {limit_s / seconds:5.2f} of pyarrow")


def deliver(records: list[Record]) -> None:
    """All of a shard into a folder, files of 16 MiB."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_deliver(records, Path(folder)))


async def _deliver(records: list[Record], folder: Path) -> None:
    config = SinkConfig.model_validate(
        {"stream": "access", "to": "lake", "buffer": {"size": "16MiB"}}
    )
    store = open_store(config, folder)
    await store.open()
    clock = SystemClock()
    troubles = Troubles(logging.getLogger("headrace.sinks"), clock)
    context = SinkContext(config, store, clock=clock, troubles=troubles)
    await context.schemas.open()
    await ShardDelivery(context, ScriptedShard(records, batch_records=10_000)).run()


if __name__ == "__main__":
    main()
