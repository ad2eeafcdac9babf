"""Readers who poll while others put, in random order: each reads every record once, and in order.

A poll that finds nothing may wait for what is put in the same turn of the loop, and looks again
then; what comes between the two looks (puts that are refused, splits, a thread's windows) must
neither be skipped nor told twice. The oracle reads the stream again from its beginning.
"""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from begun_requests_support import Client, serving, told
from headrace.core.engine.embedded import group_commit
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.log.files import SystemFiles
from headrace.core.testing.faulty_files import FaultyFiles, no_space

STREAM = "a"
SHARDS = 2
READERS = 3  # of each shard that is there at the beginning
TURNS = 120  # of the schedule, in each of which something is begun
FULL, SPLIT = 0.05, 0.01  # how often, in a turn, the disk is full from then on, or a shard is split
ANSWERED = 0.1  # how often the next turn is only when all puts have been answered
SIZES = (0, 10, 100, 20_000, 60_000)  # some for the loop, some for a thread
LIMITS = (None, 1, 2, 100)
ANSWERED_S = 30.0


class Schedule:
    """One stream, who puts into it, and who reads it."""

    def __init__(self, client: Client, files: FaultyFiles, rng: random.Random) -> None:
        self._client = client
        self._files = files
        self._rng = rng
        self._open = list(range(SHARDS))
        self._read: dict[int, list[list[str]]] = {}  # by shard, what each of its readers found
        self._puts: list[asyncio.Future[None]] = []
        self._polls: list[asyncio.Future[None]] = []
        self._sent = 0
        self._stored: set[str] = set()
        self._may_stop = False
        self.ways: set[str] = set()  # that polls which found some, or none, were answered

    async def run(self) -> None:
        await self._client.create(STREAM, ShardCount=SHARDS)
        for shard in self._open:
            await self._start_readers(shard, "LATEST")
        for _ in range(TURNS):
            await self._turn()
        await self._end()

    async def _turn(self) -> None:
        chance = self._rng.random()
        if chance < FULL:
            self._files.fail_always("write_at", no_space)
        elif chance < 2 * FULL:
            self._files.heal()
        elif chance < 2 * FULL + SPLIT and len(self._open) < 2 * SHARDS:
            await self._split()
        for _ in range(self._rng.choice((0, 1, 1, 2, 5))):
            self._puts.append(asyncio.ensure_future(self._put()))
        for _ in range(self._rng.choice((0, 1, 2, 3, 10))):
            await asyncio.sleep(0)
        if self._puts and self._rng.random() < ANSWERED:
            await asyncio.wait(self._puts)

    async def _start_readers(self, shard: int, kind: str) -> None:
        self._read[shard] = [[] for _ in range(READERS)]
        for found in self._read[shard]:
            token = await self._client.iterator(STREAM, kind, shard)
            self._polls.append(asyncio.ensure_future(self._poll(token, found)))

    async def _put(self) -> None:
        self._sent += 1
        data = b"%d " % self._sent + bytes(self._rng.choice(SIZES))
        record = {
            "Data": b64encode(data).decode(),
            "PartitionKey": "k",
            "ExplicitHashKey": str(self._rng.getrandbits(128)),
        }
        if self._rng.random() < 0.5:
            request: dict[str, Any] = {"StreamName": STREAM, **record}
            _, answer = await told(self._client.begin("PutRecord", request))
            stored = [answer["body"]]
        else:
            request = {"StreamName": STREAM, "Records": [record] * self._rng.randint(1, 3)}
            _, answer = await told(self._client.begin("PutRecords", request))
            stored = answer["body"].get("Records", [])
        assert answer["status"] in (200, 503), answer
        for one in stored:
            if "SequenceNumber" in one:
                self._stored.add(one["SequenceNumber"])

    async def _poll(self, token: str | None, found: list[str]) -> None:
        """Until the shard's end, or until there is nothing more to come."""
        rng = random.Random(self._rng.random())
        while token is not None:
            for _ in range(rng.choice((0, 1, 1, 2, 7))):
                await asyncio.sleep(0)
            was_last = self._may_stop
            request: dict[str, Any] = {"ShardIterator": token}
            if (limit := rng.choice(LIMITS)) is not None:
                request["Limit"] = limit
            way, answer = await told(self._client.begin("GetRecords", request))
            assert answer["status"] == 200, answer
            records = answer["body"]["Records"]
            self.ways.add(f"{way}, {'some' if records else 'none'}")
            found += [record["SequenceNumber"] for record in records]
            token = answer["body"].get("NextShardIterator")
            if was_last and not records and not answer["body"]["MillisBehindLatest"]:
                return

    async def _split(self) -> None:
        shard = self._rng.choice(self._open)
        answer = await self._client.good("ListShards", {"StreamName": STREAM})
        ranges = {one["ShardId"]: one["HashKeyRange"] for one in answer["Shards"]}
        keys = ranges[f"shardId-{shard:012d}"]
        middle = (int(keys["StartingHashKey"]) + int(keys["EndingHashKey"])) // 2
        request = {
            "StreamName": STREAM, "ShardToSplit": f"shardId-{shard:012d}",
            "NewStartingHashKey": str(middle),
        }  # fmt: skip
        _, answer = await told(self._client.begin("SplitShard", request))
        if answer["status"] == 503:  # the disk is full
            return
        assert answer["status"] == 200, answer
        self._open.remove(shard)
        for child in (len(ranges), len(ranges) + 1):
            self._open.append(child)
            await self._start_readers(child, "TRIM_HORIZON")

    async def _end(self) -> None:
        """The puts have been answered, then the readers have read all there is."""
        async with asyncio.timeout(ANSWERED_S):
            await asyncio.gather(*self._puts)
            self._files.heal()
            await self._put()
            self._may_stop = True
            await asyncio.gather(*self._polls)
        there: set[str] = set()
        for shard, readers in self._read.items():
            expected = await self._everything(shard)
            there.update(expected)
            assert expected == sorted(expected, key=int)
            for found in readers:
                assert found == expected, f"shard {shard}"
        assert there == self._stored != set()

    async def _everything(self, shard: int) -> list[str]:
        found: list[str] = []
        token: str | None = await self._client.iterator(STREAM, "TRIM_HORIZON", shard)
        while token is not None:
            answer = await self._client.good("GetRecords", {"ShardIterator": token})
            found += [record["SequenceNumber"] for record in answer["Records"]]
            token = answer.get("NextShardIterator")
            if not answer["Records"] and not answer["MillisBehindLatest"]:
                break
        return found


async def play(folder: Path, seeds: range) -> set[str]:
    """The ways that polls were answered."""
    ways: set[str] = set()
    for seed in seeds:
        rng = random.Random(seed)
        files = FaultyFiles(SystemFiles())
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(group_commit, "IDLE_MARK_S", rng.choice((0, 0.001, 60)))
            patched.setattr(InLoop, "mean_s", rng.choice((0, 0.001, 10)))
            async with serving(folder / str(seed), files, state_delay_ms=0) as client:
                schedule = Schedule(client, files, rng)
                try:
                    await schedule.run()
                except Exception as error:
                    raise AssertionError(f"seed {seed}: {error}") from error
        ways |= schedule.ways
    return ways


async def test_every_reader_reads_every_record_once(tmp_path: Path) -> None:
    ways = await play(tmp_path, range(12))
    assert ways == {
        f"{way}, {found}" for way in ("now", "later", "whole") for found in ("some", "none")
    }


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 1_500, 50))
async def test_many_readers_read_every_record_once(tmp_path: Path, first: int) -> None:
    await play(tmp_path, range(first, first + 50))
