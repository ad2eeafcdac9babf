"""DeleteStream: gone for readers and writers at once, and for good."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from api_support import ACCOUNT, Raw, boto3_client, create, refused, reply_is, server_here
from headrace.core.client import StreamClient
from headrace.core.errors import (
    InternalFailure,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
    StorageFull,
)
from headrace.core.log.files import SystemFiles
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess

# Serialization and validation


def test_wire_29_wrong_types(raw: Raw) -> None:
    reply_is(
        raw.call("DeleteStream", {"StreamName": "s", "EnforceConsumerDeletion": []}),
        "SerializationException",
        "Start of list found where not expected",
    )


def test_wire_1_no_such_stream(kinesis: Any) -> None:
    with refused("ResourceNotFoundException", f"Stream none under account {ACCOUNT} not found."):
        kinesis.delete_stream(StreamName="none")


def test_neither_name_nor_arn(kinesis: Any) -> None:
    with refused("InvalidArgumentException"):
        kinesis.delete_stream()


# Behaviour


def test_it_is_gone(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    reply = raw.call("DeleteStream", {"StreamName": name})
    assert (reply.status, reply.body) == (200, b"")
    for operation in ("describe_stream", "describe_stream_summary", "delete_stream"):
        with refused(
            "ResourceNotFoundException", f"Stream {name} under account {ACCOUNT} not found."
        ):
            getattr(kinesis, operation)(StreamName=name)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=name)
    assert name not in kinesis.list_streams()["StreamNames"]


def test_by_arn(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.delete_stream(StreamARN=f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{name}")
    kinesis.get_waiter("stream_not_exists").wait(StreamName=name)


async def test_its_files_are_gone_too(tmp_path: Path) -> None:
    async with (
        server_here(tmp_path / "s") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        await client.put_records("s", [PutEntry(b"secret", "k")])
        assert len(list((tmp_path / "s" / "streams").iterdir())) == 1
        await client.call("DeleteStream", {"StreamName": "s"})
        assert list((tmp_path / "s" / "streams").iterdir()) == []


async def test_deleting_takes_as_long_as_it_is_told(tmp_path: Path) -> None:
    async with server_here(tmp_path / "s", state_delay_ms=400) as server:
        kinesis = await asyncio.to_thread(boto3_client, server.endpoint)

        def story() -> None:
            config = {"Delay": 0.05, "MaxAttempts": 100}
            create(kinesis, "undone")
            kinesis.delete_stream(StreamName="undone")  # while it is CREATING
            summary = kinesis.describe_stream_summary(StreamName="undone")
            assert summary["StreamDescriptionSummary"]["StreamStatus"] == "DELETING"
            create(kinesis, "slow")
            kinesis.get_waiter("stream_not_exists").wait(StreamName="undone", WaiterConfig=config)
            kinesis.get_waiter("stream_exists").wait(StreamName="slow", WaiterConfig=config)
            kinesis.put_record(StreamName="slow", Data=b"x", PartitionKey="k")
            kinesis.delete_stream(StreamName="slow")
            kinesis.delete_stream(StreamName="slow")  # asking again changes nothing
            description = kinesis.describe_stream(StreamName="slow")["StreamDescription"]
            assert (description["StreamStatus"], description["Shards"]) == ("DELETING", [])
            with refused("ResourceNotFoundException"):
                kinesis.put_record(StreamName="slow", Data=b"x", PartitionKey="k")
            with refused("ResourceInUseException"):
                create(kinesis, "slow")
            with refused(
                "ResourceInUseException",
                f"Stream slow under account {ACCOUNT} not ACTIVE, instead in state DELETING",
            ):
                kinesis.increase_stream_retention_period(StreamName="slow", RetentionPeriodHours=48)
            kinesis.get_waiter("stream_not_exists").wait(StreamName="slow", WaiterConfig=config)

        await asyncio.to_thread(story)


async def test_what_a_stop_cuts_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    async with (
        server_here(tmp_path / "s", state_delay_ms=60_000) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.call("CreateStream", {"StreamName": "new", "ShardCount": 1})
    async with (
        server_here(tmp_path / "s", state_delay_ms=60_000) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.wait_active("new", timeout_ms=0)
        await client.call("DeleteStream", {"StreamName": "new"})
    async with (
        server_here(tmp_path / "s") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        with pytest.raises(ResourceNotFound):
            await client.wait_active("new")


async def test_deleting_and_making_again_under_load(tmp_path: Path) -> None:
    """Puts and reads see a stream or none, never an error of the server's own."""
    async with (
        server_here(tmp_path / "s") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        done, moved = asyncio.Event(), asyncio.Event()
        unexpected: list[ServiceError] = []

        async def keep_doing(what: Callable[[], Awaitable[object]]) -> None:
            while not done.is_set():
                try:
                    await what()
                    moved.set()
                except (ResourceNotFound, ResourceInUse):
                    await asyncio.sleep(0)
                except ServiceError as error:
                    unexpected.append(error)

        async def put() -> None:
            await client.put_records("s", [PutEntry(b"x" * 1000, str(i)) for i in range(10)])

        async def read() -> None:
            token = await client.get_shard_iterator("s", "0", "TRIM_HORIZON")
            await client.get_records(token)

        async def split() -> None:
            shards = await client.list_shards("s")
            number = max((int(shard.shard_id[-12:]) for shard in shards), default=0)
            at = str(2**128 - 2**100 + 16 * number)
            request = {"StreamName": "s", "ShardToSplit": str(number), "NewStartingHashKey": at}
            await client.call("SplitShard", request)

        tasks = [asyncio.create_task(keep_doing(what)) for what in (put, put, read, split)]
        for _ in range(10):
            await client.ensure_stream("s", shards=1)
            moved.clear()
            await moved.wait()
            deletions = [client.call("DeleteStream", {"StreamName": "s"}) for _ in range(3)]
            results = await asyncio.gather(*deletions, return_exceptions=True)
            assert all(isinstance(r, dict | ResourceNotFound) for r in results)
            assert any(isinstance(r, dict) for r in results)
        done.set()
        await asyncio.gather(*tasks)
        assert unexpected == []
        assert list((tmp_path / "s" / "streams").iterdir()) == []


@pytest.mark.crash
def test_a_crash_while_a_stream_that_was_changing_is_deleted(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        kinesis = boto3_client(process.endpoint)
        create(kinesis, "s", 2)
        process.kill()
        slow = ServerProcess(tmp_path / "data", arguments=("--state-delay-ms", "60000"))
        with slow:
            waiting = boto3_client(slow.endpoint)
            waiting.update_shard_count(
                StreamName="s", TargetShardCount=4, ScalingType="UNIFORM_SCALING"
            )
            waiting.delete_stream(StreamName="s")
            slow.kill()
            waiting.close()
        process.start()
        assert kinesis.list_streams()["StreamNames"] == []
        kinesis.close()


class _FailingFiles(SystemFiles):
    """`refuse` is raised by so many syncs of the folder of streams."""

    refuse: Exception | None = None
    refusals = 0
    synced = 0

    def sync_dir(self, path: Path) -> None:
        if path.name == "streams":
            if self.refusals:
                self.refusals -= 1
                assert self.refuse is not None
                raise self.refuse
            self.synced += 1
        super().sync_dir(path)


async def test_what_is_forgotten_does_not_come_back_with_the_power(tmp_path: Path) -> None:
    """The first try renamed the folder, and could not sync that: the second must."""
    files, clock = _FailingFiles(), ManualClock()
    async with (
        server_here(tmp_path / "s", clock, files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        files.refuse, files.refusals = StorageFull("too many files are open"), 1
        before = files.synced
        await client.call("DeleteStream", {"StreamName": "s"})
        assert files.synced == before
        async with asyncio.timeout(20):
            while (await client.call("ListStreams", {}))["StreamNames"]:
                await clock.advance(1000)
        assert files.synced > before


async def test_a_stream_that_could_neither_be_made_nor_undone_goes_in_the_end(
    tmp_path: Path,
) -> None:
    files, clock = _FailingFiles(), ManualClock()
    async with (
        server_here(tmp_path / "s", clock, files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        files.refuse, files.refusals = OSError(errno.EIO, "Input/output error"), 3
        with pytest.raises(InternalFailure):
            await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        async with asyncio.timeout(20):
            while (await client.call("ListStreams", {}))["StreamNames"]:
                await clock.advance(1000)
        assert not files.refusals
        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        await client.wait_active("s")
