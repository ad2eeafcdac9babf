"""CreateStream: what it makes, what it refuses, and in which words."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from api_support import (
    ACCOUNT,
    TOP,
    Raw,
    boto3_client,
    create,
    hash_range,
    refused,
    reply_is,
    server_here,
    shards_of,
)
from headrace.core.client import StreamClient
from headrace.core.errors import InternalFailure, ResourceInUse, ResourceNotFound
from headrace.core.part import StreamTarget
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from headrace.core.testing.server_process import ServerProcess

# Serialization

NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"StreamName": 23}, f"{NUMBER} can not be converted to an String"),
        ({"StreamName": ["a"]}, "Start of list found where not expected"),
        ({"StreamName": "a", "ShardCount": "1"}, None),
        ([], "Start of list found where not expected"),
    ],
)
def test_wire_29_wrong_types(raw: Raw, body: object, message: str | None) -> None:
    reply = raw.call("CreateStream", body)
    assert reply.status == 400
    assert reply.json["__type"] == "SerializationException"
    if message is not None:
        assert reply.json["Message"] == message


def test_success_has_an_empty_body(raw: Raw, name: str) -> None:
    reply = raw.call("CreateStream", {"StreamName": name, "ShardCount": 1})
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == "0"


# Validation


def test_wire_23_several_errors_at_once(unchecked: Any) -> None:
    with refused(
        "ValidationException",
        "3 validation errors detected: "
        "Value '&' at 'streamName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; "
        "Value '0' at 'shardCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1; "
        "Value '1' at 'maxRecordSizeInKiB' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1024",
    ):
        unchecked.create_stream(StreamName="&", ShardCount=0, MaxRecordSizeInKiB=1)


def test_wire_2_a_name_is_taken_once(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    with refused(
        "ResourceInUseException", f"Stream {name} under account {ACCOUNT} already exists."
    ):
        create(kinesis, name)


@pytest.mark.parametrize("count", [20_001, 2**31 - 1])
def test_wire_5_the_shard_limit(server: ServerProcess, count: int) -> None:
    kinesis = boto3_client(server.endpoint, region="eu-north-1")
    with refused(
        "LimitExceededException",
        f"This request would exceed the shard limit for the account {ACCOUNT} in eu-north-1. "
        "Current shard count for the account: 0. Limit: 20000. Number of additional shards that "
        f"would have resulted from this request: {count}. Refer to the AWS Service Limits page "
        "(http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current "
        "limits and how to request higher limits.",
    ):
        create(kinesis, "too-many", count)
    assert kinesis.list_streams()["StreamNames"] == []


def test_a_provisioned_stream_needs_a_shard_count(kinesis: Any, name: str) -> None:
    with refused("InvalidArgumentException"):
        kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "PROVISIONED"})


def test_an_on_demand_stream_takes_no_shard_count(kinesis: Any, name: str) -> None:
    with refused("InvalidArgumentException"):
        create(kinesis, name, 3, StreamModeDetails={"StreamMode": "ON_DEMAND"})


# Behaviour


def test_the_shards_tile_all_hash_keys(kinesis: Any, name: str) -> None:
    create(kinesis, name, 3)
    shards = shards_of(kinesis, name)
    assert [shard["ShardId"] for shard in shards] == [f"shardId-{n:012d}" for n in range(3)]
    # the ends that AWS shows for three shards
    assert list(map(hash_range, shards)) == [
        (0, 113427455640312821154458202477256070484),
        (113427455640312821154458202477256070485, 226854911280625642308916404954512140969),
        (226854911280625642308916404954512140970, TOP),
    ]
    for shard in shards:
        assert re.fullmatch(r"\d{56}", shard["SequenceNumberRange"]["StartingSequenceNumber"])
        assert "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        assert "ParentShardId" not in shard


def test_wire_36_an_on_demand_stream_starts_with_four_shards(kinesis: Any, name: str) -> None:
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 4
    assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


def test_a_stream_of_which_nothing_is_said_is_on_demand(kinesis: Any, name: str) -> None:
    kinesis.create_stream(StreamName=name)  # as in the AWS CLI's tutorial
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 4
    assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


def test_names_of_every_allowed_form(kinesis: Any) -> None:
    for name in ("a", ".", "-", "_.-", "n" * 128):
        create(kinesis, name)
        kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k")
        kinesis.delete_stream(StreamName=name)


def test_the_same_name_in_two_regions_is_two_streams(server: ServerProcess, name: str) -> None:
    here, there = (boto3_client(server.endpoint, region=r) for r in ("us-east-1", "eu-west-1"))
    create(here, name, 1)
    with refused("ResourceNotFoundException", f"Stream {name} under account {ACCOUNT} not found."):
        there.describe_stream(StreamName=name)
    create(there, name, 2)
    assert len(shards_of(here, name)) == 1
    assert len(shards_of(there, name)) == 2
    arn = there.describe_stream(StreamName=name)["StreamDescription"]["StreamARN"]
    assert arn == f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/{name}"
    # an ARN does not reach into another region, nor into another account
    for other in (arn, arn.replace(ACCOUNT, "111111111111").replace("eu-west-1", "us-east-1")):
        with refused("ResourceNotFoundException"):
            here.describe_stream(StreamARN=other)
    here.delete_stream(StreamName=name)
    assert there.describe_stream_summary(StreamName=name)


def test_a_stream_made_again_is_empty(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.put_record(StreamName=name, Data=b"of the first", PartitionKey="k")
    old = kinesis.get_shard_iterator(
        StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    kinesis.delete_stream(StreamName=name)
    create(kinesis, name)
    with refused("ResourceNotFoundException"):
        kinesis.get_records(ShardIterator=old)
    new = kinesis.get_shard_iterator(
        StreamName=name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert kinesis.get_records(ShardIterator=new)["Records"] == []


def test_more_streams_than_the_soft_limit_of_open_files(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", soft_open_files=64) as process,
        contextlib.closing(boto3_client(process.endpoint)) as kinesis,
    ):
        for i in range(80):
            create(kinesis, f"s{i}")
            kinesis.put_record(StreamName=f"s{i}", Data=b"x", PartitionKey="k")


async def test_creating_takes_as_long_as_it_is_told(tmp_path: Path) -> None:
    async with (
        server_here(tmp_path / "s", state_delay_ms=300) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.call("CreateStream", {"StreamName": "slow", "ShardCount": 2})
        described = (await client.call("DescribeStream", {"StreamName": "slow"}))[
            "StreamDescription"
        ]
        assert (described["StreamStatus"], described["Shards"]) == ("CREATING", [])
        # wire.md 4 and 3
        with pytest.raises(ResourceNotFound, match=r"Stream slow under account \d+ not found"):
            await client.call("PutRecord", {"StreamName": "slow", "Data": "", "PartitionKey": "k"})
        with pytest.raises(
            ResourceInUse, match=r"Stream slow under account \d+ not ACTIVE, instead in state CREAT"
        ):
            await client.call(
                "SplitShard",
                {"StreamName": "slow", "ShardToSplit": "shardId-0", "NewStartingHashKey": "9"},
            )
        with pytest.raises(ResourceInUse, match="not ACTIVE, instead in state CREATING"):
            await client.call("ListShards", {"StreamName": "slow"})
        assert await client.list_shards("slow") == []
        await client.wait_active("slow")
        assert len(await client.list_shards("slow")) == 2


async def test_no_space_for_a_new_stream_leaves_nothing_of_it(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with (
        server_here(tmp_path / "s", files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        files.fail_always("allocate", no_space)
        with pytest.raises(Exception, match="no space left") as caught:
            await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        assert not isinstance(caught.value, InternalFailure)
        assert (await client.call("ListStreams", {}))["StreamNames"] == []
        files.heal()
        await client.ensure_stream("s", shards=1)


def test_names_of_other_forms(raw: Raw) -> None:
    for bad in ("a\n", "ä", "a/b", ""):
        reply = raw.call("CreateStream", {"StreamName": bad, "ShardCount": 1})
        assert reply.json["__type"] == "ValidationException", bad


def test_unknown_members_are_left_out(raw: Raw, name: str) -> None:
    reply = raw.call("CreateStream", {"StreamName": name, "ShardCount": 1, "Colour": {"a": []}})
    assert reply.status == 200


def test_wire_30_an_empty_body(raw: Raw) -> None:
    reply_is(raw.call("CreateStream", b""), "SerializationException")
