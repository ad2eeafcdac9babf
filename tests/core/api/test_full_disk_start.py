"""A server started on a full disk: it serves what it can, and the rest once there is room."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from pathlib import Path

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.control.stream_state import StreamState
from headrace.core.errors import ResourceNotFound, ServiceUnavailable
from headrace.core.log import format as fmt
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.service.catalog import Catalog, OpenStream
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from headrace.core.testing.manual_clock import ManualClock
from small_disk import small_disk

SHARD = "shardId-000000000000"
TORN = b"HRF1\x01 this was being written"
SPLIT = {"StreamName": "s", "ShardToSplit": SHARD, "NewStartingHashKey": "9"}


def _tear(segment: Path) -> None:
    """As a crash leaves it: nothing vouches for the last records, and a write was not finished.

    Without the room that was reserved behind it: to give that back would make some.
    """
    raw, end = segment.read_bytes(), 0
    while (header := fmt.decode_header(raw[end:])) and not header.flags & fmt.FLAG_MARK:
        end += header.frame_bytes
    segment.write_bytes(raw[:end] + TORN)


async def _served(client: StreamClient, clock: ManualClock, stream: str) -> list[bytes]:
    """What the stream holds, once it is served; tries again with the clock, not in a hurry."""
    async with asyncio.timeout(20):
        while True:
            try:
                iterator = await client.get_shard_iterator(stream, SHARD, "TRIM_HORIZON")
                got = await client.get_records(iterator)
                return [record.data for record in got.records]
            except ServiceUnavailable:
                await clock.advance(1000)


async def test_streams_without_room_to_be_opened_in_are_served_once_there_is_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the disk finds only at the sync that it has no room for what recovery writes anew."""
    files, clock, data = FaultyFiles(), ManualClock(), tmp_path / "data"
    async with (
        server_here(data, clock, state_delay_ms=60_000) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        for name in ("s", "gone"):
            await client.call("CreateStream", {"StreamName": name, "ShardCount": 1})
        await clock.advance(60_000)
        for name in ("s", "gone"):
            await client.wait_active(name)
            await client.put_records(name, [PutEntry(b"before", "k")])
        iterator = await client.get_shard_iterator("s", SHARD, "TRIM_HORIZON")
        await client.call("SplitShard", SPLIT)  # to be finished by the next start
    for segment in data.glob("streams/*/*.seg"):
        _tear(segment)
    files.fail_always("sync", no_space)
    async with (
        server_here(data, clock, files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        for asked in (
            client.put_records("s", [PutEntry(b"x", "k")]),
            client.get_records(iterator),
            client.get_shard_iterator("s", SHARD, "LATEST"),
        ):
            with pytest.raises(ServiceUnavailable, match=r"s is not served yet: no space .*free"):
                await asked
        assert "stream s is not served until there is room" in caplog.text
        described = await client.call("DescribeStreamSummary", {"StreamName": "s"})
        assert described["StreamDescriptionSummary"]["StreamStatus"] == "UPDATING"
        await client.call("DeleteStream", {"StreamName": "gone"})
        with pytest.raises(ResourceNotFound):
            await client.get_shard_iterator("gone", SHARD, "LATEST")
        await clock.advance(10_000)
        with pytest.raises(ServiceUnavailable):
            await client.get_records(iterator)
        files.heal()
        assert await _served(client, clock, "s") == [b"before"]
        assert "there is room again: stream s is served" in caplog.text
        async with asyncio.timeout(20):
            while len(await client.list_shards("s")) < 3:
                await clock.advance(1000)
        await client.put_records("s", [PutEntry(b"x", "k")])
        assert len(list((data / "streams").iterdir())) == 1


async def test_a_stream_is_not_opened_in_vain_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try may read whole segments, and say so."""
    clock, data, tries_ms = ManualClock(), tmp_path / "data", list[int]()
    async with (
        server_here(data, clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)

    async def try_in_vain(catalog: Catalog, stream: StreamState) -> OpenStream:
        tries_ms.append(clock.now_ms())
        raise no_space()

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "open", try_in_vain)
        async with server_here(data, clock) as server:
            await clock.advance(300_000)
            assert server._catalog.refused().keys() == {"s"}
    waits_ms = [after - before for before, after in pairwise(tries_ms)]
    assert waits_ms == [1000, 2000, 4000, 8000, 16_000] + [30_000] * 8


async def test_a_server_starts_on_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    clock = ManualClock()
    options = StreamLogOptions(segment_bytes=2000)
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        data = disk.folder / "data"
        async with (
            server_here(data, clock, log_options=options) as server,
            StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
        ):
            await client.ensure_stream("s", shards=1)
            for i in range(4):
                await client.put_records("s", [PutEntry(b"%d" % i * 1500, "k")])
        segments = sorted(data.glob("streams/*/*.seg"))
        assert len(segments) > 2
        segments[0].with_suffix(".idx").unlink()
        _tear(segments[-1])
        os.truncate(data / "LOCK", 0)  # where a process notes its id
        disk.fill()
        async with (
            server_here(data, clock, log_options=options) as server,
            StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
        ):
            stored = await _served(client, clock, "s")
            assert stored == [b"%d" % i * 1500 for i in range(4)]
            disk.fill()  # what the torn tail took is free
            with pytest.raises(ServiceUnavailable, match="no space left"):
                await client.put_records("s", [PutEntry(b"x" * 9000, "k")])
            with pytest.raises(ServiceUnavailable, match="no space left"):
                for _ in range(100):  # the control log may have a page left
                    await client.call("AddTagsToStream", {"StreamName": "s", "Tags": {"a": "b"}})
            disk.make_room()
            await client.put_records("s", [PutEntry(b"x", "k")])
            await client.call("AddTagsToStream", {"StreamName": "s", "Tags": {"a": "b"}})
            assert await _served(client, clock, "s") == [*stored, b"x"]
