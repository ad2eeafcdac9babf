"""`headrace usage` on a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.core.testing.server_process import ServerProcess
from pipeline.support import Environment


@pytest.fixture
def used(server: ServerProcess, kinesis: Any) -> ServerProcess:
    """A server with a stream that was written and read, and one that was not."""
    kinesis.create_stream(StreamName="access", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    kinesis.create_stream(StreamName="idle", ShardCount=1)
    records = [{"Data": b"x" * 1000, "PartitionKey": f"{i:03}"} for i in range(300)]
    kinesis.put_records(StreamName="access", Records=records)
    for shard in kinesis.list_shards(StreamName="access")["Shards"]:
        token = kinesis.get_shard_iterator(
            StreamName="access", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        kinesis.get_records(ShardIterator=token)
    arn = kinesis.describe_stream_summary(StreamName="access")["StreamDescriptionSummary"]
    kinesis.register_stream_consumer(StreamARN=arn["StreamARN"], ConsumerName="billing")
    return server


def test_tables_for_people_and_json_for_programs(real: Environment, used: ServerProcess) -> None:
    def run(*arguments: str) -> list[list[str]]:
        found = real.run("usage", *arguments, "--endpoint", used.endpoint)
        assert found.returncode == 0, found.stderr
        return [line.split() for line in found.stdout.splitlines()]

    table = run()
    assert table[0][:4] == ["stream", "mode", "shards", "stored"]
    access, idle = table[1:3]
    assert access[:3] == ["access", "on-demand", "4"]
    assert access[5:9] == ["293.8", "KiB", "300", "300"]  # in, records, put units
    assert access[10:13] == ["293.8", "KiB", "300"]  # out
    assert idle[:3] == ["idle", "provisioned", "1"]
    lines = run("access", "--hours", "2")
    assert lines[0][:2] == ["access:", "on-demand,"]
    assert lines[3][:2] == ["consumers", "1"]
    assert lines[-1][:5] == ["all", "293.8", "KiB", "300", "300"]
    by_shard = run("access", "--by", "shard")[5:]
    assert [row[0][-1] for row in by_shard] == ["0", "1", "2", "3"]
    assert sum(int(row[3]) for row in by_shard) == 300
    found = real.run("usage", "access", "--json", "--endpoint", used.endpoint)
    (stream,) = json.loads(found.stdout)["streams"]
    assert stream["total"]["put_units"] == stream["total"]["records_out"] == 300


def test_a_stream_nobody_knows_ends_with_1(real: Environment, server: ServerProcess) -> None:
    found = real.run("usage", "nope", "--endpoint", server.endpoint)
    assert found.returncode == 1
    assert "Stream nope under account 123456789012 not found." in found.stderr
    found = real.run("usage", "--endpoint", server.endpoint)
    assert found.returncode == 0
    assert "nothing in the last 24 hours" in found.stderr


def test_the_ceiling_can_be_set_on_the_command_line(real: Environment) -> None:
    helped = " ".join(real.run("serve", "--help").stdout.split())
    assert "--on-demand-max-shards COUNT" in helped
