"""The capacity of a shard: what the tank gives, when, and what a client is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from conftest import boto3_kinesis
from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.errors import ThroughputExceeded
from headrace.core.limits import MIB
from headrace.core.service.capacity import Capacity
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.testing.server_process import ServerProcess


def stream(max_record_kib: int = 1024) -> StreamState:
    shards = [
        ShardState(number=0, start="0", end=str(2**127 - 1), created_s=1),
        ShardState(number=1, start=str(2**127), end=str(2**128 - 1), created_s=1),
    ]
    return StreamState(
        uid="u", account="1", region="r", name="s", created_ms=1000, mode="PROVISIONED",
        status="ACTIVE", shards=shards, max_record_kib=max_record_kib,
    )  # fmt: skip


def admit(
    capacity: Capacity, where: StreamState, sizes: list[int], shard: int = 0, once: bool = False
) -> list[int]:
    """Indexes that were refused."""
    routes = [shard] * len(sizes)
    return sorted(capacity.admit(where, where.shards, routes, sizes, in_order=once))


async def test_a_thousand_records_a_second_and_not_one_more() -> None:
    clock = ManualClock()
    capacity = Capacity(clock)
    assert admit(capacity, stream(), [1] * 1001) == [1000]
    assert admit(capacity, stream(), [1]) == [0]
    await clock.advance(10)
    assert admit(capacity, stream(), [1] * 11) == [10]


async def test_a_mebibyte_a_second_and_small_ones_pass_where_a_large_one_does_not() -> None:
    clock = ManualClock()
    capacity = Capacity(clock)
    assert admit(capacity, stream(), [MIB - 100, 200, 100]) == [1]
    await clock.advance(500)
    assert admit(capacity, stream(), [MIB // 2, 1]) == [1]


async def test_shards_have_their_own_and_idle_time_saves_up_one_second() -> None:
    clock = ManualClock()
    capacity = Capacity(clock)
    assert admit(capacity, stream(), [MIB]) == []
    assert admit(capacity, stream(), [MIB], shard=1) == []
    await clock.advance(60_000)
    assert admit(capacity, stream(), [MIB, 1]) == [1]


async def test_a_stream_of_large_records_saves_up_ten_mebibytes() -> None:
    clock = ManualClock()
    capacity = Capacity(clock)
    where = stream(max_record_kib=10240)
    assert admit(capacity, where, [10 * MIB]) == []
    await clock.advance(9_000)
    assert admit(capacity, where, [10 * MIB]) == [0]
    await clock.advance(1_000)
    assert admit(capacity, where, [10 * MIB]) == []


async def test_a_larger_record_size_holds_at_once_and_so_does_a_smaller_one() -> None:
    clock = ManualClock()
    capacity = Capacity(clock)
    assert admit(capacity, stream(), [10]) == []
    assert admit(capacity, stream(10240), [2 * MIB]) == []
    await clock.advance(60_000)
    assert admit(capacity, stream(), [2 * MIB]) == [0]


def test_a_producers_refused_record_takes_the_later_ones_of_its_shard_with_it() -> None:
    capacity = Capacity(ManualClock())
    where = stream()
    sizes = [10, MIB, 10, 10]
    refused = capacity.admit(where, where.shards, [0, 0, 0, 1], sizes, in_order=True)
    assert sorted(refused) == [1, 2]
    assert refused[1] == (
        "Rate exceeded for shard shardId-000000000000 in stream s under account 1."
    )


async def test_five_reads_a_second_and_a_full_answer_is_made_up_for_in_five_seconds() -> None:
    clock = ManualClock()
    capacity = Capacity(clock)
    where = stream()
    shard = where.shards[0]
    for _ in range(5):
        capacity.check_read(where, shard)
    with pytest.raises(ThroughputExceeded):
        capacity.check_read(where, shard)
    await clock.advance(1000)
    capacity.check_read(where, shard)
    capacity.charge_read(where, shard, 10 * MIB)
    await clock.advance(4_999)
    with pytest.raises(ThroughputExceeded):
        capacity.check_read(where, shard)
    await clock.advance(1)
    capacity.check_read(where, shard)


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Any]:
    """boto3 on a server with AWS's limits, and one shard."""
    with ServerProcess(tmp_path / "stream", arguments=("--limits", "aws")) as server:
        kinesis = boto3_kinesis(server.endpoint)
        kinesis.create_stream(StreamName="s", ShardCount=1)
        yield kinesis
        kinesis.close()


def test_put_records_refuses_record_by_record(limited: Any) -> None:
    records = [{"Data": b"x" * 400_000, "PartitionKey": "k"} for _ in range(4)]
    answer = limited.put_records(StreamName="s", Records=records)
    assert answer["FailedRecordCount"] == 2
    codes = [record.get("ErrorCode") for record in answer["Records"]]
    assert codes == [None, None] + ["ProvisionedThroughputExceededException"] * 2
    assert "SequenceNumber" not in answer["Records"][3]
    numbers = [record["SequenceNumber"] for record in answer["Records"][:2]]
    with pytest.raises(ClientError, match="Rate exceeded for shard shardId-000000000000") as caught:
        for _ in range(20):  # unless this machine stops for most of a second, the first
            stored = limited.put_record(StreamName="s", Data=b"x" * 1_000_000, PartitionKey="k")
            numbers.append(stored["SequenceNumber"])
    assert caught.value.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
    iterator = limited.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    found = [r["SequenceNumber"] for r in limited.get_records(ShardIterator=iterator)["Records"]]
    assert len(found) >= 2 and found == numbers[: len(found)]


def test_dry_runs_know_the_limits_and_take_nothing_of_them(limited: Any) -> None:
    put = {"StreamName": "s", "Data": b"x" * 1_000_000, "PartitionKey": "k"}
    iterator = limited.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]

    def outcome_of(call: Callable[..., object], **request: Any) -> str:
        with pytest.raises(ClientError) as caught:
            call(**request, DryRun=True)
        return str(caught.value.response["Error"]["Code"])

    for _ in range(20):
        assert outcome_of(limited.put_record, **put) == "DryRunOperationException"
        assert outcome_of(limited.get_records, ShardIterator=iterator) == "DryRunOperationException"
    limited.put_record(**put)  # all that the shard takes in a second is there yet
    limited.get_records(ShardIterator=iterator)
    with pytest.raises(ClientError):
        for _ in range(20):
            limited.put_record(**put)
    full = "ProvisionedThroughputExceededException"
    outcomes = set()
    for _ in range(20):  # unless this machine stops for most of a second, the first
        with contextlib.suppress(ClientError):
            limited.put_record(**put)
        outcomes.add(outcome_of(limited.put_record, **put))
    assert full in outcomes
    with contextlib.suppress(ClientError):
        for _ in range(50):
            limited.get_records(ShardIterator=iterator)
    assert outcome_of(limited.get_records, ShardIterator=iterator) == full


def test_reads_are_refused_after_five_a_second(limited: Any) -> None:
    iterator = limited.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    with pytest.raises(ClientError) as caught:
        for _ in range(50):
            limited.get_records(ShardIterator=iterator)
    assert caught.value.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
