"""Apache Flink's Kinesis connector, source and sink, against `headrace serve`.

The job runs on a local cluster. Its source reads by polling (HTTP/1.1) or by enhanced fan-out
(HTTP/2); checkpoints are its own, in a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.core.testing.server_process import ServerProcess
from interop_support import JavaProcess, needs_java

pytestmark = [pytest.mark.slow, needs_java]

_COUNT = 2000


@pytest.mark.parametrize("reader", ["POLLING", "EFO"])
def test_a_job_copies_every_record(
    server: ServerProcess, tmp_path: Path, kinesis: Any, reader: str
) -> None:
    arns = []
    for name in ("from", "to"):
        kinesis.create_stream(StreamName=name, ShardCount=2)
        kinesis.get_waiter("stream_exists").wait(StreamName=name)
        described = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        arns.append(described["StreamARN"])
    _put(kinesis, 0)
    arguments = [server.endpoint, *arns, reader, str(tmp_path / "checkpoints")]
    copied: list[str] = []

    def has(count: int) -> bool:
        copied[:] = _read(kinesis, "to")
        return len(set(copied)) >= count

    with JavaProcess("flink", arguments, tmp_path / "flink.log", heap="512m") as job:
        job.until(lambda: has(_COUNT))
        kinesis.split_shard(
            StreamName="from", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126)
        )
        kinesis.get_waiter("stream_exists").wait(StreamName="from")
        _put(kinesis, _COUNT)
        job.until(lambda: has(2 * _COUNT))
        checkpoints = list((tmp_path / "checkpoints").glob("*/chk-*/_metadata"))
        assert checkpoints
        if reader == "EFO":
            (consumer,) = kinesis.list_stream_consumers(StreamARN=arns[0])["Consumers"]
            assert consumer["ConsumerName"] == "flink"
    assert sorted(copied, key=int) == [str(n) for n in range(2 * _COUNT)]


def _put(kinesis: Any, first: int) -> None:
    for start in range(first, first + _COUNT, 500):
        records = [
            {"Data": str(n).encode(), "PartitionKey": f"key-{n}"} for n in range(start, start + 500)
        ]
        assert kinesis.put_records(StreamName="from", Records=records)["FailedRecordCount"] == 0


def _read(kinesis: Any, stream: str) -> list[str]:
    texts = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        answer = kinesis.get_records(ShardIterator=iterator)  # far from 10,000 records
        texts += [record["Data"].decode() for record in answer["Records"]]
    return texts
