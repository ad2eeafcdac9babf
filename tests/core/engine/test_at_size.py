"""Thousands of streams or shards in one process: what they hold open, what a start costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.engine.embedded import group_commit
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.server import Server

SHARDS = 10_000


def segments_open(data: Path) -> int:
    """Descriptors of this process on segments below `data`."""
    root, found = str(data.resolve()), 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += str(link.readlink()).startswith(root) and ".seg" in str(link.readlink())
        except FileNotFoundError:  # the one of this listing
            continue
    return found


def client_of(server: Server) -> StreamClient:
    return StreamClient(StreamTarget(endpoint=server.endpoint))


async def test_streams_that_are_quiet_hold_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "REST_S", 0.5)
    data = tmp_path / "data"
    names = [f"s{i}" for i in range(8)]
    async with server_here(data) as server, client_of(server) as client:
        for turn in range(2):
            for name in names:
                if not turn:
                    await client.ensure_stream(name, shards=1)
                await client.put_records(name, [PutEntry(b"%d" % turn, "k")])
            assert segments_open(data) > 0
            async with asyncio.timeout(30):
                while segments_open(data):  # until some time after the last put
                    await asyncio.to_thread(lambda: None)
    async with server_here(data) as server, client_of(server) as client:
        assert segments_open(data) == 0
        for name in names:
            iterator = await client.get_shard_iterator(name, "shardId-000000000000", "TRIM_HORIZON")
            got = await client.get_records(iterator)
            assert [record.data for record in got.records] == [b"0", b"1"]


async def test_ten_thousand_shards(tmp_path: Path) -> None:
    data = tmp_path / "data"
    width = 2**128 // SHARDS
    async with server_here(data) as server, client_of(server) as client:
        await client.ensure_stream("s", shards=SHARDS)
        for first in range(0, SHARDS, 500):
            entries = [
                PutEntry(b"%d" % i, "k", str(i * width + width // 2))
                for i in range(first, first + 500)
            ]
            results = await client.put_records("s", entries)
            assert all(result.sequence_number for result in results)
    async with server_here(data) as server, client_of(server) as client:
        shards = await client.list_shards("s")
        assert len(shards) == SHARDS == len({shard.shard_id for shard in shards})
        for n in (0, 1, 4_321, SHARDS - 1):
            iterator = await client.get_shard_iterator("s", shards[n].shard_id, "TRIM_HORIZON")
            got = await client.get_records(iterator)
            assert [record.data for record in got.records] == [b"%d" % n]
        assert segments_open(data) <= 2  # one stream is one file
