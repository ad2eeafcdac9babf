"""Splits and merges at random while others put and read: nobody notices."""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from typing import Any

import pytest

from headrace.core.client import StreamClient
from headrace.core.errors import ServiceError
from headrace.core.model.hashing import MAX_HASH_KEY
from headrace.core.model.records import PutEntry
from headrace.core.model.shards import ShardInfo

MOST_SHARDS = 12
WRITERS = 3


def check_tiling(shards: list[ShardInfo]) -> list[ShardInfo]:
    """The open shards in the order of their ranges, which leave no gap and do not overlap."""
    found = sorted((s for s in shards if s.is_open), key=lambda s: s.hash_key_range.start)
    at = 0
    for shard in found:
        assert shard.hash_key_range.start == at
        at = shard.hash_key_range.end + 1
    assert at == MAX_HASH_KEY + 1
    return found


class Load:
    """Writers, each with keys of its own, and a reader that takes parents before children."""

    def __init__(self, client: StreamClient, stream: str, chance: random.Random) -> None:
        self.client = client
        self.stream = stream
        self.chance = chance
        self.is_over = False
        self.put_count: defaultdict[str, int] = defaultdict(int)
        self.read_count: defaultdict[str, int] = defaultdict(int)
        self.finished: set[str] = set()
        self.iterators: dict[str, str | None] = {}

    async def write(self, writer: int) -> None:
        while not self.is_over:
            entries = []
            for _ in range(self.chance.randint(1, 40)):
                key = f"{writer}:{self.chance.randrange(50)}"
                entries.append(PutEntry(b"%s=%d" % (key.encode(), self.put_count[key]), key))
                self.put_count[key] += 1
            for result in await self.client.put_records(self.stream, entries):
                assert result.sequence_number

    async def read(self) -> None:
        """Until all that was put is read."""
        while not self.is_over or self.read_count != self.put_count:
            # (no tiling to be checked here: pages of a listing may have a change between them)
            shards = await self.client.list_shards(self.stream)
            for shard in sorted(shards, key=lambda s: s.shard_id):
                if shard.shard_id in self.finished:
                    continue
                if all(parent in self.finished for parent in shard.parents):
                    await self.read_shard(shard.shard_id)

    async def read_shard(self, name: str) -> None:
        """What there is of it now."""
        if name not in self.iterators:
            self.iterators[name] = await self.client.get_shard_iterator(
                self.stream, name, "TRIM_HORIZON"
            )
        while (iterator := self.iterators[name]) is not None:
            result = await self.client.get_records(iterator)
            for record in result.records:
                key, _, number = record.data.decode().partition("=")
                assert int(number) == self.read_count[key], f"{record} in {name}"
                self.read_count[key] += 1
            self.iterators[name] = result.next_iterator
            if not result.records and result.next_iterator is not None:
                return
        self.finished.add(name)


async def reshard(client: StreamClient, stream: str, chance: random.Random) -> None:
    """One split or merge, somewhere."""
    shards = check_tiling(await client.list_shards(stream))
    place = chance.randrange(len(shards))
    shard = shards[place]
    request: dict[str, Any] = {"StreamName": stream}
    if len(shards) < MOST_SHARDS and (place + 1 == len(shards) or chance.random() < 0.5):
        start, end = shard.hash_key_range.start, shard.hash_key_range.end
        if start == end:
            return
        request |= {
            "ShardToSplit": shard.shard_id,
            "NewStartingHashKey": str(chance.randint(start + 1, end)),
        }
        await client.call("SplitShard", request)
    elif place + 1 < len(shards):
        request |= {
            "ShardToMerge": shard.shard_id,
            "AdjacentShardToMerge": shards[place + 1].shard_id,
        }
        await client.call("MergeShards", request)


@pytest.mark.parametrize("reshards", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_reshards_at_random_under_load(
    client: StreamClient, name: str, reshards: int
) -> None:
    seed = int(os.environ.get("HEADRACE_SEED", random.randrange(1 << 32)))
    print(f"HEADRACE_SEED={seed}")
    chance = random.Random(seed)
    await client.ensure_stream(name, shards=2)
    load = Load(client, name, chance)
    async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
        for writer in range(WRITERS):
            tasks.create_task(load.write(writer))
        tasks.create_task(load.read())
        done = 0
        while done < reshards:
            before = sum(load.put_count.values())
            try:
                await reshard(client, name, chance)
                done += 1
            except ServiceError as error:
                assert error.code == "ResourceInUseException", error
            while sum(load.put_count.values()) == before:  # noqa: ASYNC110 - under load
                await asyncio.sleep(0)
        load.is_over = True
    assert load.read_count == load.put_count
    closed = [s for s in await client.list_shards(name) if not s.is_open]
    assert len(closed) >= reshards - 1
