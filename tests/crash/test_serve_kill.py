"""kill -9 of `headrace serve` under concurrent writers: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from conftest import boto3_kinesis
from headrace.core.client import StreamClient
from headrace.core.errors import HeadraceError
from headrace.core.model.records import ProducerStamp, PutEntry
from headrace.core.testing.server_process import ServerProcess

pytestmark = pytest.mark.crash

ROUNDS = int(os.environ.get("HEADRACE_CRASH_ROUNDS", "6"))
SEED = int(os.environ.get("HEADRACE_SEED", str(random.randrange(1 << 30))))


def read_everything(kinesis: Any, stream: str) -> dict[str, list[tuple[bytes, str]]]:
    """Every shard's (data, sequence number), through an unmodified boto3."""
    found: dict[str, list[tuple[bytes, str]]] = {}
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        rows = found[shard["ShardId"]] = []
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            rows += [(r["Data"], r["SequenceNumber"]) for r in answer["Records"]]
            if not answer["Records"] and not answer["MillisBehindLatest"]:
                break
            iterator = answer.get("NextShardIterator")
    return found


class Writer(threading.Thread):
    """Puts numbered records with boto3 until the server goes, remembering what was answered."""

    def __init__(self, endpoint: str, name: str, count: int) -> None:
        super().__init__(daemon=True)
        self.name = name
        self.acknowledged: list[tuple[bytes, str, str]] = []
        self._kinesis = boto3_kinesis(endpoint, read_timeout=20)
        self._next = count
        self.is_at_work = threading.Event()
        self.stopping = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(Exception):  # the server was killed: what it answered counts
            while not self.stopping.is_set():
                data = [b"%s:%d" % (self.name.encode(), self._next + i) for i in range(20)]
                self._next += 20
                answer = self._kinesis.put_records(
                    StreamName="s",
                    Records=[{"Data": d, "PartitionKey": d.decode()} for d in data],
                )
                assert answer["FailedRecordCount"] == 0
                self.acknowledged += [
                    (d, r["ShardId"], r["SequenceNumber"])
                    for d, r in zip(data, answer["Records"], strict=True)
                ]
                self.is_at_work.set()


def test_acknowledged_records_survive_kill_9_in_order_and_once(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"HEADRACE_SEED={SEED}")
    server = ServerProcess(tmp_path / "stream").start()
    boto3_kinesis(server.endpoint).create_stream(StreamName="s", ShardCount=3)
    acknowledged: list[tuple[bytes, str, str]] = []
    try:
        for round_no in range(ROUNDS):
            writers = [Writer(server.endpoint, f"w{n}", round_no * 1_000_000) for n in range(4)]
            for writer in writers:
                writer.start()
            for writer in writers:  # each at work, however slow the machine is
                assert writer.is_at_work.wait(30)
            threading.Event().wait(rng.uniform(0.2, 0.8))
            server.kill()
            for writer in writers:
                writer.stopping.set()
                writer.join(30)
                acknowledged += writer.acknowledged
            server.start()
            stored = read_everything(boto3_kinesis(server.endpoint), "s")
            check(acknowledged, stored)
    finally:
        server.kill()
    assert len(acknowledged) >= 4 * 20 * ROUNDS
    print(f"{len(acknowledged)} acknowledged records over {ROUNDS} kills, lost 0")


def check(
    acknowledged: list[tuple[bytes, str, str]], stored: dict[str, list[tuple[bytes, str]]]
) -> None:
    places = {(data, number): shard for shard, rows in stored.items() for data, number in rows}
    for data, shard, number in acknowledged:
        assert places.get((data, number)) == shard, f"seed {SEED}: {data!r} was acknowledged"
    for shard, rows in stored.items():
        numbers = [int(number) for _, number in rows]
        assert numbers == sorted(set(numbers)), f"seed {SEED}: {shard} is out of order"
        everything = [data for data, _ in rows]
        assert len(everything) == len(set(everything)), f"seed {SEED}: {shard} has a record twice"
        by_writer: dict[bytes, list[int]] = defaultdict(list)
        for data in everything:
            writer, _, count = data.partition(b":")
            by_writer[writer].append(int(count))
        for counts in by_writer.values():
            assert counts == sorted(counts), f"seed {SEED}: a writer's records changed places"


async def test_idempotent_producers_store_every_record_once_over_kills(tmp_path: Path) -> None:
    """Producers that send again whatever was not answered, with batch borders that move."""
    rng = random.Random(SEED)
    print(f"HEADRACE_SEED={SEED}")
    total = 4000
    server = ServerProcess(tmp_path / "stream").start()
    async with StreamClient(server.target) as client:
        await client.ensure_stream("s", shards=3)
    done = [0] * 3

    async def produce(n: int) -> None:
        """One idempotent producer: from the first unacknowledged record on, in random batches."""
        async with StreamClient(server.target, timeout_ms=5000) as client:
            while done[n] < total:
                upto = min(done[n] + rng.randint(1, 120), total)
                entries = [PutEntry(b"%d:%d" % (n, i), f"{n}-{i}") for i in range(done[n], upto)]
                stamp = ProducerStamp(f"producer-{n}", 0, range(done[n], upto))
                try:
                    results = await client.put_records("s", entries, producer=stamp)
                except HeadraceError:
                    await asyncio.sleep(0.02)
                    continue
                refused = (i for i, result in enumerate(results) if result.error_code is not None)
                done[n] += next(refused, len(results))

    async def reshard(round_no: int) -> None:
        """Split a random shard, so that the memory has to follow the hash range."""
        async with StreamClient(server.target) as client:
            shards = [s for s in await client.list_shards("s") if s.is_open]
            shard = rng.choice(shards)
            at = (shard.hash_key_range.start + shard.hash_key_range.end) // 2
            with contextlib.suppress(HeadraceError):
                await client.call(
                    "SplitShard",
                    {
                        "StreamName": "s",
                        "ShardToSplit": shard.shard_id,
                        "NewStartingHashKey": str(at),
                    },
                )

    producers = [asyncio.create_task(produce(n)) for n in range(3)]
    try:
        for round_no in range(ROUNDS):
            await asyncio.sleep(rng.uniform(0.1, 0.4))
            if round_no % 2:
                await reshard(round_no)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await asyncio.wait_for(asyncio.gather(*producers), 120)
        stored = await asyncio.to_thread(read_everything, boto3_kinesis(server.endpoint), "s")
    finally:
        server.kill()
    everything = sorted(data for rows in stored.values() for data, _ in rows)
    want = sorted(b"%d:%d" % (n, i) for n in range(3) for i in range(total))
    assert everything == want, f"seed {SEED}"
