"""The real Kinesis Client Library against `headrace serve`, with moto for DynamoDB and CloudWatch.

Versions 3 and 2, in both ways to read: polling and enhanced fan-out. All speak HTTP/2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from headrace.core.testing.server_process import ServerProcess
from interop_support import JavaProcess, needs_java

pytestmark = [pytest.mark.slow, needs_java]

_HALF = str(2**127)


class Event(NamedTuple):
    at_ms: int
    worker: str
    kind: str
    shard: str
    rest: list[str]


class Application:
    """Workers of one KCL application, one after the other and beside each other."""

    def __init__(
        self, server: ServerProcess, moto: str, folder: Path, kinesis: Any, mode: str, jars: str
    ) -> None:
        self._arguments = [server.endpoint, moto, "stream", f"app-{mode}"]
        self._mode, self._jars, self._folder, self._kinesis = mode, jars, folder, kinesis
        self._stack = ExitStack()
        self._started: list[tuple[str, JavaProcess]] = []
        self._put = 0
        self.dynamodb = boto3.client(
            "dynamodb", endpoint_url=moto, region_name="us-east-1",
            aws_access_key_id="AKID", aws_secret_access_key="secret",
        )  # fmt: skip

    def worker(self, name: str) -> JavaProcess:
        log = self._folder / f"{self._mode}-{name}-{len(self._started)}.log"
        process = JavaProcess("kcl", [*self._arguments, name, self._mode], log, jars=self._jars)
        self._started.append((name, self._stack.enter_context(process)))
        return process

    def put(self, count: int) -> None:
        """`count` records more; each is the number of records put before it."""
        for first in range(self._put, self._put + count, 500):
            numbers = range(first, min(first + 500, self._put + count))
            records = [{"Data": b"%d" % n, "PartitionKey": f"key-{n}"} for n in numbers]
            answer = self._kinesis.put_records(StreamName="stream", Records=records)
            assert answer["FailedRecordCount"] == 0
        self._put += count

    def events(self) -> list[Event]:
        found = []
        for name, process in self._started:
            for line in process.lines:
                at_ms, kind, *rest = line.split()
                found.append(Event(int(at_ms), name, kind, rest[0] if rest else "", rest[1:]))
        return sorted(found, key=lambda event: event.at_ms)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events() if event.kind == kind]

    def received(self) -> Counter[int]:
        return Counter(int(event.rest[-1]) for event in self.of("record"))

    def has_all(self) -> bool:
        return len(self.received()) == self._put

    def leases(self) -> dict[str, dict[str, Any]]:
        items = self.dynamodb.scan(TableName=self._arguments[-1])["Items"]
        rows = [{key: next(iter(value.values())) for key, value in row.items()} for row in items]
        return {row["leaseKey"]: row for row in rows if row["leaseKey"].startswith("shardId")}

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


@pytest.mark.parametrize("mode", ["polling", "fan-out"])
@pytest.mark.parametrize("jars", ["kcl", "kcl2"])
def test_an_application_over_its_life(
    server: ServerProcess, moto: str, tmp_path: Path, kinesis: Any, jars: str, mode: str
) -> None:
    kinesis.create_stream(StreamName="stream", ShardCount=4)
    kinesis.get_waiter("stream_exists").wait(StreamName="stream")
    with Application(server, moto, tmp_path, kinesis, mode, jars) as application:
        application.put(2000)
        first, second = application.worker("a"), application.worker("b")
        first.until(application.has_all)

        # A split and a merge while both read and records come.
        kinesis.split_shard(
            StreamName="stream", ShardToSplit="shardId-000000000000",
            NewStartingHashKey=str(2**125),
        )  # fmt: skip
        application.put(1000)
        kinesis.get_waiter("stream_exists").wait(StreamName="stream")
        kinesis.merge_shards(
            StreamName="stream", ShardToMerge="shardId-000000000002",
            AdjacentShardToMerge="shardId-000000000003",
        )  # fmt: skip
        application.put(1000)
        first.until(application.has_all)
        first.until(lambda: len(application.of("ended")) == 3)
        both = {event.worker for event in application.of("started")}
        for process in (first, second):
            process.stop()
        twice = _check(application, kinesis)

        # The next worker goes on where they were.
        before = application.received()
        application.put(500)
        third = application.worker("c")
        third.until(application.has_all)
        third.stop()
        again = application.received() - before
        assert sorted(again) == list(range(4000, 4500))
        print(f"{jars} {mode}: processed twice {len(twice)}")
        assert both == {"a", "b"}


def _check(application: Application, kinesis: Any) -> set[int]:
    """All that was put was processed, in order. Returns what was processed more than once.

    A worker that takes another's lease begins at the checkpoint; the other's batch in hand is then
    processed twice, and its checkpoint refused. Nothing else may come twice.
    """
    by: dict[int, list[str]] = defaultdict(list)
    for event in application.of("record"):
        by[int(event.rest[-1])].append(event.worker)
    assert set(by) == set(range(4000))
    assert all(len(set(workers)) == len(workers) for workers in by.values())
    twice = {number for number, workers in by.items() if len(workers) > 1}
    taken = {event.shard for event in application.of("not-saved")}
    repeated = {e.shard for e in application.of("record") if int(e.rest[-1]) in twice}
    assert repeated <= taken, "processed twice though no checkpoint was refused"
    assert not application.of("not-ended")
    ended: dict[str, int] = {}
    for event in application.of("ended"):
        ended.setdefault(event.shard, event.at_ms)
    assert set(ended) == {f"shardId-00000000000{n}" for n in (0, 2, 3)}
    shards = kinesis.list_shards(StreamName="stream")["Shards"]
    parents = {
        shard["ShardId"]: [
            shard[key] for key in ("ParentShardId", "AdjacentParentShardId") if key in shard
        ]
        for shard in shards
    }
    in_order: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in application.of("record"):
        in_order[event.shard, event.worker].append(int(event.rest[0]))
        for parent in parents[event.shard]:
            assert ended[parent] <= event.at_ms, f"{event.shard} was read before {parent} ended"
    last: dict[str, int] = {}
    for (shard, worker), numbers in in_order.items():
        assert numbers == sorted(set(numbers)), f"{shard} in {worker}"
        last[shard] = max(last.get(shard, 0), numbers[-1])
    leases = application.leases()
    assert len(last) == len(parents) == 7
    for shard, number in last.items():
        assert leases[shard]["checkpoint"] == ("SHARD_END" if shard in ended else str(number))
    return twice
