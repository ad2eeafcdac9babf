"""Modes, warm throughput, record size, monitoring, policies, limits: what is set and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api_support import ACCOUNT, boto3_client, create, iterator, refused, server_here, shards_of
from headrace.core.client import StreamClient
from headrace.core.errors import LimitExceeded
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock

METRICS = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
]


def summary(kinesis: Any, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = kinesis.describe_stream_summary(StreamName=stream)[
        "StreamDescriptionSummary"
    ]
    return found


def arn_of(kinesis: Any, stream: str) -> str:
    found: str = summary(kinesis, stream)["StreamARN"]
    return found


@pytest.fixture
def arn(kinesis: Any, name: str) -> str:
    """The ARN of a provisioned stream of two shards."""
    return arn_of(kinesis, create(kinesis, name, 2))


@pytest.fixture
def elastic(kinesis: Any, name: str) -> str:
    """The name of an on-demand stream."""
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    return name


# Mode


def test_switching_the_mode_keeps_the_shards(kinesis: Any, name: str, arn: str) -> None:
    before = shards_of(kinesis, name)
    for mode in ("ON_DEMAND", "PROVISIONED"):
        kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": mode})
        assert summary(kinesis, name)["StreamModeDetails"] == {"StreamMode": mode}
        assert shards_of(kinesis, name) == before


def test_on_demand_shards_are_not_resharded_by_hand(kinesis: Any, elastic: str) -> None:
    text = f"Request is invalid. Stream {elastic} under account {ACCOUNT} is in On-Demand mode."
    with refused("ValidationException", text):
        kinesis.split_shard(StreamName=elastic, ShardToSplit="0", NewStartingHashKey="100")
    with refused("ValidationException", text):
        kinesis.merge_shards(StreamName=elastic, ShardToMerge="0", AdjacentShardToMerge="1")
    assert len(shards_of(kinesis, elastic)) == 4


async def test_modes_are_switched_twice_a_day_where_limits_are_on(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "data", clock, limits="aws") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        stream_arn = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/s"

        async def switch(mode: str) -> None:
            await client.call(
                "UpdateStreamMode",
                {"StreamARN": stream_arn, "StreamModeDetails": {"StreamMode": mode}},
            )

        await client.ensure_stream("s", shards=1)
        await switch("ON_DEMAND")
        await switch("PROVISIONED")
        with pytest.raises(LimitExceeded, match="UpdateStreamMode was called 2 times"):
            await switch("ON_DEMAND")
        await clock.advance(24 * 3600 * 1000)
        await switch("ON_DEMAND")


# Warm throughput


def test_warm_throughput_wants_the_commitment(kinesis: Any, name: str, elastic: str) -> None:
    kinesis.update_account_settings(MinimumThroughputBillingCommitment={"Status": "DISABLED"})
    other = boto3_client(kinesis.meta.endpoint_url, region="eu-west-1")
    other.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    with refused("InvalidArgumentException"):
        other.update_stream_warm_throughput(StreamName=name, WarmThroughputMiBps=10)
    with refused("InvalidArgumentException"):
        other.create_stream(
            StreamName=f"{name}2",
            StreamModeDetails={"StreamMode": "ON_DEMAND"},
            WarmThroughputMiBps=10,
        )
    assert "WarmThroughput" not in summary(other, name)
    other.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    answer = other.update_stream_warm_throughput(StreamName=name, WarmThroughputMiBps=10)
    assert answer["WarmThroughput"] == {"TargetMiBps": 10, "CurrentMiBps": 10}
    assert summary(other, name)["WarmThroughput"] == {"TargetMiBps": 10, "CurrentMiBps": 10}
    assert summary(other, name)["OpenShardCount"] == 10  # a MiB/s is what a shard takes
    other.create_stream(
        StreamName=f"{name}2",
        StreamModeDetails={"StreamMode": "ON_DEMAND"},
        WarmThroughputMiBps=7,
    )
    assert summary(other, f"{name}2")["OpenShardCount"] == 7
    with refused("LimitExceededException"):
        other.update_stream_warm_throughput(StreamName=name, WarmThroughputMiBps=10_241)
    other.create_stream(StreamName=f"{name}3", ShardCount=1)
    with refused("InvalidArgumentException"):
        other.update_stream_warm_throughput(StreamName=f"{name}3", WarmThroughputMiBps=10)
    with refused("InvalidArgumentException"):
        other.update_stream_mode(
            StreamARN=arn_of(other, f"{name}3"),
            StreamModeDetails={"StreamMode": "PROVISIONED"},
            WarmThroughputMiBps=10,
        )
    other.update_stream_mode(
        StreamARN=arn_of(other, f"{name}3"),
        StreamModeDetails={"StreamMode": "ON_DEMAND"},
        WarmThroughputMiBps=3,
    )
    assert summary(other, f"{name}3")["OpenShardCount"] == 3
    other.close()


# Record size


def test_the_record_size_is_raised(kinesis: Any, name: str, arn: str) -> None:
    large = b"x" * (1024 * 1024)
    text = (
        "1 validation error detected: Value at 'data' failed to satisfy constraint: "
        "Member must have length less than or equal to 1048576"
    )
    with refused("ValidationException", text):
        kinesis.put_record(StreamName=name, Data=large, PartitionKey="k")
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=2048)
    assert summary(kinesis, name)["MaxRecordSizeInKiB"] == 2048
    kinesis.put_record(StreamName=name, Data=large, PartitionKey="k", ExplicitHashKey="0")
    (record,) = kinesis.get_records(ShardIterator=iterator(kinesis, name))["Records"]
    assert record["Data"] == large
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=1024)
    with refused("ValidationException", text):
        kinesis.put_record(StreamName=name, Data=large, PartitionKey="k")


@pytest.mark.parametrize(
    ("size", "bound"),
    [(1023, "greater than or equal to 1024"), (10241, "less than or equal to 10240")],
)
def test_wire_23_bounds_of_the_record_size(
    unchecked: Any, kinesis: Any, name: str, size: int, bound: str
) -> None:
    arn = arn_of(kinesis, create(kinesis, name))
    with refused(
        "ValidationException",
        f"1 validation error detected: Value '{size}' at 'maxRecordSizeInKiB' failed to satisfy "
        f"constraint: Member must have value {bound}",
    ):
        unchecked.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=size)


# Monitoring


def test_metrics_are_added_and_taken_away(kinesis: Any, name: str, arn: str) -> None:
    assert summary(kinesis, name)["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}]
    answer = kinesis.enable_enhanced_monitoring(
        StreamName=name, ShardLevelMetrics=["OutgoingBytes", "IncomingBytes"]
    )
    assert answer["StreamARN"] == arn
    assert answer["CurrentShardLevelMetrics"] == []
    assert answer["DesiredShardLevelMetrics"] == ["IncomingBytes", "OutgoingBytes"]
    answer = kinesis.enable_enhanced_monitoring(StreamARN=arn, ShardLevelMetrics=["ALL"])
    assert answer["CurrentShardLevelMetrics"] == ["IncomingBytes", "OutgoingBytes"]
    assert answer["DesiredShardLevelMetrics"] == METRICS
    answer = kinesis.disable_enhanced_monitoring(
        StreamName=name, ShardLevelMetrics=["IncomingRecords", "IncomingBytes"]
    )
    left = [m for m in METRICS if m not in ("IncomingRecords", "IncomingBytes")]
    assert answer["DesiredShardLevelMetrics"] == left
    shown = kinesis.describe_stream(StreamName=name)["StreamDescription"]["EnhancedMonitoring"]
    assert shown == [{"ShardLevelMetrics": left}]
    kinesis.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])
    assert summary(kinesis, name)["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}]


# Policies

POLICY = '{"Version": "2012-10-17", "Statement": []}'


def test_wire_38_a_policy_never_set_reads_as_nothing(kinesis: Any, arn: str) -> None:
    assert kinesis.get_resource_policy(ResourceARN=arn)["Policy"] == "{}"
    with refused("ResourceNotFoundException", f"No resource policy found for resource ARN {arn}."):
        kinesis.delete_resource_policy(ResourceARN=arn)


def test_policies_of_streams_and_consumers(kinesis: Any, arn: str) -> None:
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"][
        "ConsumerARN"
    ]
    kinesis.put_resource_policy(ResourceARN=consumer, Policy=POLICY)
    assert kinesis.get_resource_policy(ResourceARN=consumer)["Policy"] == POLICY
    assert kinesis.get_resource_policy(ResourceARN=arn)["Policy"] == "{}"
    kinesis.put_resource_policy(ResourceARN=arn, Policy="{}")
    kinesis.delete_resource_policy(ResourceARN=consumer)
    assert kinesis.get_resource_policy(ResourceARN=consumer)["Policy"] == "{}"
    kinesis.delete_resource_policy(ResourceARN=arn)


@pytest.mark.parametrize("policy", ["", "x", "[]", "1", "{", '"{}"', "[" * 5000])
def test_a_policy_is_a_json_object(kinesis: Any, name: str, policy: str) -> None:
    arn = arn_of(kinesis, create(kinesis, name))
    with refused("InvalidArgumentException", "The Policy must be a JSON object."):
        kinesis.put_resource_policy(ResourceARN=arn, Policy=policy)


# Limits and account settings, in a region of their own


def test_limits_count_streams_and_shards(kinesis: Any) -> None:
    here = boto3_client(kinesis.meta.endpoint_url, region="ap-south-1")
    before = here.describe_limits()
    assert (before["OpenShardCount"], before["OnDemandStreamCount"]) == (0, 0)
    # the number of on-demand streams is not limited unless limits are on: then it is 50
    assert (before["ShardLimit"], before["OnDemandStreamCountLimit"]) == (20_000, 1_000_000)
    create(here, "a", 3)
    here.create_stream(StreamName="b", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    after = here.describe_limits()
    assert (after["OpenShardCount"], after["OnDemandStreamCount"]) == (7, 1)
    here.close()


def test_account_settings_are_of_a_region(kinesis: Any) -> None:
    one = boto3_client(kinesis.meta.endpoint_url, region="eu-north-1")
    other = boto3_client(kinesis.meta.endpoint_url, region="eu-south-1")
    assert one.describe_account_settings()["MinimumThroughputBillingCommitment"] == {
        "Status": "DISABLED"
    }
    answer = one.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    described = one.describe_account_settings()
    for found in (answer, described):
        commitment = found["MinimumThroughputBillingCommitment"]
        assert commitment["Status"] == "ENABLED"
        assert commitment["StartedAt"] < commitment["EarliestAllowedEndAt"]
    again = one.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
    assert (
        again["MinimumThroughputBillingCommitment"]
        == described["MinimumThroughputBillingCommitment"]
    )
    assert other.describe_account_settings()["MinimumThroughputBillingCommitment"] == {
        "Status": "DISABLED"
    }
    one.close()
    other.close()
