"""What a real server says was used is what was put and read; kill -9 takes little of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from api_support import CBOR, Raw, b64, boto3_client, raw_to, read_shard
from headrace.core.testing.server_process import ServerProcess


def usage_of(endpoint: str, stream: str, hours: int = 2) -> dict[str, Any]:
    """What GET /usage has of the one stream of that name."""
    with urllib.request.urlopen(f"{endpoint}/usage?stream={stream}&hours={hours}") as answer:
        (found,) = json.load(answer)["streams"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("usage") / "stream") as process:
        yield process


@pytest.fixture
def kinesis(server: ServerProcess) -> Iterator[Any]:
    client = boto3_client(server.endpoint)
    yield client
    client.close()


def test_in_is_what_was_put_however_it_was_put(server: ServerProcess, kinesis: Any) -> None:
    kinesis.create_stream(StreamName="in", ShardCount=3)
    bytes_in: Counter[str] = Counter()
    records: Counter[str] = Counter()
    units = kib = 0

    def stored(data: bytes, key: str, answer: dict[str, Any]) -> None:
        nonlocal units, kib
        size = len(data) + len(key.encode())
        bytes_in[answer["ShardId"]] += size
        records[answer["ShardId"]] += 1
        units += -(-size // 25_600)
        kib += -(-size // 1024)

    def put(entries: list[tuple[bytes, str]], answers: list[dict[str, Any]]) -> None:
        for (data, key), answer in zip(entries, answers, strict=True):
            stored(data, key, answer)

    # PutRecords and PutRecord by JSON; small, alike, uneven, large ones; keys beyond ASCII
    alike = [(b"x" * 100, f"k{i}") for i in range(500)]
    uneven = [(b"x" * (i * 37 % 3000), f"é{i}") for i in range(400)]
    large = [(b"x" * size, "k") for size in (25_599, 25_600, 25_598, 51_200, 1_000_000)]
    for entries in (alike, uneven, large):
        sent = [{"Data": data, "PartitionKey": key} for data, key in entries]
        put(entries, kinesis.put_records(StreamName="in", Records=sent)["Records"])
    stored(b"one", "😀", kinesis.put_record(StreamName="in", Data=b"one", PartitionKey="😀"))
    raw = Raw(server.endpoint)
    # CBOR
    entries = [(b"\0" * 70, f"c{i}") for i in range(9)]
    request: dict[str, Any] = {
        "StreamName": "in", "Records": [{"Data": d, "PartitionKey": k} for d, k in entries],
    }  # fmt: skip
    put(entries, raw.call("PutRecords", request, content_type=CBOR).cbor["Records"])
    request = {"StreamName": "in", "Data": b"one more", "PartitionKey": "c"}
    stored(b"one more", "c", raw.call("PutRecord", request, content_type=CBOR).cbor)
    # an idempotent producer sends twice what is stored once
    entries = [(b"y" * i, f"p{i % 7}") for i in range(60)]
    answers: list[dict[str, Any]] = []
    for first, upto in ((0, 40), (20, 60), (0, 60)):
        part = [{"Data": b64(d), "PartitionKey": k} for d, k in entries[first:upto]]
        deltas = ",".join([str(first)] + ["1"] * (upto - first - 1))
        headers = {"X-Headrace-Producer": "p", "X-Headrace-Producer-Sequences": deltas}
        reply = raw.call("PutRecords", {"StreamName": "in", "Records": part}, headers=headers)
        answers += reply.json["Records"][len(answers) - first :]
    put(entries, answers)
    # refused, and dry: nothing is stored
    with pytest.raises(ClientError, match="DryRun"):
        kinesis.put_record(StreamName="in", Data=b"dry", PartitionKey="d", DryRun=True)
    with pytest.raises(ClientError, match="less than or equal to"):
        kinesis.put_record(StreamName="in", Data=b"x" * (2 << 20), PartitionKey="d")
    raw.close()
    found = usage_of(server.endpoint, "in")
    by_shard = {shard["shard_id"]: shard["total"] for shard in found["shards"]}
    assert {shard: total["bytes_in"] for shard, total in by_shard.items()} == bytes_in
    assert {shard: total["records_in"] for shard, total in by_shard.items()} == records
    total = found["total"]
    assert (total["bytes_in"], total["records_in"]) == (bytes_in.total(), records.total())
    assert (total["put_units"], total["kib_in"]) == (units, kib)
    assert (total["throttled_records"], total["records_out"], total["shards"]) == (0, 0, 3)
    assert total["stored_bytes"] > total["bytes_in"]
    assert (total["mode"], total["retention_hours"]) == ("PROVISIONED", 24)


def test_out_is_what_was_read_by_polling_and_by_each_consumer(
    server: ServerProcess, kinesis: Any
) -> None:
    kinesis.create_stream(StreamName="out", ShardCount=1)
    entries = [(b"x" * 50, f"key {i % 10}") for i in range(300)]
    sent = [{"Data": data, "PartitionKey": key} for data, key in entries]
    kinesis.put_records(StreamName="out", Records=sent)
    size = sum(len(data) + len(key) for data, key in entries)
    assert len(read_shard(kinesis, "out")) == 300
    token = kinesis.get_shard_iterator(
        StreamName="out", ShardId="0-0", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    with raw_to(server.endpoint) as raw:
        reply = raw.call("GetRecords", {"ShardIterator": token, "Limit": 7}, content_type=CBOR)
        assert len(reply.cbor["Records"]) == 7
        dry = raw.call("GetRecords", {"ShardIterator": token, "DryRun": True})
        assert dry.status == 400
    arn = kinesis.describe_stream_summary(StreamName="out")["StreamDescriptionSummary"]["StreamARN"]
    for name in ("a", "b"):
        consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=name)["Consumer"]
        events = kinesis.subscribe_to_shard(
            ConsumerARN=consumer["ConsumerARN"], ShardId="shardId-000000000000",
            StartingPosition={"Type": "TRIM_HORIZON"},
        )["EventStream"]  # fmt: skip
        for event in events:
            assert len(event["SubscribeToShardEvent"]["Records"]) == 300
            break
        events.close()
    found = usage_of(server.endpoint, "out")
    total = found["total"]
    assert total["records_out"] == 307
    assert total["bytes_out"] == size + 7 * 55
    assert total["gets"] == 2 + 1  # the first, an empty one after it, and seven records
    assert (total["fanout_records"], total["fanout_bytes"]) == (600, 2 * size)
    assert (total["consumers"], total["retention_hours"]) == (2, 24)
    assert found["shards"][0]["total"]["fanout_bytes"] == 2 * size
    consumers = {c["consumer"].rpartition(":")[0]: c["total"] for c in found["consumers"]}
    assert sorted(consumers) == ["a", "b"]
    for sent_to in consumers.values():
        assert (sent_to["fanout_records"], sent_to["fanout_bytes"]) == (300, size)


def test_what_is_throttled_is_counted_by_shard(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "stream", arguments=("--limits", "aws")) as server:
        kinesis = boto3_client(server.endpoint)
        kinesis.create_stream(StreamName="s", ShardCount=1)
        records = [{"Data": b"x" * 400_000, "PartitionKey": "k"} for _ in range(4)]
        assert kinesis.put_records(StreamName="s", Records=records)["FailedRecordCount"] == 2
        token = kinesis.get_shard_iterator(
            StreamName="s", ShardId="0-0", ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        refused = 0
        for _ in range(20):
            try:
                kinesis.get_records(ShardIterator=token)
            except ClientError:
                refused += 1
        kinesis.close()
        (shard,) = usage_of(server.endpoint, "s")["shards"]
        total = shard["total"]
        assert (total["records_in"], total["bytes_in"]) == (2, 800_002)
        assert (total["throttled_records"], total["throttled_bytes"]) == (2, 800_002)
        assert (total["gets"], total["throttled_gets"]) == (20 - refused, refused)
        assert refused


def test_with_keys_only_those_who_have_one_are_told(tmp_path: Path) -> None:
    env = {"HEADRACE_KEYS": "me:mine"}
    with ServerProcess(tmp_path / "stream", env=env) as server:
        url = f"{server.endpoint}/usage?hours=1"
        for secret, status in ((None, 400), ("yours", 400), ("mine", 200)):
            request = AWSRequest("GET", url)
            if secret is not None:
                SigV4Auth(Credentials("me", secret), "kinesis", "eu-west-1").add_auth(request)
            asked = urllib.request.Request(url, headers=dict(request.headers.items()))
            try:
                with urllib.request.urlopen(asked) as answer:
                    assert (answer.status, json.load(answer)["streams"]) == (status, [])
            except urllib.error.HTTPError as error:
                assert error.code == status
                assert "__type" in json.load(error)


CHILD = """
import asyncio, sys
from pathlib import Path
from headrace.core.server import Server, ServerConfig
from headrace.core.service.metering import MeteringOptions

