"""The part against a real `headrace serve`: processes, kills, shards that split, both stores."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.core.client import StreamClient
from headrace.core.model.records import PutEntry
from headrace.core.part import PartContext
from headrace.core.producer import Producer
from headrace.core.testing.server_process import ServerProcess
from headrace.sinks.budget import RECORD_OVERHEAD_BYTES
from headrace.sinks.config import SinkConfig
from headrace.sinks.part import SinksPart
from headrace.sinks.sink import open_store
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.verify import verify
from sinks_support import Bucket, read_tables, until

STREAM = "access"


@dataclass
class Pipe:
    """A stream, a sink's section, and a handle on its target."""

    server: ServerProcess
    client: StreamClient
    section: list[dict[str, Any]]
    base: Path
    store: ObjectStore

    def part(self) -> SinksPart:
        config = [SinkConfig.model_validate(entry) for entry in self.section]
        context = PartContext(
            data=self.base / "data" / "sinks", base=self.base, target=self.server.target
        )
        return SinksPart(config, context)

    async def process(self) -> asyncio.subprocess.Process:
        """`headrace sinks FILE`, as anybody would start it."""
        file = self.base / "sinks.yaml"
        values = {
            "data": "./data",
            "stream": {"endpoint": self.server.endpoint},
            "sinks": self.section,
        }
        file.write_text(yaml.safe_dump(values))
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.pipeline",
            "sinks",
            str(file),
            stderr=asyncio.subprocess.PIPE,
        )

    async def put(self, ids: Sequence[int]) -> None:
        await Producer(self.client, STREAM).put_batch([self.entry(i) for i in ids])

    @staticmethod
    def entry(i: int) -> PutEntry:
        return PutEntry(json.dumps({"id": i, "path": f"/{i}"}).encode(), f"key-{i}")

    async def landed(self) -> list[int]:
        tables = await read_tables(self.store)
        return sorted(i for table in tables.values() for i in table.column("id").to_pylist())

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(120):
            while len(await self.landed()) < count:  # noqa: ASYNC110 - the files are elsewhere
                await asyncio.sleep(0.2)


@pytest.fixture(params=["folder", "bucket"])
async def pipe(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    client: StreamClient,
    bucket: Bucket,
    tmp_path: Path,
) -> AsyncIterator[Pipe]:
    await client.ensure_stream(STREAM, shards=2)
    entry: dict[str, Any] = {
        "stream": STREAM,
        "to": "./lake/access/" if request.param == "folder" else bucket.url,
        "buffer": {"size": "20KiB", "interval": "500ms"},
    }
    if request.param == "bucket":
        entry["s3"] = {
            "endpoint": bucket.endpoint,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
        }
    store = open_store(SinkConfig.model_validate(entry), tmp_path)
    await store.open()
    yield Pipe(server, client, [entry], tmp_path, store)
    await store.close()


async def test_records_become_parquet_and_health_tells(pipe: Pipe) -> None:
    part = pipe.part()
    running = asyncio.create_task(part.run())
    await pipe.put(range(3000))
    await pipe.wait_for(3000)
    # what is buffered is let go of when the checkpoint is saved, after the rows are counted
    await until(lambda: part.health().figures["rows"] == 3000)
    await until(lambda: part.health().figures["buffered_bytes"] == 0)
    health = part.health()
    assert health.ok and health.problems == ()
    assert health.figures["files"] == len(await read_tables(pipe.store))
    assert health.figures["bytes"] != 0
    await part.stop()
    await running
    assert await pipe.landed() == list(range(3000))
    report = await verify(pipe.store)
    assert report.is_proven and report.rows == 3000


async def test_stopping_writes_what_is_buffered(pipe: Pipe) -> None:
    pipe.section[0]["buffer"] = {"size": "64MiB", "interval": "1h"}
    await pipe.put(range(500))
    part = pipe.part()
    running = asyncio.create_task(part.run())
    entries = [Pipe.entry(i) for i in range(500)]
    whole = sum(len(e.data) + len(e.partition_key) + RECORD_OVERHEAD_BYTES for e in entries)
    await until(lambda: part.health().figures["buffered_bytes"] == whole)
    assert await pipe.landed() == []
    await part.stop()
    await running
    assert await pipe.landed() == list(range(500))


