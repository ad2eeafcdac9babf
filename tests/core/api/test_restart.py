"""A server started again on the same folder gives the same answers, however it ended."""

from __future__ import annotations

import itertools
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from api_support import (
    boto3_client,
    create,
    iterator,
    read_from,
    read_stream,
    refused,
    shards_of,
)
from headrace.core.testing.server_process import ServerProcess

pytestmark = pytest.mark.crash
FIRST = "shardId-000000000000"


def answers(kinesis: Any) -> dict[str, Any]:
    """All that clients can find out about all streams."""
    names = kinesis.list_streams(Limit=10_000)["StreamNames"]
    found: dict[str, Any] = {"streams": names}
    for name in names:
        description = kinesis.describe_stream(StreamName=name)["StreamDescription"]
        summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        found[name] = (description, summary, shards_of(kinesis, name), read_stream(kinesis, name))
    return found


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_everything_is_as_it_was(tmp_path: Path, end: str) -> None:
    with ServerProcess(tmp_path / "data") as process:
        kinesis = boto3_client(process.endpoint)
        create(kinesis, "plain")
        create(kinesis, "split", 2)
        create(kinesis, "large", MaxRecordSizeInKiB=2048)
        create(kinesis, "gone")
        kinesis.create_stream(StreamName="on-demand", StreamModeDetails={"StreamMode": "ON_DEMAND"})
        there = boto3_client(process.endpoint, region="eu-west-1")
        create(there, "plain", 3)
        for turn in range(3):
            for name in ("plain", "split", "on-demand"):
                records = [
                    {"Data": b"%d %d" % (turn, i), "PartitionKey": f'k"{i}\n'} for i in range(20)
                ]
                kinesis.put_records(StreamName=name, Records=records)
            if turn == 0:
                kinesis.split_shard(
                    StreamName="split", ShardToSplit=FIRST, NewStartingHashKey=str(2**126)
                )
            elif turn == 1:
                kinesis.merge_shards(
                    StreamName="split",
                    ShardToMerge="shardId-000000000003",
                    AdjacentShardToMerge="shardId-000000000001",
                )
        kinesis.put_record(StreamName="large", Data=bytes(2_000_000), PartitionKey="k")
        kinesis.increase_stream_retention_period(StreamName="plain", RetentionPeriodHours=100)
        kinesis.delete_stream(StreamName="gone")
        tokens = {
            name: iterator(kinesis, name, kind=kind)
            for name, kind in (("plain", "TRIM_HORIZON"), ("split", "LATEST"))
        }
        before = answers(kinesis), answers(there)

        getattr(process, end)()
        process.start()
        assert (answers(kinesis), answers(there)) == before
        # iterators outlive it, with their five minutes
        assert len(read_from(kinesis, tokens["plain"])) == 60
        assert read_from(kinesis, tokens["split"]) == []
        with refused("ResourceNotFoundException"):
            kinesis.describe_stream(StreamName="gone")
        # and it goes on: numbers rise, closed shards stay closed
        last = max(
            int(record["SequenceNumber"])
            for record in itertools.chain(*read_stream(kinesis, "plain").values())
        )
        answer = kinesis.put_record(StreamName="plain", Data=b"x", PartitionKey="k")
        assert int(answer["SequenceNumber"]) > last
        with refused("InvalidArgumentException"):
            kinesis.split_shard(
                StreamName="split", ShardToSplit=FIRST, NewStartingHashKey=str(2**125)
            )


def test_a_reader_at_the_tail_goes_on_after_a_kill(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        kinesis = boto3_client(process.endpoint)
        create(kinesis, "s")
        token = iterator(kinesis, "s", kind="LATEST")
        found = []
        for turn in range(4):
            kinesis.put_record(StreamName="s", Data=b"%d" % turn, PartitionKey="k")
            if turn % 2:
                process.kill()
                process.start()
            answer = kinesis.get_records(ShardIterator=token)
            found += [record["Data"] for record in answer["Records"]]
            token = answer["NextShardIterator"]
        assert found == [b"0", b"1", b"2", b"3"]


def test_what_was_acknowledged_survives_a_kill_under_load(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        kinesis = boto3_client(process.endpoint, max_pool_connections=8)
        create(kinesis, "s", 2)
        acknowledged: list[tuple[bytes, str]] = []
        counter = itertools.count()
        enough = threading.Event()

        def write() -> None:
            while True:
                records = [
                    {"Data": b"%d" % next(counter), "PartitionKey": str(i)} for i in range(5)
                ]
                try:
                    answer = kinesis.put_records(StreamName="s", Records=records)
                except Exception:
                    return  # the server is gone
                for record, result in zip(records, answer["Records"], strict=True):
                    acknowledged.append((record["Data"], result["SequenceNumber"]))  # type: ignore[arg-type]
                if len(acknowledged) > 300:
                    enough.set()

        for _ in range(2):
            enough.clear()
            seen = len(acknowledged)
            writers = [threading.Thread(target=write) for _ in range(4)]
            for writer in writers:
                writer.start()
            while len(acknowledged) < seen + 300:
                enough.wait(0.01)
            process.kill()
            for writer in writers:
                writer.join()
            process.start()
            found = [
                (record["Data"], record["SequenceNumber"])
                for records in read_stream(kinesis, "s").values()
                for record in records
            ]
            assert len(set(found)) == len(found)
            assert set(acknowledged) <= set(found)


def test_a_second_server_on_the_folder_is_refused(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as process:
        create(boto3_client(process.endpoint), "s")
        with pytest.raises(RuntimeError, match=f"in use by process {process.pid}"):
            ServerProcess(tmp_path / "data").start()
        assert boto3_client(process.endpoint).list_streams()["StreamNames"] == ["s"]


def test_who_has_not_sent_all_of_a_request_when_the_server_ends_is_told(tmp_path: Path) -> None:
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.1\r\n"
        b"X-Amz-Target: Kinesis_20131202.PutRecords\r\nContent-Length: 100000\r\n\r\n{"
    )
    with (
        ServerProcess(tmp_path / "data") as process,
        socket.create_connection(("127.0.0.1", urlsplit(process.endpoint).port)) as connection,
    ):
        connection.sendall(head)
        boto3_client(process.endpoint).list_streams()  # it has been read by now
        assert process.stop() == 0
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 503 ") and b"The server is stopping." in answer
        assert "Traceback" not in process.log_text
