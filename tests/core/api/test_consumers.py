"""Registered consumers: their life, their limits, how they are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from api_support import ACCOUNT, create, refused, server_here
from headrace.core.client import StreamClient
from headrace.core.errors import ExpiredNextToken, LimitExceeded, ResourceInUse, ResourceNotFound
from headrace.core.limits import COMMITMENT_MS
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess


@pytest.fixture
def arn(kinesis: Any, name: str) -> str:
    create(kinesis, name)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    found: str = summary["StreamARN"]
    return found


def register(kinesis: Any, arn: str, consumer: str = "c") -> str:
    answer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=consumer)
    found: str = answer["Consumer"]["ConsumerARN"]
    return found


def test_wire_36_the_arn_ends_in_the_creation_time(kinesis: Any, arn: str) -> None:
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]
    assert consumer["ConsumerStatus"] == "CREATING"
    assert consumer["ConsumerName"] == "c"
    second = int(consumer["ConsumerCreationTimestamp"].timestamp())
    assert consumer["ConsumerARN"] == f"{arn}/consumer/c:{second}"
    described = kinesis.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
    assert described["ConsumerDescription"] == {
        **consumer, "ConsumerStatus": "ACTIVE", "StreamARN": arn,
    }  # fmt: skip


def test_named_by_arn_or_by_stream_and_name(kinesis: Any, arn: str) -> None:
    consumer = register(kinesis, arn)
    ways: list[dict[str, str]] = [
        {"ConsumerARN": consumer},
        {"StreamARN": arn, "ConsumerName": "c"},
        {"StreamARN": arn, "ConsumerName": "c", "ConsumerARN": consumer},
    ]
    for way in ways:
        found = kinesis.describe_stream_consumer(**way)["ConsumerDescription"]
        assert found["ConsumerARN"] == consumer
    for way in (
        {},
        {"StreamARN": arn},
        {"ConsumerName": "c"},
        {"ConsumerARN": consumer, "ConsumerName": "d"},
        {"ConsumerARN": consumer, "StreamARN": f"{arn}2"},
    ):
        with refused("InvalidArgumentException"):
            kinesis.describe_stream_consumer(**way)


def test_a_name_is_taken_once(kinesis: Any, name: str, arn: str) -> None:
    register(kinesis, arn)
    with refused(
        "ResourceInUseException",
        f"Consumer c under stream {name} already exists for account {ACCOUNT}.",
    ):
        register(kinesis, arn)


def test_unknown_ones(kinesis: Any, arn: str) -> None:
    with refused("ResourceNotFoundException", f"Consumer c, account {ACCOUNT} not found."):
        kinesis.describe_stream_consumer(StreamARN=arn, ConsumerName="c")
    consumer = register(kinesis, arn)
    kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    with refused("ResourceNotFoundException", f"Consumer {consumer}, account {ACCOUNT} not found."):
        kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    with refused("ResourceNotFoundException"):
        register(kinesis, f"{arn}2")


def test_twenty_a_stream(kinesis: Any, name: str, arn: str) -> None:
    for i in range(20):
        register(kinesis, arn, f"c{i}")
    with refused("LimitExceededException"):
        register(kinesis, arn, "c20")
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["ConsumerCount"] == 20
    kinesis.deregister_stream_consumer(StreamARN=arn, ConsumerName="c7")
    register(kinesis, arn, "c20")


def test_pages_by_name(kinesis: Any, arn: str) -> None:
    names = [f"c{i:02}" for i in range(12)]
    for name in reversed(names):
        register(kinesis, arn, name)
    pages = kinesis.get_paginator("list_stream_consumers").paginate(
        StreamARN=arn, PaginationConfig={"PageSize": 5}
    )
    found = [[c["ConsumerName"] for c in page["Consumers"]] for page in pages]
    assert found == [names[:5], names[5:10], names[10:]]
    everything = kinesis.list_stream_consumers(StreamARN=arn)
    assert [c["ConsumerName"] for c in everything["Consumers"]] == names
    assert "NextToken" not in everything


def test_tokens_are_the_stream_s_own(kinesis: Any, name: str, arn: str) -> None:
    for i in range(2):
        register(kinesis, arn, f"c{i}")
    token = kinesis.list_stream_consumers(StreamARN=arn, MaxResults=1)["NextToken"]
    create(kinesis, f"{name}-2")
    for bad in ("x", token[:-4]):
        with refused("InvalidArgumentException", "Invalid NextToken."):
            kinesis.list_stream_consumers(StreamARN=arn, NextToken=bad)
    with refused("InvalidArgumentException"):
        kinesis.list_stream_consumers(StreamARN=f"{arn}-2", NextToken=token)


def test_stream_creation_timestamp_tells_streams_apart(kinesis: Any, name: str, arn: str) -> None:
    register(kinesis, arn)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    made = summary["StreamCreationTimestamp"]
    answer = kinesis.list_stream_consumers(StreamARN=arn, StreamCreationTimestamp=made)
    assert len(answer["Consumers"]) == 1
    assert kinesis.list_shards(StreamName=name, StreamCreationTimestamp=made)["Shards"]
    for wrong in (0, made.timestamp() + 2):
        with refused("ResourceNotFoundException"):
            kinesis.list_stream_consumers(StreamARN=arn, StreamCreationTimestamp=wrong)
        with refused("ResourceNotFoundException"):
            kinesis.list_shards(StreamName=name, StreamCreationTimestamp=wrong)


def test_a_stream_with_consumers_is_not_deleted_by_accident(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    register(kinesis, arn)
    with refused("ResourceInUseException"):
        kinesis.delete_stream(StreamName=name)
    with refused("ResourceInUseException"):
        kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=False)
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    create(kinesis, name)
    assert kinesis.list_stream_consumers(StreamARN=arn)["Consumers"] == []


@pytest.mark.crash
def test_consumers_survive_kill_9(tmp_path: Path) -> None:
    from api_support import boto3_client

    with ServerProcess(tmp_path / "data") as process:
        kinesis = boto3_client(process.endpoint)
        create(kinesis, "s")
        arn = kinesis.describe_stream(StreamName="s")["StreamDescription"]["StreamARN"]
        kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c", Tags={"a": "b"})
        kinesis.put_resource_policy(ResourceARN=arn, Policy='{"Version": "2012-10-17"}')
        before = kinesis.describe_stream_consumer(StreamARN=arn, ConsumerName="c")
        process.kill()
        process.start()
        after = kinesis.describe_stream_consumer(StreamARN=arn, ConsumerName="c")
        assert after["ConsumerDescription"] == before["ConsumerDescription"]
        consumer = before["ConsumerDescription"]["ConsumerARN"]
        tags = kinesis.list_tags_for_resource(ResourceARN=consumer)["Tags"]
        assert tags == [{"Key": "a", "Value": "b"}]
        assert kinesis.get_resource_policy(ResourceARN=arn)["Policy"] == '{"Version": "2012-10-17"}'
        kinesis.close()


# Time, owned by the test

STREAM_ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/s"


async def test_creating_and_deleting_take_their_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, state_delay_ms=500) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def status() -> str:
            answer = await client.call(
                "DescribeStreamConsumer", {"StreamARN": STREAM_ARN, "ConsumerName": "c"}
            )
            found: str = answer["ConsumerDescription"]["ConsumerStatus"]
            return found

        async def register(name: str) -> str:
            answer = await client.call(
                "RegisterStreamConsumer", {"StreamARN": STREAM_ARN, "ConsumerName": name}
            )
            arn: str = answer["Consumer"]["ConsumerARN"]
            return arn

        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        with pytest.raises(ResourceInUse, match="not ACTIVE, instead in state CREATING"):
            await register("c")
        await clock.advance(500)
        await client.wait_active("s")
        arn = await register("c")
        assert await status() == "CREATING"
        subscription = {
            "ConsumerARN": arn, "ShardId": "shardId-0", "StartingPosition": {"Type": "LATEST"},
        }  # fmt: skip
        with pytest.raises(ResourceInUse) as refusal:
            await client.call("SubscribeToShard", subscription)
        assert re.fullmatch(
            rf"Consumer c with creation timestamp \d+ under stream s and account {ACCOUNT} is not "
            "in ACTIVE status.",
            refusal.value.message,
        )
        await client.call("DeregisterStreamConsumer", {"ConsumerARN": await register("undone")})
        for i in range(4):
            await register(f"c{i}")
        with pytest.raises(LimitExceeded, match="5 consumers in state CREATING"):
            await register("one-too-many")
        await clock.advance(500)
        while await status() == "CREATING":
            await clock.settle()
        await register("room-again")
        await client.call("DeregisterStreamConsumer", {"ConsumerARN": arn})
        assert await status() == "DELETING"
        await client.call("DeregisterStreamConsumer", {"ConsumerARN": arn})  # once is enough
        await clock.advance(500)
        with pytest.raises(ResourceNotFound):
            while await status() == "DELETING":
                await clock.settle()


async def test_tokens_expire_after_five_minutes(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        for name in "ab":
            await client.call(
                "RegisterStreamConsumer", {"StreamARN": STREAM_ARN, "ConsumerName": name}
            )
        page = await client.call("ListStreamConsumers", {"StreamARN": STREAM_ARN, "MaxResults": 1})
        more = {"StreamARN": STREAM_ARN, "NextToken": page["NextToken"]}
        await clock.advance(300_000)
        rest = await client.call("ListStreamConsumers", more)
        assert [c["ConsumerName"] for c in rest["Consumers"]] == ["b"]
        await clock.advance(1)
        with pytest.raises(ExpiredNextToken):
            await client.call("ListStreamConsumers", more)


async def test_fifty_with_a_commitment(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s")

        async def register(count: int, prefix: str) -> int:
            for i in range(count):
                try:
                    await client.call(
                        "RegisterStreamConsumer",
                        {"StreamARN": STREAM_ARN, "ConsumerName": f"{prefix}{i}"},
                    )
                except LimitExceeded:
                    return i
            return count

        async def commit(status: str) -> str:
            answer = await client.call(
                "UpdateAccountSettings", {"MinimumThroughputBillingCommitment": {"Status": status}}
            )
            found: str = answer["MinimumThroughputBillingCommitment"]["Status"]
            return found

        assert await register(60, "a") == 20
        assert await commit("ENABLED") == "ENABLED"
        assert await register(60, "b") == 30
        # it lasts for a day at least
        assert await commit("DISABLED") == "ENABLED_UNTIL_EARLIEST_ALLOWED_END"
        settings = await client.call("DescribeAccountSettings", {})
        commitment = settings["MinimumThroughputBillingCommitment"]
        assert commitment["EarliestAllowedEndAt"] - commitment["StartedAt"] == COMMITMENT_MS / 1000
        await clock.advance(COMMITMENT_MS)
        settings = await client.call("DescribeAccountSettings", {})
        commitment = settings["MinimumThroughputBillingCommitment"]
        assert commitment["Status"] == "DISABLED"
        assert commitment["EndedAt"] - commitment["StartedAt"] == COMMITMENT_MS / 1000
