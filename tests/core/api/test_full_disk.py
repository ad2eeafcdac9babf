"""A full disk under the control log: refused in words, nothing changed, and it passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api_support import ACCOUNT, server_here
from headrace.core.client import StreamClient
from headrace.core.errors import ResourceNotFound, ServiceUnavailable
from headrace.core.leases import StreamLeases
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from headrace.core.testing.manual_clock import ManualClock

ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/s"
SHARD = "shardId-000000000000"

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("CreateStream", {"StreamName": "new", "ShardCount": 1}),
    ("DeleteStream", {"StreamName": "s"}),
    ("SplitShard", {"StreamName": "s", "ShardToSplit": SHARD, "NewStartingHashKey": "9"}),
    (
        "UpdateShardCount",
        {"StreamName": "s", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"},
    ),
    ("IncreaseStreamRetentionPeriod", {"StreamName": "s", "RetentionPeriodHours": 48}),
    ("AddTagsToStream", {"StreamName": "s", "Tags": {"a": "b"}}),
    ("RegisterStreamConsumer", {"StreamARN": ARN, "ConsumerName": "c"}),
    ("StartStreamEncryption", {"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"}),
]


@dataclass
class Here:
    client: StreamClient
    files: FaultyFiles
    clock: ManualClock

    def fill(self, *, after: int = 0) -> None:
        """No room in the control log after so many more commits."""
        self.files.fail_always("commit", no_space, after=after)

    async def described(self) -> object:
        listed = await self.client.call("ListStreams", {})
        described = await self.client.call("DescribeStream", {"StreamName": "s"})
        summary = await self.client.call("DescribeStreamSummary", {"StreamName": "s"})
        tags = await self.client.call("ListTagsForStream", {"StreamName": "s"})
        return msgspec.json.encode([listed["StreamNames"], described, summary, tags])

    async def status(self, name: str) -> str | None:
        try:
            answer = await self.client.call("DescribeStreamSummary", {"StreamName": name})
        except ResourceNotFound:
            return None
        found: str = answer["StreamDescriptionSummary"]["StreamStatus"]
        return found

    async def until_done(self, name: str, status: str | None) -> None:
        """Make room; what waits for it tries again every second."""
        self.files.heal()
        async with asyncio.timeout(20):
            while await self.status(name) != status:
                await self.clock.advance(1000)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    files, clock = FaultyFiles(), ManualClock()
    async with (
        server_here(tmp_path / "s", clock, files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        yield Here(client, files, clock)
        files.heal()


async def test_refused_changes_change_nothing_and_work_again_once_there_is_room(
    here: Here,
) -> None:
    for operation, request in CHANGES:
        before = await here.described()
        here.fill()
        with pytest.raises(ServiceUnavailable, match=r"no space left .*free some space"):
            await here.client.call(operation, request)
        assert await here.described() == before, operation
        await here.client.put_records("s", [PutEntry(b"x", "k")])  # the stream has room of its own
        here.files.heal()
    for operation, request in reversed(CHANGES):
        if operation == "SplitShard":
            continue  # its shard has been split for UpdateShardCount by now
        if operation == "DeleteStream":
            request = {**request, "EnforceConsumerDeletion": True}
        await here.client.call(operation, request)
    assert (await here.client.call("ListStreams", {}))["StreamNames"] == ["new"]


async def test_leases_wait_for_room(here: Here) -> None:
    leases = StreamLeases(here.client, "app", "s", "w")
    await leases.sync(await here.client.list_shards("s"))
    here.fill()
    with pytest.raises(ServiceUnavailable, match="no space left"):
        await leases.take(SHARD, 0, 0)
    assert [lease.counter for lease in await leases.list()] == [0]
    here.files.heal()
    assert (await leases.take(SHARD, 0, 0)).counter == 1


async def test_what_was_begun_is_finished_once_there_is_room(here: Here) -> None:
    """The first half of a change is durable, then the disk is full: the second half waits."""

    here.fill(after=1)
    await here.client.call("CreateStream", {"StreamName": "new", "ShardCount": 1})
    assert await here.status("new") == "CREATING"
    await here.clock.advance(5_000)
    assert await here.status("new") == "CREATING"
    await here.until_done("new", "ACTIVE")

    here.fill(after=1)
    scaled = {"StreamName": "new", "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}
    await here.client.call("UpdateShardCount", scaled)
    assert await here.status("new") == "UPDATING"
    await here.until_done("new", "ACTIVE")
    assert len(await here.client.list_shards("new")) == 3  # one of them closed

    here.fill(after=1)
    await here.client.call("DeleteStream", {"StreamName": "new"})
    assert await here.status("new") == "DELETING"
    await here.until_done("new", None)


async def test_a_stream_that_got_no_log_goes_once_there_is_room(here: Here) -> None:
    here.fill(after=1)
    here.files.fail_always("allocate", no_space)
    with pytest.raises(ServiceUnavailable, match="no space left"):
        await here.client.call("CreateStream", {"StreamName": "new", "ShardCount": 1})
    await here.until_done("new", None)
    await here.client.ensure_stream("new", shards=1)


async def test_a_server_starts_on_a_full_disk(tmp_path: Path) -> None:
    """What was CREATING, UPDATING or DELETING when it ended stays so until there is room."""
    files, clock = FaultyFiles(), ManualClock()
    data = tmp_path / "s"
    for delay_ms, operation, request in (
        (0, "CreateStream", {"StreamName": "t", "ShardCount": 1}),
        (60_000, "DeleteStream", {"StreamName": "t"}),
    ):
        async with (
            server_here(data, clock, state_delay_ms=delay_ms) as server,
            StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
        ):
            await client.call(operation, request)
            if delay_ms:
                await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
    files.fail_always("commit", no_space)
    async with (
        server_here(data, clock, files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        here = Here(client, files, clock)
        assert (await here.status("s"), await here.status("t")) == ("CREATING", "DELETING")
        await here.until_done("s", "ACTIVE")
        await here.until_done("t", None)


async def test_a_full_disk_does_not_keep_what_has_expired(tmp_path: Path) -> None:
    """The first stream's closed shards could not be dropped, and the next was not trimmed."""
    files, clock = FaultyFiles(), ManualClock()
    data = tmp_path / "s"

    def segments() -> list[int]:
        return sorted(len(list(folder.glob("*.seg"))) for folder in (data / "streams").iterdir())

    async with (
        server_here(
            data, clock, files=files, log_options=StreamLogOptions(segment_bytes=2000)
        ) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        for name in ("s", "t"):
            await client.ensure_stream(name, shards=1)
            for _ in range(4):
                await client.put_records(name, [PutEntry(b"x" * 1500, "k")])
            await client.call(
                "SplitShard",
                {"StreamName": name, "ShardToSplit": SHARD, "NewStartingHashKey": "9"},
            )
            await client.put_records(name, [PutEntry(b"x", "k")])
        assert min(segments()) > 2
        files.fail_always("commit", no_space)
        await clock.advance(25 * 3_600_000)
        async with asyncio.timeout(20):
            while max(segments()) > 2:
                await clock.advance(60_000)
        assert len(await client.list_shards("s")) == 3
        files.heal()
        async with asyncio.timeout(20):
            while len(await client.list_shards("s")) > 2:
                await clock.advance(60_000)
