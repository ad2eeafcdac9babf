"""On-demand streams scale by themselves, and nobody who puts or reads notices."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from base64 import b64decode
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from api_support import boto3_client, hash_range, server_here, shards_of
from headrace.core.client import StreamClient
from headrace.core.errors import ResourceInUse
from headrace.core.model.hashing import MAX_HASH_KEY
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.server import Server
from headrace.core.service.metering import MeteringOptions
from headrace.core.testing.manual_clock import ManualClock

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
QUICK = MeteringOptions(flush_ms=1000, minute_ms=1000, idle_ms=1000)  # a minute is a second


class World:
    """A server on a clock by hand, one on-demand stream, one who puts and one who reads."""

    def __init__(self, data: Path, **config: Any) -> None:
        self.clock = ManualClock(1_790_000_000_000)
        self._data = data
        self._config = {"metering": QUICK, "on_demand_max_shards": 24, **config}
        self._stack = AsyncExitStack()
        self.server: Server
        self.client: StreamClient
        self.put_count: defaultdict[str, int] = defaultdict(int)
        self.read_count: defaultdict[str, int] = defaultdict(int)
        self._last: dict[str, str] = {}  # shard -> the last sequence number read
        self._finished: set[str] = set()

    async def __aenter__(self) -> World:
        await self.start()
        mode = {"StreamMode": "ON_DEMAND"}
        await self.client.call("CreateStream", {"StreamName": "s", "StreamModeDetails": mode})
        await self.clock.advance(5_000)  # the delay, where there is one
        await self.client.wait_active("s")
        hours = {"StreamName": "s", "RetentionPeriodHours": 8760}
        await self.client.call("IncreaseStreamRetentionPeriod", hours)
        await self.tick()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def start(self) -> None:
        self.server = await self._stack.enter_async_context(
            server_here(self._data, self.clock, **self._config)
        )
        target = StreamTarget(endpoint=self.server.endpoint)
        self.client = await self._stack.enter_async_context(StreamClient(target))
        await self.server._metering.peaks_known.wait()  # minutes begin after it
        await self.clock.settle()

    async def restart(self) -> None:
        await self._stack.aclose()
        await self.start()

    async def tick(self, times: int = 1) -> None:
        """Let minutes pass, and what follows from them be done."""
        for _ in range(times):
            await self.clock.advance(1000)
            async with asyncio.timeout(20):  # or the stream is UPDATING for ever
                while True:
                    await asyncio.sleep(0.001)  # commands are made durable in threads
                    await self.clock.settle()
                    if (await self.summary())["StreamStatus"] == "ACTIVE" and not self.scaling:
                        break

    @property
    def scaling(self) -> bool:
        return bool(self.server._scaler._scaling)

    async def summary(self) -> dict[str, Any]:
        answer = await self.client.call("DescribeStreamSummary", {"StreamName": "s"})
        summary: dict[str, Any] = answer["StreamDescriptionSummary"]
        return summary

    async def count(self) -> int:
        return int((await self.summary())["OpenShardCount"])

    async def put(self, count: int, chance: random.Random, key: str | None = None) -> None:
        """So many records, of so many keys; or all of one."""
        for first in range(0, count, 500):
            entries = []
            for _ in range(min(500, count - first)):
                one = key or f"key {chance.randrange(3000)}"
                entries.append(PutEntry(b"%s:%d" % (one.encode(), self.put_count[one]), one))
                self.put_count[one] += 1
            results = await self.client.put_records("s", entries)
            assert all(result.sequence_number for result in results)

    async def read(self) -> None:
        """All there is now: each record once, in order per key, parents before children."""
        shards = {shard.shard_id: shard for shard in await self.client.list_shards("s")}
        at = 0
        for start, end in sorted(
            (s.hash_key_range.start, s.hash_key_range.end) for s in shards.values() if s.is_open
        ):
            assert start == at
            at = end + 1
        assert at == MAX_HASH_KEY + 1
        for name, shard in shards.items():  # in the order of their numbers: parents come first
            if name in self._finished:
                continue
            assert all(p in self._finished for p in shard.parents if p in shards)
            request: dict[str, Any] = {"StreamName": "s", "ShardId": name}
            if name in self._last:
                request |= {
                    "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                    "StartingSequenceNumber": self._last[name],
                }
            else:
                request["ShardIteratorType"] = "TRIM_HORIZON"
            token = (await self.client.call("GetShardIterator", request))["ShardIterator"]
            while token is not None:
                answer = await self.client.call("GetRecords", {"ShardIterator": token})
                for record in answer["Records"]:
                    key, _, number = b64decode(record["Data"]).decode().partition(":")
                    assert int(number) == self.read_count[key], f"{key} in {name}"
                    self.read_count[key] += 1
                    self._last[name] = record["SequenceNumber"]
                token = answer.get("NextShardIterator")
                if not answer["Records"] and token is not None:
                    break
            if token is None:
                self._finished.add(name)


def target_of(peaks: list[tuple[int, int]], now_ms: int, ceiling: int) -> int:
    """Shards for twice the greatest of (ms, records/s) in the last 30 days, by the hour."""
    hour = now_ms // HOUR_MS
    recent = [rate for at_ms, rate in peaks if hour - 720 < at_ms // HOUR_MS]
    return max(4, min(-(-2 * max(recent, default=0) // 1000), ceiling))


@pytest.mark.parametrize(
    ("seed", "steps"),
    [(1, 14), (2, 14), *(pytest.param(s, 60, marks=pytest.mark.slow) for s in range(10, 18))],
)
async def test_any_load_jumps_in_time_and_restarts(tmp_path: Path, seed: int, steps: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    peaks: list[tuple[int, int]] = []
    async with World(tmp_path / "data") as world:
        for _ in range(steps):
            what = chance.choice(["put", "put", "put", "jump", "jump", "restart"])
            if what == "put":
                records = chance.choice([0, 100, 1500, 3000, 5000, 7000])
                await world.put(records, chance)
                if records:
                    await world.tick()
                    peaks.append((world.clock.now_ms(), records))
            elif what == "jump":
                world.clock.step_wall(chance.choice([HOUR_MS, DAY_MS, 5 * DAY_MS, 17 * DAY_MS]))
            else:
                await world.restart()
            before = await world.count()
            await world.tick(2)
            target = target_of(peaks, world.clock.now_ms(), 24)
            count = await world.count()
            if before < target:
                assert count >= min(2 * before, target)
            assert count <= max(2 * target, before)
            if what == "jump" and before > target:  # a day or more has passed, or an hour
                assert max(target, before // 2) <= count <= before
            await world.read()
        await world.tick(6)
        target = target_of(peaks, world.clock.now_ms(), 24)
        assert await world.count() >= target
        for _ in range(8):  # no traffic for so long that no peak is left
            world.clock.step_wall(31 * DAY_MS)
            await world.tick(2)
            await world.read()
        assert await world.count() == 4
        await world.read()
        assert world.read_count == world.put_count
        assert world.put_count


async def test_no_history_is_not_taken_for_no_traffic(tmp_path: Path) -> None:
    async with World(tmp_path / "data") as world:
        await world.put(6000, random.Random(2))
        await world.tick(3)
        assert await world.count() == 12
        world.clock.step_wall(2 * DAY_MS)
        await world._stack.aclose()
        for file in (tmp_path / "data").glob("usage.sqlite*"):
            file.unlink()
        await world.start()
        await world.tick(3)
        assert await world.count() == 12
        world.clock.step_wall(DAY_MS)
        await world.tick(3)
        assert await world.count() < 12


async def test_it_doubles_towards_twice_the_peak_and_keeps_it_for_thirty_days(
    tmp_path: Path,
) -> None:
    chance = random.Random(1)
    async with World(tmp_path / "data") as world:
        assert await world.count() == 4
        await world.put(6000, chance)
        await world.tick()
        assert await world.count() == 8
        await world.tick()
        assert await world.count() == 12
        await world.tick(3)
        assert await world.count() == 12
        await world.restart()
        world.clock.step_wall(29 * DAY_MS)
        await world.tick(3)
        assert await world.count() == 12
        world.clock.step_wall(2 * DAY_MS)
        await world.tick(2)
        assert await world.count() == 6  # at most half at a time
        await world.tick(3)
        assert await world.count() == 6  # and not again on the same day
        world.clock.step_wall(DAY_MS)
        await world.tick(3)
        assert await world.count() == 4
        await world.read()
        assert world.read_count == world.put_count


async def test_one_hot_key_ends_at_twice_the_target(tmp_path: Path) -> None:
    chance = random.Random(2)
    async with World(tmp_path / "data") as world:
        for _ in range(7):
            await world.put(900, chance, key="hot")
            await world.tick()
            await world.read()
        assert await world.count() == 8
        assert world.read_count == world.put_count


async def test_warm_throughput_is_a_floor_also_above_the_ceiling(tmp_path: Path) -> None:
    async with World(tmp_path / "data", on_demand_max_shards=5) as world:
        enable = {"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}}
        await world.client.call("UpdateAccountSettings", enable)
        warm = {"StreamName": "s", "WarmThroughputMiBps": 9}
        await world.client.call("UpdateStreamWarmThroughput", warm)
        world.clock.step_wall(2 * DAY_MS)
        await world.tick(2)
        assert await world.count() == 9
        await world.client.call("UpdateStreamWarmThroughput", warm | {"WarmThroughputMiBps": 0})
        world.clock.step_wall(2 * DAY_MS)
        await world.tick(2)
        assert await world.count() == 5
        await world.put(9000, random.Random(3))
        await world.tick(3)
        assert await world.count() == 5


async def test_only_on_demand_streams_scale_and_a_switch_keeps_the_shards(tmp_path: Path) -> None:
    async with World(tmp_path / "data") as world:
        arn = (await world.summary())["StreamARN"]
        for mode, shards in (("PROVISIONED", 4), ("ON_DEMAND", 10)):
            if mode == "ON_DEMAND":
                await world.put(5000, random.Random(4))
                await world.tick(3)
                assert await world.count() == 4
                scale = {"TargetShardCount": 10, "ScalingType": "UNIFORM_SCALING"}
                await world.client.call("UpdateShardCount", {"StreamName": "s", **scale})
            details = {"StreamModeDetails": {"StreamMode": mode}}
            await world.client.call("UpdateStreamMode", {"StreamARN": arn, **details})
            await world.tick(2)
            assert await world.count() == shards  # ten is also what the peak takes


async def test_while_it_is_updating_nothing_else_is_changed(tmp_path: Path) -> None:
    """With a delay the stream is UPDATING; a stop in between is made up for at the next start."""
    async with World(tmp_path / "data", state_delay_ms=5000) as world:
        await world.put(3000, random.Random(5))
        await world.clock.advance(1000)
        async with asyncio.timeout(20):
            while (summary := await world.summary())["StreamStatus"] != "UPDATING":
                await world.clock.settle()
        assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("UPDATING", 4)
        arn = {"StreamARN": summary["StreamARN"]}
        with pytest.raises(ResourceInUse):
            mode = {"StreamModeDetails": {"StreamMode": "PROVISIONED"}}
            await world.client.call("UpdateStreamMode", arn | mode)
        await world.restart()
        assert await world.count() == 6
        await world.read()
        assert world.read_count == world.put_count


async def test_boto3_under_load(tmp_path: Path) -> None:
    """Real time, real clients: a reader that follows the shards while they are split."""
    options = MeteringOptions(flush_ms=200, minute_ms=500, idle_ms=500)
    async with server_here(tmp_path / "data", metering=options) as server:
        put, read, shards = await asyncio.to_thread(_load_and_read, server.endpoint)
    assert shards > 4
    assert read == put


def _load_and_read(endpoint: str) -> tuple[dict[str, int], dict[str, int], int]:
    """Counts by key put and read (asserted to come in order), and the open shards at the end."""
    kinesis = boto3_client(endpoint)
    kinesis.create_stream(StreamName="s", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    put: dict[str, int] = {}
    read: dict[str, int] = {}
    is_over = threading.Event()

    def produce() -> None:
        client = boto3_client(endpoint)
        deadline = time.monotonic() + 20
        chance = random.Random(6)
        while time.monotonic() < deadline:
            records = []
            for _ in range(500):
                key = f"key {chance.randrange(200)}"
                number = put.get(key, 0)
                put[key] = number + 1
                records.append({"Data": b"%s:%d" % (key.encode(), number), "PartitionKey": key})
            assert client.put_records(StreamName="s", Records=records)["FailedRecordCount"] == 0
            if sum(put.values()) % 5000 == 0:
                answer = client.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
                if answer["OpenShardCount"] > 6:
                    break
        is_over.set()
        client.close()

    producer = threading.Thread(target=produce)
    producer.start()
    tokens: dict[str, str | None] = {}
    for shard in shards_of(kinesis, "s"):
        if "ParentShardId" not in shard:
            tokens[shard["ShardId"]] = _from_the_start(kinesis, shard["ShardId"])
    while True:
        is_last = is_over.is_set()
        found = 0
        for shard_id, token in list(tokens.items()):
            if token is None:
                continue
            answer = kinesis.get_records(ShardIterator=token)
            found += len(answer["Records"])
            for record in answer["Records"]:
                key, _, number = record["Data"].decode().partition(":")
                assert int(number) == read.get(key, 0)
                read[key] = int(number) + 1
            tokens[shard_id] = answer.get("NextShardIterator")
            for child in answer.get("ChildShards", ()):
                if all(tokens.get(parent, "") is None for parent in child["ParentShards"]):
                    tokens[child["ShardId"]] = _from_the_start(kinesis, child["ShardId"])
                    found += 1
        if is_last and not found:
            break
    producer.join()
    still_open = [
        shard for shard in shards_of(kinesis, "s")
        if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
    ]  # fmt: skip
    assert sum(end - start + 1 for start, end in map(hash_range, still_open)) == MAX_HASH_KEY + 1
    kinesis.close()
    return put, read, len(still_open)


def _from_the_start(kinesis: Any, shard_id: str) -> str:
    token: str = kinesis.get_shard_iterator(
        StreamName="s", ShardId=shard_id, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    return token
