"""UpdateShardCount: how many shards are left, how equal they are, that nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_support import ACCOUNT, create, hash_range, read_stream, refused, server_here, shards_of
from headrace.core.client import StreamClient
from headrace.core.control.machine import ControlState, apply
from headrace.core.control.settings import BeginUpdate, FinishUpdate
from headrace.core.control.stream_state import PendingUpdate, StreamState, stream_key
from headrace.core.control.streams import (
    ActivateStream,
    CreateStream,
    MergeShards,
    SplitShard,
)
from headrace.core.errors import LimitExceeded, ResourceInUse, ServiceError
from headrace.core.model.hashing import MAX_HASH_KEY
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess

WHOLE = MAX_HASH_KEY + 1


def scale(kinesis: Any, stream: str, target: int) -> dict[str, Any]:
    answer: dict[str, Any] = kinesis.update_shard_count(
        StreamName=stream, TargetShardCount=target, ScalingType="UNIFORM_SCALING"
    )
    return answer


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        (4, 5, 15),
        (10, 13, 37),
        (10, 3, 17),
        (2, 4, 6),
        (4, 2, 6),
        (4, 3, 11),
        (5, 3, 7),
        (3, 3, 3),
        (1, 8, 15),
    ],
)
def test_wire_37_shards_left_in_the_listing(
    kinesis: Any, name: str, before: int, after: int, left: int
) -> None:
    create(kinesis, name, before)
    answer = scale(kinesis, name, after)
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (before, after)
    assert (answer["StreamName"], answer["StreamARN"][-len(name) :]) == (name, name)
    shards = shards_of(kinesis, name)
    assert len(shards) == left
    still_open = [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
    assert len(still_open) == after
    sizes = [end - start + 1 for start, end in map(hash_range, still_open)]
    assert sum(sizes) == WHOLE
    # a border may stay where it is within an eighth of the new size, or two ninths
    slack = WHOLE // after // 4 if after >= before else WHOLE // after * 4 // 9
    assert min(sizes) >= WHOLE // after - slack - 1
    assert max(sizes) <= WHOLE // after + slack + after


def test_four_to_three_as_it_was_seen(kinesis: Any, name: str) -> None:
    create(kinesis, name, 4)
    scale(kinesis, name, 3)
    found = [
        (
            s["ShardId"][-2:],
            s.get("ParentShardId", "")[-2:],
            s.get("AdjacentParentShardId", "")[-2:],
        )
        for s in shards_of(kinesis, name)
        if "EndingSequenceNumber" not in s["SequenceNumberRange"]
    ]
    assert found == [("06", "00", "04"), ("09", "05", "07"), ("10", "08", "03")]


def test_records_before_and_after(kinesis: Any, name: str) -> None:
    create(kinesis, name, 3)
    for round_number, target in enumerate((5, 2, 7, 1)):
        kinesis.put_records(
            StreamName=name,
            Records=[
                {"Data": b"%d:%d" % (round_number, i), "PartitionKey": f"k{i}"} for i in range(50)
            ],
        )
        scale(kinesis, name, target)
    found = [r["Data"] for records in read_stream(kinesis, name).values() for r in records]
    assert sorted(found) == sorted(b"%d:%d" % (n, i) for n in range(4) for i in range(50))


def test_on_demand_streams_scale_themselves(kinesis: Any, name: str) -> None:
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    with refused(
        "ValidationException",
        f"Request is invalid. Stream {name} under account {ACCOUNT} is in On-Demand mode.",
    ):
        scale(kinesis, name, 5)


def test_wire_5_more_than_the_account_may_have(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused("LimitExceededException"):
        scale(kinesis, name, 20_001)
    with refused("LimitExceededException"):
        scale(kinesis, name, 10_001)
    assert len(shards_of(kinesis, name)) == 1


@pytest.mark.crash
def test_a_crash_while_updating_is_made_up_for(tmp_path: Path) -> None:
    from api_support import boto3_client

    arguments = ("--state-delay-ms", "60000")
    with ServerProcess(tmp_path / "data") as process:
        kinesis = boto3_client(process.endpoint)
        create(kinesis, "s", 4)
        process.kill()
        slow = ServerProcess(tmp_path / "data", arguments=arguments)
        with slow:
            waiting = boto3_client(slow.endpoint)
            scale(waiting, "s", 5)
            summary = waiting.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
            assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("UPDATING", 4)
            waiting.close()
        process.start()
        summary = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
        assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("ACTIVE", 5)
        kinesis.close()


async def test_updating_takes_its_time_and_puts_go_on(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, state_delay_ms=500) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def status() -> str:
            answer = await client.call("DescribeStreamSummary", {"StreamName": "s"})
            found: str = answer["StreamDescriptionSummary"]["StreamStatus"]
            return found

        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 2})
        await clock.advance(500)
        await client.wait_active("s")
        request = {"StreamName": "s", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"}
        await client.call("UpdateShardCount", request)
        assert await status() == "UPDATING"
        assert all(r.shard_id for r in await client.put_records("s", [PutEntry(b"x", "k")]))
        for operation, more in (
            ("UpdateShardCount", request),
            ("StartStreamEncryption", {"StreamName": "s", "EncryptionType": "KMS", "KeyId": "k"}),
            ("SplitShard", {"StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": "9"}),
        ):
            with pytest.raises(ResourceInUse, match="not ACTIVE, instead in state UPDATING"):
                await client.call(operation, more)
        assert len(await client.list_shards("s")) == 2
        await clock.advance(500)
        await client.wait_active("s")
        assert len(await client.list_shards("s")) == 6


async def test_splits_and_merges_take_their_time_too(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, state_delay_ms=500) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def after(operation: str, count: int, **request: str) -> None:
            await client.call(operation, {"StreamName": "s", **request})
            answer = await client.call("DescribeStreamSummary", {"StreamName": "s"})
            summary = answer["StreamDescriptionSummary"]
            assert (summary["StreamStatus"], summary["OpenShardCount"]) == ("UPDATING", opened)
            await clock.advance(500)
            await client.wait_active("s")
            assert len(await client.list_shards("s")) == count

        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        await clock.advance(500)
        await client.wait_active("s")
        opened = 1
        await after("SplitShard", 3, ShardToSplit="0", NewStartingHashKey="100")
        opened = 2
        await after("MergeShards", 4, ShardToMerge="1", AdjacentShardToMerge="2")
        for shard, text in (("0", "already been merged or split"), ("9", "Could not find shard")):
            with pytest.raises(ServiceError, match=text):
                await client.call(
                    "SplitShard",
                    {"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": "100"},
                )
        with pytest.raises(ServiceError, match="is not both greater than one plus"):
            await client.call(
                "SplitShard", {"StreamName": "s", "ShardToSplit": "3", "NewStartingHashKey": "1"}
            )
        await client.wait_active("s")  # what is refused leaves it as it was


async def test_limits_where_they_are_on(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, limits="aws") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def scale(target: int) -> None:
            await client.call(
                "UpdateShardCount",
                {"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"},
            )

        await client.ensure_stream("s", shards=4)
        for target in (9, 1):
            with pytest.raises(LimitExceeded, match="at most double and at least half"):
                await scale(target)
        await clock.advance(1000)  # ten calls a second
        for target in (8, 4) * 5:
            await scale(target)
        await clock.advance(1000)
        with pytest.raises(LimitExceeded, match="10 times within the last 24 hours"):
            await scale(8)
        await clock.advance(24 * 3600 * 1000)
        await scale(8)


async def test_producers_beside_it(tmp_path: Path) -> None:
    """What is put while shards come and go is there once, in order, in a shard that was open."""
    async with (
        server_here(tmp_path / "data") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=4)
        is_over = False

        async def produce(key: str) -> int:
            count = 0
            while not is_over:
                results = await client.put_records(
                    "s", [PutEntry(b"%s:%d" % (key.encode(), count + i), key) for i in range(5)]
                )
                assert all(result.sequence_number for result in results)
                count += 5
            return count

        producers = [asyncio.create_task(produce(f"k{i}")) for i in range(6)]
        for target in (7, 3, 16, 5, 6, 1, 4):
            await client.call(
                "UpdateShardCount",
                {"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"},
            )
        is_over = True
        counts = await asyncio.gather(*producers)
        shards = await client.list_shards("s")
        by_key: dict[bytes, list[tuple[int, bytes]]] = {}
        for shard in shards:
            token: str | None = await client.get_shard_iterator("s", shard.shard_id, "TRIM_HORIZON")
            while token is not None:
                got = await client.get_records(token)
                for record in got.records:
                    by_key.setdefault(record.data.partition(b":")[0], []).append(
                        (int(record.sequence_number), record.data)
                    )
                token = got.next_iterator
                if not got.records and token is not None:
                    break
        for i, count in enumerate(counts):
            key = b"k%d" % i
            expected = [b"%s:%d" % (key, n) for n in range(count)]
            assert [data for _, data in sorted(by_key[key])] == expected


# Properties of the state alone

steps = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("split"), st.integers(0, 60), st.integers(1, 15)),
        st.tuples(st.just("merge"), st.integers(0, 60), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 100_000), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), steps)
def test_ranges_tile_and_children_come_after_parents(first: int, story: list[Any]) -> None:
    state, at_ms = ControlState(), 1_790_000_000_000
    where: Any = {"account": "a", "region": "r", "name": "s"}
    apply(state, CreateStream(**where, uid="u", at_ms=at_ms, mode="PROVISIONED", shards=first))
    apply(state, ActivateStream(**where, uid="u"))
    stream = state.streams.streams[stream_key("a", "r", "s")]
    for kind, number, sixteenth in story:
        if kind == "wait":
            at_ms += number
        elif kind == "scale":
            pending = PendingUpdate(shard_count=number)
            apply(state, BeginUpdate(**where, uid="u", pending=pending, at_ms=at_ms))
            assert stream.status == "UPDATING"
            apply(state, FinishUpdate(**where, uid="u", at_ms=at_ms))
            assert stream.status == "ACTIVE"
            assert len(stream.open_shards) == number
        else:
            chosen = sorted(stream.open_shards, key=lambda s: int(s.start))
            one = chosen[number % len(chosen)]
            if kind == "split":
                at = one.range.start + (one.range.end - one.range.start) * sixteenth // 16
                command: Any = SplitShard(
                    **where, uid="u", shard=one.number, at=str(at), at_ms=at_ms
                )
            else:
                other = chosen[(number + 1) % len(chosen)]
                command = MergeShards(
                    **where, uid="u", shard=one.number, adjacent=other.number, at_ms=at_ms
                )
            before = len(stream.shards)
            try:
                apply(state, command)
            except ServiceError:
                assert len(stream.shards) == before
        check(stream)


def check(stream: StreamState) -> None:
    at = 0
    for shard in sorted(stream.open_shards, key=lambda s: int(s.start)):
        assert shard.range.start == at
        at = shard.range.end + 1
    assert at == WHOLE
    known = {shard.number: shard for shard in stream.shards}
    assert list(known) == list(range(len(stream.shards)))
    for shard in stream.shards:
        parents = [known[n] for n in (shard.parent, shard.adjacent_parent) if n is not None]
        for parent in parents:
            assert parent.number < shard.number
            assert not parent.is_open
            assert int(shard.starting_sequence_number) > int(parent.ending_sequence_number or 0)
        if len(parents) == 2:
            one, other = parents
            assert (one.range.start, other.range.end) == (shard.range.start, shard.range.end)
            assert one.range.is_adjacent_to(other.range)
        elif parents:
            assert parents[0].range.start <= shard.range.start
            assert shard.range.end <= parents[0].range.end
    for shard in stream.shards:
        children = [s for s in stream.shards if shard.number in (s.parent, s.adjacent_parent)]
        assert bool(children) != shard.is_open
        if shard.closed_s is not None:  # some shard was open at every time
            assert min(child.created_s for child in children) - shard.closed_s <= 1
