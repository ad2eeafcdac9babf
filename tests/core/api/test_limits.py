"""Limits of the control plane, where limits are on: calls a second, streams at once, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from api_support import ACCOUNT, boto3_client, raw_to, server_here
from headrace.core.client import StreamClient
from headrace.core.errors import LimitExceeded, ThroughputExceeded
from headrace.core.part import StreamTarget
from headrace.core.service.call_rates import RATES, CallRates, stream_named
from headrace.core.service.caller import LocalCaller
from headrace.core.stream_part import ensure_declared
from headrace.core.stream_section import StreamSpec
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess

ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/"
ONE = LocalCaller()


def admitted(rates: CallRates, operation: str, count: int, **request: str) -> int:
    """How many of `count` calls at once are let in."""
    passed = 0
    for _ in range(count):
        try:
            rates.admit(operation, ONE, request)
        except LimitExceeded:
            continue
        passed += 1
    return passed


# Calls a second


@pytest.mark.parametrize(("operation", "rate"), RATES.items())
async def test_so_many_calls_a_second(operation: str, rate: tuple[int, bool]) -> None:
    per_s, is_of_stream = rate
    clock = ManualClock()
    rates = CallRates(clock)
    assert admitted(rates, operation, per_s + 1, StreamName="s") == per_s
    # another stream has its own where the rate is a stream's
    assert admitted(rates, operation, 1, StreamName="t") == is_of_stream
    await clock.advance(1000 // per_s - 1)
    assert admitted(rates, operation, 1, StreamName="s") == 0
    await clock.advance(1)
    assert admitted(rates, operation, 2, StreamName="s") == 1
    await clock.advance(3_600_000)
    assert admitted(rates, operation, per_s + 1, StreamName="s") == per_s


def test_accounts_and_regions_have_their_own() -> None:
    rates = CallRates(ManualClock())
    for caller in (ONE, LocalCaller(account="1" * 12), LocalCaller(region="eu-west-1")):
        rates.admit("DescribeLimits", caller, {})
        with pytest.raises(LimitExceeded) as caught:
            rates.admit("DescribeLimits", caller, {})
        assert str(caught.value) == f"Rate exceeded for account {caller.account}."
    of_one = LocalCaller(account="1" * 12)
    with pytest.raises(LimitExceeded, match=r"^Rate exceeded for account 1{12}\.$"):
        for _ in range(6):
            rates.admit("CreateStream", of_one, {"StreamName": "s"})
    with pytest.raises(LimitExceeded, match=r"^Rate exceeded for stream s under account 1{12}\.$"):
        for _ in range(6):
            rates.admit("ListTagsForStream", of_one, {"StreamName": "s"})


def test_a_stream_by_any_of_its_names() -> None:
    rates = CallRates(ManualClock())
    assert admitted(rates, "ListTagsForStream", 3, StreamName="s") == 3
    assert admitted(rates, "ListTagsForStream", 3, StreamARN=ARN + "s") == 2
    assert stream_named({"ConsumerARN": f"{ARN}s/consumer/c:1"}) == "s"
    assert stream_named({"ResourceARN": f"{ARN}s/consumer/c:1"}) == "s"
    assert stream_named({}) == stream_named({"StreamARN": "nonsense"}) == ""


async def test_names_that_are_made_up_take_no_room_for_ever() -> None:
    clock = ManualClock()
    rates = CallRates(clock)
    for i in range(25_000):
        rates.admit("ListTagsForStream", ONE, {"StreamName": f"s{i}"})
        if i % 1000 == 0:
            await clock.advance(1000)
    assert len(rates._tanks) <= 10_000
    assert admitted(rates, "ListTagsForStream", 6, StreamName="s24999") == 4


def test_the_table_names_operations_that_declare_the_error() -> None:
    model = Session().get_service_model("kinesis")
    for operation in RATES:
        errors = [shape.name for shape in model.operation_model(operation).error_shapes]
        assert "LimitExceededException" in errors, operation


@dataclass
class Here:
    """A server with limits, on a clock of the test's own."""

    client: StreamClient
    clock: ManualClock

    async def create(self, name: str, **request: Any) -> None:
        wanted = {"StreamName": name, "ShardCount": 1, **request}
        await self.client.call("CreateStream", {k: v for k, v in wanted.items() if v is not None})

    async def streams(self) -> dict[str, str]:
        await self.clock.advance(1000)
        answer = await self.client.call("ListStreams", {})
        return {s["StreamName"]: s["StreamStatus"] for s in answer["StreamSummaries"]}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, limits="aws", state_delay_ms=60_000) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        yield Here(client, clock)


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Here]:
    """As `here`, but changes take no time."""
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, limits="aws") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        yield Here(client, clock)


async def test_shard_iterators_are_limited_by_shard(quick: Here) -> None:
    await quick.create("s", ShardCount=2)

    async def ask(shard: int) -> None:
        await quick.client.get_shard_iterator("s", f"shardId-{shard:012d}", "LATEST")

    for _ in range(5):
        await ask(0)
    with pytest.raises(ThroughputExceeded, match=r"^Rate exceeded for shard shardId-000000000000 "):
        await ask(0)
    await ask(1)
    await quick.clock.advance(200)
    await ask(0)


