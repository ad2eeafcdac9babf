"""Accounts: each key opens the streams of its own, and no ARN is a way into another's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from api_support import Raw, create, refused
from headrace.core.testing.server_process import ServerProcess

ONE, OTHER = "123456789012", "111122223333"


def client(endpoint: str, key: str, secret: str) -> Any:
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


@pytest.fixture(scope="module", params=["keys", "no keys"])
def two(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Any]]:
    """Clients of two accounts: by configured keys, and by key ids that are accounts."""
    ids = ("AKIDONE", "AKIDOTHER") if request.param == "keys" else ("any", OTHER)
    keys = f"{ids[0]}:secret1,{ids[1]}@{OTHER}:secret2" if request.param == "keys" else ""
    data = tmp_path_factory.mktemp("accounts") / "stream"
    with ServerProcess(data, env={"HEADRACE_KEYS": keys}) as server:
        clients = (
            client(server.endpoint, ids[0], "secret1"),
            client(server.endpoint, ids[1], "secret2"),
        )
        yield clients
        for each in clients:
            each.close()
    assert "secret" not in server.log_text


def test_one_name_in_two_accounts_is_two_streams(two: tuple[Any, Any]) -> None:
    one, other = two
    create(one, "s", 1)
    create(other, "s", 2)
    create(other, "only-here", 1)
    assert one.list_streams()["StreamNames"] == ["s"]
    assert other.list_streams()["StreamNames"] == ["only-here", "s"]
    for each, account, shards in ((one, ONE, 1), (other, OTHER, 2)):
        found = each.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]
        assert found["StreamARN"] == f"arn:aws:kinesis:us-east-1:{account}:stream/s"
        assert found["OpenShardCount"] == shards
    one.put_record(StreamName="s", Data=b"x", PartitionKey="k")
    shard = "shardId-000000000000"
    token = other.get_shard_iterator(
        StreamName="s", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    assert other.get_records(ShardIterator=token)["Records"] == []
    # an iterator of one account is worth nothing in another
    with refused("InvalidArgumentException", "Invalid ShardIterator."):
        one.get_records(ShardIterator=token)
    with refused("ResourceNotFoundException", f"Stream only-here under account {ONE} not found."):
        one.describe_stream(StreamName="only-here")
    other.delete_stream(StreamName="s")
    assert one.list_streams()["StreamNames"] == ["s"]
    assert one.describe_limits()["OpenShardCount"] == 1


def test_an_arn_is_no_way_into_another_account(two: tuple[Any, Any]) -> None:
    one, other = two
    create(one, "mine")
    arn = one.describe_stream_summary(StreamName="mine")["StreamDescriptionSummary"]["StreamARN"]
    consumer = one.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]
    for operation, request in (
        ("put_record", {"StreamARN": arn, "Data": b"x", "PartitionKey": "k"}),
        ("describe_stream", {"StreamARN": arn}),
        ("list_shards", {"StreamARN": arn}),
        ("register_stream_consumer", {"StreamARN": arn, "ConsumerName": "d"}),
        ("delete_stream", {"StreamARN": arn}),
        ("get_resource_policy", {"ResourceARN": arn}),
        ("tag_resource", {"ResourceARN": arn, "Tags": {"a": "b"}}),
    ):
        with refused("ResourceNotFoundException", f"Stream mine under account {ONE} not found."):
            getattr(other, operation)(**request)
    with refused("ResourceNotFoundException"):
        other.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
    with refused("ResourceNotFoundException"):
        other.subscribe_to_shard(
            ConsumerARN=consumer["ConsumerARN"],
            ShardId="shardId-000000000000",
            StartingPosition={"Type": "LATEST"},
        )
    assert one.list_tags_for_stream(StreamName="mine")["Tags"] == []


def test_twelve_digits_are_an_account_and_nothing_else_is(raw: Raw) -> None:
    for key, account in ((OTHER, OTHER), ("1111222233334", ONE), ("11112222333", ONE), ("x", ONE)):
        signed = (
            f"AWS4-HMAC-SHA256 Credential={key}/20261122/us-east-1/kinesis/aws4_request, "
            f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
        )
        reply = raw.call("DescribeStream", {"StreamName": "no"}, headers={"Authorization": signed})
        assert reply.json["message"] == f"Stream no under account {account} not found."
