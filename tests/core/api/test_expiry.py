"""Where one stream cannot be rid of what has expired, it is said, and the others are."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from api_support import raw_to, server_here
from headrace.core.client import StreamClient
from headrace.core.log.files import SystemFiles
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.server import Server
from headrace.core.testing.manual_clock import ManualClock

HOUR_MS = 3_600_000
OPTIONS = StreamLogOptions(segment_bytes=2000)


class _StubbornFiles(SystemFiles):
    """Removes nothing from the folder `kept`."""

    kept: Path | None = None

    def unlink(self, path: Path) -> None:
        if path.parent == self.kept and path.exists():
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        super().unlink(path)


async def fill(client: StreamClient, name: str) -> None:
    for i in range(4):
        await client.put_records(name, [PutEntry(b"%d" % i * 1500, "k")])


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.seg"))


def folders(server: Server, data: Path) -> dict[str, Path]:
    streams = server._catalog.state.streams.streams.values()
    return {stream.name: data / "streams" / stream.uid for stream in streams}


async def troubles(server: Server) -> list[str]:
    def ask() -> list[str]:
        with raw_to(server.endpoint) as raw:
            health = raw.send("GET", "/healthz").json
            assert health["ok"]
            said: list[str] = health["troubles"]
            return said

    return await asyncio.to_thread(ask)


async def test_a_segment_that_cannot_be_removed_keeps_no_other_stream_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, files, data = ManualClock(), _StubbornFiles(), tmp_path / "s"
    async with (
        server_here(data, clock, files=files, log_options=OPTIONS) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        for name in "abc":
            await client.ensure_stream(name, shards=1)
            await fill(client, name)
        at = folders(server, data)
        before = {name: segments(at[name]) for name in "abc"}
        files.kept = at["b"]
        await clock.advance(25 * HOUR_MS)
        async with asyncio.timeout(20):
            while not all(set(segments(at[name])).isdisjoint(before[name][:-1]) for name in "ac"):
                await clock.advance(60_000)
        assert segments(at["b"]) == before["b"]
        caplog.clear()
        await clock.advance(3 * HOUR_MS)
        (trouble,) = await troubles(server)
        assert trouble.startswith("stream b keeps records that have expired: ")
        assert "Operation not permitted" in trouble
        told = [message for message in caplog.messages if message.startswith(trouble)]
        assert 2 <= len(told) <= 4, "by the hour"
        files.kept = None
        async with asyncio.timeout(20):
            while await troubles(server):
                await clock.advance(60_000)
        assert set(segments(at["b"])).isdisjoint(before["b"][:-1])


async def test_a_damaged_segment_keeps_no_other_stream_full(tmp_path: Path) -> None:
    """It is looked into for whether a shard that is closed has anything left."""
    clock, data = ManualClock(), tmp_path / "s"
    async with (
        server_here(data, clock, log_options=OPTIONS) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        for name in "ab":
            await client.ensure_stream(name, shards=1)
            await fill(client, name)
            shard = {"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "9"}
            await client.call("SplitShard", {"StreamName": name, **shard})
        await clock.advance(10 * HOUR_MS)
        for name in "ab":
            await fill(client, name)
        at = folders(server, data)
        for index in at["a"].glob("*.idx"):
            for path, byte in ((index, 4), (index.with_suffix(".seg"), 200)):
                content = bytearray(path.read_bytes())
                content[byte] ^= 1
                path.write_bytes(content)
        await clock.advance(15 * HOUR_MS)
        async with asyncio.timeout(20):
            while len(await client.list_shards("b")) == 3:
                await clock.advance(60_000)
        (trouble,) = await troubles(server)
        assert "stream a" in trouble and "damaged" in trouble
        assert len(await client.list_shards("a")) == 3
        await client.call("DeleteStream", {"StreamName": "a"})
        async with asyncio.timeout(20):
            while await troubles(server):
                await clock.advance(1000)