async def test_the_capacity_of_streams_that_are_gone_takes_no_room(tmp_path: Path) -> None:
    async with (
        server_here(tmp_path / "data", ManualClock(), limits="aws") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        capacity = server._dispatcher._reads._capacity
        assert capacity is not None
        for stream in "st":
            await client.ensure_stream(stream, shards=3)
            await client.get_shard_iterator(stream, "shardId-000000000001", "LATEST")
        assert len(capacity._shards) == 2
        await client.call("DeleteStream", {"StreamName": "s"})
        assert len(capacity._shards) == 1


# Streams at once


async def test_five_streams_are_creating_or_deleting_at_once(here: Here) -> None:
    for i in range(5):
        await here.create(f"s{i}")
    await here.clock.advance(1000)
    words = (
        "This request would have exceed the limit on the number of streams that can "
        f"simultaneously be in CREATING or DELETING for the account {ACCOUNT}. Limit: 5."
    )
    with pytest.raises(LimitExceeded) as caught:
        await here.create("s5")
    assert str(caught.value) == words
    assert list(await here.streams()) == [f"s{i}" for i in range(5)]
    await here.clock.advance(60_000)
    async with asyncio.timeout(20):
        while set((await here.streams()).values()) != {"ACTIVE"}:
            pass
    await here.create("s5")
    for i in range(4):
        await here.client.call("DeleteStream", {"StreamName": f"s{i}"})
    await here.clock.advance(1000)
    with pytest.raises(LimitExceeded, match="simultaneously be in CREATING or DELETING"):
        await here.client.call("DeleteStream", {"StreamName": "s4"})
    await here.client.call("DeleteStream", {"StreamName": "s3"})  # again is once
    assert (await here.streams())["s4"] == "ACTIVE"
    await here.clock.advance(60_000)
    async with asyncio.timeout(20):
        while len(await here.streams()) > 2:
            pass
    await here.client.call("DeleteStream", {"StreamName": "s4"})


async def test_side_by_side_no_more_get_in(here: Here) -> None:
    await here.create("s0")
    await here.clock.advance(1000)
    found = await asyncio.gather(*(here.create(f"t{i}") for i in range(5)), return_exceptions=True)
    assert sum(isinstance(result, LimitExceeded) for result in found) == 1
    assert len(await here.streams()) == 5


async def test_fifty_on_demand_streams(quick: Here) -> None:
    mode = {"ShardCount": None, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}
    limits = await quick.client.call("DescribeLimits", {})
    assert (limits["OnDemandStreamCount"], limits["OnDemandStreamCountLimit"]) == (0, 50)
    for i in range(50):
        await quick.create(f"s{i:02d}", **mode)
        await quick.clock.advance(200)
    with pytest.raises(LimitExceeded, match=r"streams in ON_DEMAND mode .* Limit: 50"):
        await quick.create("more", **mode)
    await quick.create("provisioned")
    switch = {"StreamARN": ARN + "provisioned", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}
    with pytest.raises(LimitExceeded, match="streams in ON_DEMAND mode"):
        await quick.client.call("UpdateStreamMode", switch)
    assert (await quick.client.call("DescribeLimits", {}))["OnDemandStreamCount"] == 50
    await quick.client.call("DeleteStream", {"StreamName": "s07"})
    await quick.client.call("UpdateStreamMode", switch)


async def test_without_limits_there_are_none(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, state_delay_ms=60_000) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        here = Here(client, clock)
        for i in range(8):
            await here.create(f"s{i}")
            await client.call("DescribeLimits", {})


# Through boto3, and what lives with limits


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Any]:
    with ServerProcess(tmp_path / "stream", arguments=("--limits", "aws")) as server:
        client = boto3_client(server.endpoint)
        yield client
        client.close()


def test_a_rate_through_boto3(limited: Any) -> None:
    codes, error = set(), {}
    for _ in range(80):  # one may pass in 200 ms
        with pytest.raises(ClientError) as caught:
            limited.list_tags_for_stream(StreamName="none")
        error = caught.value.response["Error"]
        codes.add(error["Code"])
        if len(codes) == 2:
            break
    assert codes == {"ResourceNotFoundException", "LimitExceededException"}
    assert error["Message"] == f"Rate exceeded for stream none under account {ACCOUNT}."
    with raw_to(limited.meta.endpoint_url) as raw:
        for _ in range(20):  # what is no request is not counted
            reply = raw.call("CreateStream", {"StreamName": "!", "ShardCount": 1})
            assert reply.json["__type"] == "ValidationException"


async def test_declared_streams_wait_for_their_turn(quick: Here) -> None:
    """Seven streams, where five may be created and twenty be described a second."""
    started_ms = quick.clock.monotonic_ms()

    async def declare() -> None:
        spec = StreamSpec.model_validate({"mode": "provisioned", "shards": 1})
        for i in range(7):
            await ensure_declared(quick.client, f"s{i}", spec, clock=quick.clock)

    declaring = asyncio.create_task(declare())
    async with asyncio.timeout(20):
        while not declaring.done():
            await asyncio.wait([declaring], timeout=0.01)
            if any(ms <= 1000 for ms in quick.clock.sleeping_ms):
                await quick.clock.advance(1000)
    await declaring
    assert len(await quick.streams()) == 7
    assert quick.clock.monotonic_ms() - started_ms > 1000
