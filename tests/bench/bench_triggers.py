"""What the process boundary costs: batches through a worker beside the same call in-process.

Three ways to run one function on the same batches of 100 records of 200 bytes of JSON:

- in-process: the event is decoded and the function called, in this process
- worker: the encoded event goes to a warm worker process, the answer comes back
- runner: records from a shard in memory are encoded, batched, invoked, saved; two shards beside
  each other, each with a worker, show what another core brings

Rounds alternate between the ways; the best round of each counts.

    python -m tests.bench triggers [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from headrace.core.client import StreamClient
from headrace.core.clock import SystemClock
from headrace.core.part import StreamTarget
from headrace.core.retry import Backoff
from headrace.core.troubles import Troubles
from headrace.triggers.config import BatchConfig
from headrace.triggers.event import Batch, EventSource
from headrace.triggers.function import FunctionFile
from headrace.triggers.invoke import Function
from headrace.triggers.outbox import Outlet
from headrace.triggers.protocol import Invoke, Start
from headrace.triggers.runner import ShardRunner, TriggerTools
from headrace.triggers.stats import TriggerStats
from headrace.triggers.testing import MemoryLease
from headrace.triggers.worker_pool import WorkerPool

BATCH = 100
FUNCTION = """
import base64, json

def handler(event, context):
    total = 0
    for record in event["Records"]:
        total += len(json.loads(base64.b64decode(record["kinesis"]["data"]))["agent"])
    return total
"""
ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/bench"
SOURCE = EventSource(
    ARN, "shardId-000000000000", "arn:aws:iam::123456789012:role/bench", "us-east-1"
)


def contents(count: int) -> list[bytes]:
    """JSON lines of about 200 bytes."""
    return [
        json.dumps({"n": n, "request": f"GET /page/{n % 97} HTTP/1.1", "agent": "x" * 140}).encode()
        for n in range(count)
    ]


def pool_of(file: Path, size: int) -> WorkerPool:
    start = Start(
        file=str(file),
        attribute="handler",
        function_name="bench",
        function_arn="arn:aws:lambda:us-east-1:123456789012:function:bench",
        source_stream="bench",
        memory_bytes=None,
    )
    return WorkerPool(FunctionFile(file), start, size=size, region="us-east-1")


async def invoke(pool: WorkerPool, event: bytes) -> None:
    await pool.invoke(Invoke("id", event, 60_000), on_start=lambda _version: None)


async def in_process(file: Path, count: int) -> float:
    spec = importlib.util.spec_from_file_location("bench_function", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    event = bench_event()
    began = time.perf_counter()
    for _ in range(count):
        module.handler(json.loads(event), None)
    return time.perf_counter() - began


async def worker(file: Path, count: int) -> float:
    pool = pool_of(file, 1)
    event = bench_event()

    await invoke(pool, event)  # the start of the process is not what is measured
    began = time.perf_counter()
    for _ in range(count):
        await invoke(pool, event)
    duration_s = time.perf_counter() - began
    await pool.close()
    return duration_s


async def runner(file: Path, count: int, *, shards: int = 1) -> float:
    pool = pool_of(file, shards)
    clock = SystemClock()
    client = StreamClient(StreamTarget())
    tools = TriggerTools(
        function=Function(
            trigger="bench",
            arn="arn:aws:lambda:us-east-1:123456789012:function:bench",
            pool=pool,
            timeout_ms=60_000,
            retries=0,
            reports_item_failures=False,
        ),
        file=FunctionFile(file),
        batch=BatchConfig(size=BATCH),
        letters=file.parent / "letters",
        outlet=Outlet(client, "bench", clock),
        stats=TriggerStats(),
        troubles=Troubles(logging.getLogger("bench"), clock),
        clock=clock,
        backoff=Backoff(),
    )
    leases = [MemoryLease(shard_id=f"shardId-{n:012d}") for n in range(shards)]
    data = contents(BATCH * count // shards)
    for lease in leases:
        lease.put(*data)
        lease.end()
    event = bench_event()
    await asyncio.gather(*(invoke(pool, event) for _ in leases))  # start the processes
    began = time.perf_counter()
    works = [ShardRunner(lease, SOURCE, "bench", tools).run() for lease in leases]
    await asyncio.gather(*works)
    duration_s = time.perf_counter() - began
    await pool.close()
    await client.close()
    return duration_s


def bench_event() -> bytes:
    lease = MemoryLease()
    return Batch(tuple(map(SOURCE.encode, lease.put(*contents(BATCH))))).event()


async def run(count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "function.py"
        file.write_text(FUNCTION)
        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "in-process": lambda: in_process(file, count),
            "worker": lambda: worker(file, count),
            "runner, 1 shard": lambda: runner(file, count),
            "runner, 2 shards": lambda: runner(file, count, shards=2),
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(rounds):
            for name, way in ways.items():
                best[name] = min(best[name], await way())
        print(f"{count} batches of {BATCH} records, event of {len(bench_event()):,} bytes")
        for name, duration_s in best.items():
            print(
                f"{name:18} {count / duration_s:9,.0f} invocations/s "
                f"{count * BATCH / duration_s:11,.0f} records/s "
                f"{best['in-process'] / duration_s:6.2f} of in-process"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the batches")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(300 if options.quick else 3_000, 3))


if __name__ == "__main__":
    main()
