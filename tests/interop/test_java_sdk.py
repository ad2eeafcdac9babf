"""The AWS SDK for Java v2, both its clients as they come, against `headrace serve`.

KinesisClient speaks HTTP/1.1, KinesisAsyncClient HTTP/2 by prior knowledge and, over TLS, by ALPN.
Both speak CBOR, but for SubscribeToShard, whose request and events are JSON.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.core.limits import ITERATOR_LIFETIME_MS
from headrace.core.model.sequence import BEGINNING
from headrace.core.service.iterators import IteratorCodec
from headrace.core.testing.server_process import ServerProcess
from interop_support import JavaProcess, needs_java

pytestmark = [pytest.mark.slow, needs_java]

_CBOR, _JSON = "application/x-amz-cbor-1.1", "application/x-amz-json-1.1"


def drive(server: ServerProcess, *arguments: str) -> dict[str, str]:
    certificate = None
    if server.endpoint.startswith("https:"):
        certificate = server.data / "tls" / "certificate.pem"
    log = server.data.parent / "java.log"
    command = [server.endpoint, "java", *arguments]
    with JavaProcess("java_sdk", command, log, certificate=certificate) as driver:
        return driver.finish()


def check(found: dict[str, str]) -> None:
    missing = "ResourceNotFoundException: Stream {} under account 123456789012 not found."
    assert found["unknown"] == found["unknownAsync"] == missing.format("nope")
    assert found["gone"] == missing.format("java")
    assert found["twice"] == (
        "ResourceInUseException: Stream java under account 123456789012 already exists."
    )
    assert found["again"].startswith("ResourceInUseException: Another active subscription exists")
    assert found["badIterator"] == "InvalidArgumentException: Invalid ShardIterator."
    assert found["tooLarge"].startswith("ValidationException: 1 validation error detected: ")
    assert (found["status"], found["shards"], found["failed"]) == ("ACTIVE", "2", "0")
    # Timestamps, both ways: what was just made is not of 1970 or of the year 55995.
    assert 0 <= int(found["createdAgoS"]) < 60 and 0 <= int(found["arrivedAgoS"]) < 60
    assert found["arrivedAhead"] == "false"
    # 200 single puts, 500 in a batch, 2 large ones; read by polling, by time, by subscription.
    assert found["sequenceNumbers"] == "200"
    assert found["polled"] == found["atTime"] == found["pushed"] == "702"
    assert found["pushedAfterSplit"] == "902"
    assert found["polledTwice"] == found["pushedTwice"] == "0"
    assert found["children"] == "[shardId-000000000002, shardId-000000000003]"
    assert "bothAtEnd" not in found
    assert int(found["fromAT_TIMESTAMP"]) + 1 == int(found["fromAFTER_SEQUENCE_NUMBER"])
    assert found["fromLATEST"] == "1"
    assert (found["consumers"], found["pages"], found["pagesAsync"]) == ("4", "6", "6")
    assert f"{_JSON} SubscribeToShard" in found["mediaTypes"]
    assert f"{_CBOR} PutRecords" in found["mediaTypes"]
    assert found["mediaTypes"].count(_JSON) == 1


def test_a_streams_life_in_the_clear(server: ServerProcess) -> None:
    check(drive(server))


def test_a_streams_life_over_tls(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "stream", arguments=("--tls",)) as server:
        check(drive(server))


def test_being_throttled_has_its_exception(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "stream", arguments=("--limits", "aws")) as server:
        found = drive(server, "throttled")
    assert found["failed"] == "true"
    assert found["entry"] == "[ProvisionedThroughputExceededException]"
    for client in ("sync", "async"):
        assert found[client].startswith("ProvisionedThroughputExceededException: Rate exceeded")


def test_an_expired_iterator_has_its_exception(
    server: ServerProcess, kinesis: Any, tmp_path: Path
) -> None:
    kinesis.create_stream(StreamName="java", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="java")
    for file in server.data.glob("control.sqlite*"):  # the server lets nobody else open it
        shutil.copy(file, tmp_path)
    with closing(sqlite3.connect(tmp_path / "control.sqlite")) as control:
        (secret,) = control.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
    issued_ms = int(time.time() * 1000) - ITERATOR_LIFETIME_MS - 1000
    fresh = kinesis.get_shard_iterator(
        StreamName="java", ShardId="0", ShardIteratorType="TRIM_HORIZON"
    )
    codec = IteratorCodec(secret)
    uid = codec.read(fresh["ShardIterator"], issued_ms).uid
    expired = codec.issue(uid, 0, BEGINNING, issued_ms)
    found = drive(server, f"iterator={expired}")
    for client in ("sync", "async"):
        assert found[client].startswith("ExpiredIteratorException: Iterator expired.")