async def main():
    options = MeteringOptions(flush_ms=200, minute_ms=400, idle_ms=200)
    server = Server(ServerConfig(port=0, data=Path(sys.argv[1]), metering=options))
    await server.start()
    print(server.endpoint, flush=True)
    await server.wait()

asyncio.run(main())
"""


def stored_records(data: Path) -> int:
    """Records in, by the store itself, in which the server writes meanwhile."""
    path = data / "usage.sqlite"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            (found,) = store.execute("SELECT sum(records_in) FROM stream_hours").fetchone()
    except sqlite3.OperationalError:  # it has not been made yet
        return 0
    return found or 0


def put_some(kinesis: Any) -> int:
    """How many records it has put."""
    records = [{"Data": b"0123456789", "PartitionKey": str(i % 10)} for i in range(20)]
    kinesis.put_records(StreamName="s", Records=records)
    return len(records)


@pytest.mark.crash
def test_kill_9_loses_at_most_what_was_counted_since_the_last_time(tmp_path: Path) -> None:
    """Killed while it counts and stores, again and again: what is kept is no more than what was
    put, and no less than what was stored before the kill, which an interval brings about."""
    put = least = 0
    for round_number in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
        )
        try:
            assert child.stdout is not None
            endpoint = child.stdout.readline().strip()
            kinesis = boto3_client(endpoint)
            if not round_number:
                kinesis.create_stream(StreamName="s", ShardCount=2)
            total = usage_of(endpoint, "s")["total"]
            assert least <= total["records_in"] <= put
            assert total["bytes_in"] == 11 * total["records_in"]
            put = kept = total["records_in"]
            seen, end = [kept], time.monotonic() + 30
            while len(seen) < 3:  # it stores again and again
                assert time.monotonic() < end, f"nothing more is stored than {seen}"
                put += put_some(kinesis)
                if (stored := stored_records(tmp_path / "data")) > seen[-1]:
                    seen.append(stored)
            for _ in range(25 * round_number):
                put += put_some(kinesis)
            os.kill(child.pid, signal.SIGKILL)
            least = seen[-1]
            kinesis.close()
        finally:
            child.kill()
            child.wait()
            child.stdout.close() if child.stdout else None