async def test_the_command_drains_on_sigterm_and_goes_on_where_it_was(pipe: Pipe) -> None:
    count = 0
    for _ in range(2):
        await pipe.put(range(count, count + 500))
        count += 500
        process = await pipe.process()
        await pipe.wait_for(count)
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, log.decode()
    assert await pipe.landed() == list(range(count))
    assert not [path for path in pipe.base.rglob("*.tmp") if "lake" in path.parts]
    assert (await verify(pipe.store)).is_proven


@pytest.mark.crash
async def test_killed_in_the_middle_again_and_again(pipe: Pipe) -> None:
    count = 0
    for _ in range(3):
        process = await pipe.process()
        for _ in range(4):
            await pipe.put(range(count, count + 300))
            count += 300
            await asyncio.sleep(0.7)
        process.kill()
        await process.communicate()
    process = await pipe.process()
    await pipe.wait_for(count)
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert await pipe.landed() == list(range(count))
    report = await verify(pipe.store)
    assert report.is_proven and report.rows == count


@pytest.mark.crash
async def test_the_stream_is_killed_under_it(pipe: Pipe) -> None:
    part = pipe.part()
    running = asyncio.create_task(part.run())
    await pipe.put(range(1000))
    await pipe.wait_for(1)
    pipe.server.kill()
    await until(lambda: part.health().problems)
    assert not part.health().ok
    pipe.server.start()
    await pipe.put(range(1000, 2000))
    await pipe.wait_for(2000)
    await until(lambda: part.health().ok)
    await part.stop()
    await running
    assert await pipe.landed() == list(range(2000))
    assert (await verify(pipe.store)).is_proven


async def test_two_workers_share_the_shards_and_take_over(pipe: Pipe) -> None:
    first, second = pipe.part(), pipe.part()
    running = [asyncio.create_task(part.run()) for part in (first, second)]
    await pipe.put(range(2000))
    await pipe.wait_for(2000)
    await first.stop()
    await pipe.put(range(2000, 3000))
    await pipe.wait_for(3000)
    await second.stop()
    await asyncio.gather(*running)
    assert await pipe.landed() == list(range(3000))
    assert (await verify(pipe.store)).is_proven


async def test_shards_split_and_merge_under_way(pipe: Pipe) -> None:
    part = pipe.part()
    running = asyncio.create_task(part.run())
    await pipe.put(range(1000))
    await pipe.client.call(
        "UpdateShardCount",
        {"StreamName": STREAM, "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"},
    )
    await pipe.client.wait_active(STREAM)
    await pipe.put(range(1000, 2000))
    await pipe.client.call(
        "UpdateShardCount",
        {"StreamName": STREAM, "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"},
    )
    await pipe.client.wait_active(STREAM)
    await pipe.put(range(2000, 3000))
    await pipe.wait_for(3000)
    await part.stop()
    await running
    assert await pipe.landed() == list(range(3000))
    report = await verify(pipe.store)
    assert report.is_proven and len(report.shards) > 2


async def test_a_target_that_is_away_does_not_hold_up_the_other(pipe: Pipe) -> None:
    wrong = {
        "stream": STREAM,
        "to": "s3://no-such-bucket-at-all/",
        "s3": {"endpoint": "http://127.0.0.1:9", "access_key_id": "x", "secret_access_key": "x"},
    }
    pipe.section.append(wrong)
    part = pipe.part()
    running = asyncio.create_task(part.run())
    await pipe.put(range(500))
    await pipe.wait_for(500)
    await until(lambda: any("no-such-bucket-at-all" in text for text in part.health().problems))
    assert not part.health().ok
    await asyncio.wait_for(part.stop(), 40)
    await running
    assert await pipe.landed() == list(range(500))


async def test_the_example_configuration_runs_as_it_is(
    server: ServerProcess, client: StreamClient, tmp_path: Path
) -> None:
    example = Path(__file__).parents[2] / "configs" / "sinks.yaml"
    file = tmp_path / "sinks.yaml"
    file.write_text(example.read_text())
    await client.ensure_stream("access", shards=1)
    await Producer(client, "access").put_batch([PutEntry(b'{"status":200}', "k")])
    lake = tmp_path / "lake"
    for _ in range(5):  # a slow machine may be asked to stop before it has read anything
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.pipeline",
            "sinks",
            str(file),
            env={**os.environ, "HEADRACE_ENDPOINT": server.endpoint},
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        log = b""
        while b"has shardId-" not in log:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, log.decode()
            log += line
        await asyncio.sleep(1)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        if list(lake.rglob("*.parquet")):
            break
    assert len(list(lake.rglob("*.parquet"))) == 1
