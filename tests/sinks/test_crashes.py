"""kill -9 at every step of the protocol, at random, and while another works: nothing is lost.

The oracle is always the same: all Parquet files below the target are read, and each sequence
number of the stream is there exactly once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.sinks import crash_points
from headrace.sinks.config import S3Config, SinkConfig
from headrace.sinks.plan_log import PlanLog
from headrace.sinks.sink import open_store
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.testing import CRASH_POINTS, Fault, FaultProxy
from sinks_child import big_records, scripted_records
from sinks_support import Bucket, assert_exactly, until

SHARD = "shardId-000000000000"
RECORDS = 300
CHILD = Path(__file__).parent.parent / "sinks_child.py"

pytestmark = pytest.mark.crash


@dataclass
class Target:
    """Where the killed workers write, and a handle to look at it."""

    section: dict[str, Any]
    base: Path
    store: ObjectStore

    async def start(self, *, crash_at: str = "", records: int = RECORDS, **spec: Any) -> Worker:
        whole = {
            "config": self.section,
            "base": str(self.base),
            "checkpoint": str(self.base / "checkpoint"),
            "records": records,
            **spec,
        }
        tests = str(CHILD.parent)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHILD),
            json.dumps(whole),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                crash_points.VARIABLE: crash_at,
                "PYTHONPATH": os.pathsep.join([tests, os.environ["PYTHONPATH"]]),
            },
        )
        return Worker(process)

    async def run(self, **spec: Any) -> int:
        worker = await self.start(**spec)
        return await worker.end()

    async def assert_exactly(self, records: int = RECORDS) -> None:
        await assert_exactly(self.store, {SHARD: scripted_records(records)})
        keys = [key async for key in self.store.list_from("_sink/")]
        plans = [key.removesuffix(".plan") for key in keys if key.endswith(".plan")]
        assert plans == [key.removesuffix(".done") for key in keys if key.endswith(".done")]

    def leftovers(self) -> list[Path]:
        return [path for path in self.base.rglob("*") if path.name.endswith(".tmp")]


@dataclass
class Worker:
    process: asyncio.subprocess.Process

    async def end(self) -> int:
        ending = asyncio.create_task(self.process.communicate())
        done, _ = await asyncio.wait({ending}, timeout=300)
        if not done:
            self.process.kill()
        _, errors = await ending
        code = self.process.returncode
        assert done, f"the worker did not end in 300 s, and said: {errors.decode()}"
        assert code is not None
        assert code in (0, -signal.SIGKILL), f"exit code {code}: {errors.decode()}"
        return code

    async def ready(self) -> None:
        assert self.process.stdout is not None
        assert await self.process.stdout.readline() == b"ready\n"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def _section(to: str, s3: S3Config | None = None) -> dict[str, Any]:
    section: dict[str, Any] = {
        "stream": "access",
        "to": to,
        "name": "access",
        "buffer": {"size": 2000},
    }
    if s3 is not None:
        section["s3"] = {
            "endpoint": s3.endpoint,
            "region": s3.region,
            "access_key_id": "test",
            "secret_access_key": "test",
        }
    return section


async def _target(section: dict[str, Any], base: Path) -> Target:
    store = open_store(SinkConfig.model_validate(section), base)
    await store.open()
    return Target(section, base, store)


@pytest.fixture
async def folder(tmp_path: Path) -> Target:
    return await _target(_section("lake"), tmp_path)


@pytest.fixture(params=["folder", "bucket"])
async def target(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket
) -> AsyncIterator[Target]:
    section = _section("lake") if request.param == "folder" else _section(bucket.url, bucket.config)
    made = await _target(section, tmp_path)
    yield made
    await made.store.close()


_LOCAL_ONLY = ("temporary-written", "linked")


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("point", [p for p in CRASH_POINTS if p not in _LOCAL_ONLY])
async def test_killed_at_a_step_of_the_protocol(point: str, count: int, target: Target) -> None:
    assert await target.run(crash_at=f"{point}:{count}") == -signal.SIGKILL
    assert await target.run() == 0
    await target.assert_exactly()
    assert target.leftovers() == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("point", _LOCAL_ONLY)
async def test_killed_while_a_local_file_is_put_in_place(
    point: str, count: int, folder: Target
) -> None:
    """1 is a schema; then plan, file and done of one plan after the other."""
    assert await folder.run(crash_at=f"{point}:{count}") == -signal.SIGKILL
    assert len(folder.leftovers()) == 1
    assert await folder.run() == 0
    await folder.assert_exactly()
    assert folder.leftovers() == []


async def test_killed_again_in_the_middle_of_every_redo(target: Target) -> None:
    for point in ("after-plan", "after-file", "after-files", "after-done"):
        assert await target.run(crash_at=point) == -signal.SIGKILL
    assert await target.run() == 0
    await target.assert_exactly()


async def test_killed_at_random_again_and_again(target: Target) -> None:
    await _kill_at_random(target, kills=6, records=RECORDS)


@pytest.mark.slow
async def test_killed_at_random_a_hundred_times(target: Target) -> None:
    target.section["buffer"] = {"size": 20_000}
    await _kill_at_random(target, kills=100, records=50_000)


async def _kill_at_random(target: Target, *, kills: int, records: int) -> None:
    seed = int(os.environ.get("HEADRACE_SEED", time.time_ns() % 1_000_000))
    print(f"HEADRACE_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(kills):
        worker = await target.start(records=records)
        await worker.ready()
        await asyncio.sleep(chance.random() * 0.4)
        if worker.process.returncode is None:
            worker.send(signal.SIGKILL)
        await worker.end()
    assert await target.run(records=records) == 0
    await target.assert_exactly(records)
    assert target.leftovers() == []


async def test_sigterm_writes_what_is_buffered_and_leaves_no_rest(target: Target) -> None:
    worker = await target.start(is_closed=False)
    await worker.ready()
    store, checkpoint = target.store, target.base / "checkpoint"
    await until(checkpoint.exists)
    started = time.monotonic()
    worker.send(signal.SIGTERM)
    assert await worker.end() == 0
    assert time.monotonic() - started < 20
    log = PlanLog(store, "access", SHARD)
    plan = await log.plan(await log.last_plan())
    assert plan is not None and json.loads(checkpoint.read_text()) == plan.last
    assert target.leftovers() == []
    assert await target.run() == 0
    await target.assert_exactly()


async def test_killed_while_it_flushes_after_sigterm(folder: Target) -> None:
    worker = await folder.start(is_closed=False, crash_at="after-plan:6")
    await worker.ready()
    await until((folder.base / "checkpoint").exists)
    worker.send(signal.SIGTERM)
    await worker.end()
    assert await folder.run() == 0
    await folder.assert_exactly()
    assert folder.leftovers() == []


async def test_a_zombie_wakes_up_in_the_middle_of_its_plan(target: Target) -> None:
    """Stopped at any moment, replaced by another worker, then let go on: all files agree."""
    chance = random.Random(7)
    for _ in range(4):
        zombie = await target.start(is_closed=True)
        await zombie.ready()
        await asyncio.sleep(chance.random() * 0.3)
        if zombie.process.returncode is None:
            zombie.send(signal.SIGSTOP)
        other = await target.start(crash_at=f"after-done:{chance.randint(1, 3)}")
        await other.end()
        if zombie.process.returncode is None:
            zombie.send(signal.SIGCONT)
        await zombie.end()
    assert await target.run() == 0
    await target.assert_exactly()


async def test_workers_that_race_and_are_killed(target: Target) -> None:
    chance = random.Random(11)
    for _ in range(3):
        points = [chance.choice(CRASH_POINTS[:5]) for _ in range(3)]
        workers = [
            await target.start(crash_at=f"{point}:{chance.randint(1, 4)}") for point in points
        ]
        await asyncio.gather(*(worker.end() for worker in workers))
    assert await target.run() == 0
    await target.assert_exactly()


# -- kills while a request is under way ------------------------------------------------------------


@pytest.mark.parametrize("what", [".plan", ".parquet", ".done", "schema"])
@pytest.mark.parametrize("kind", ["hold", "lose-reply"])
async def test_killed_while_a_put_is_on_its_way(
    what: str, kind: Any, bucket: Bucket, tmp_path: Path
) -> None:
    """The worker never hears whether its object was put; with `lose-reply` it was."""
    async with FaultProxy(bucket.endpoint) as proxy:
        config = bucket.config.model_copy(update={"endpoint": proxy.endpoint})
        target = await _target(_section(bucket.url, config), tmp_path)
        fault = proxy.add(
            Fault(kind, lambda method, path: method == "PUT" and what in path, times=1)
        )
        after = proxy.add(Fault("hold", lambda method, path: fault.hits > 0, times=None))
        worker = await target.start()
        await until(lambda: fault.held.is_set() or after.held.is_set())
        worker.send(signal.SIGKILL)
        await worker.end()
        assert fault.hits == 1
        proxy.faults.clear()
        fault.release.set()
        assert await target.run() == 0
        await target.assert_exactly()
        await target.store.close()


async def test_killed_in_the_middle_of_a_multipart_upload(bucket: Bucket, tmp_path: Path) -> None:
    async with FaultProxy(bucket.endpoint) as proxy:
        config = bucket.config.model_copy(update={"endpoint": proxy.endpoint})
        target = await _target(_section(bucket.url, config), tmp_path)
        target.section["buffer"] = {"size": "32MiB"}
        worker = await target.start(is_big=True)
        held = proxy.add(Fault("hold", lambda _, path: "partNumber=2" in path, times=None))
        await until(held.held.is_set)
        worker.send(signal.SIGKILL)
        await worker.end()
        client = bucket.boto3()
        assert client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
        proxy.faults.clear()
        assert await target.run(is_big=True) == 0
        assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket.name)
        client.close()
        await assert_exactly(target.store, {SHARD: big_records()})
        await target.store.close()
