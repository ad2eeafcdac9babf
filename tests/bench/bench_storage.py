"""Storage at size: what much stored, many shards and many streams cost.

    python -m tests.bench storage [--full] [--quick] [--seed N]

Bars are those of the project: memory at most 130 MB and flat, a start at most 1.1 times an empty
one and at most a second, GetRecords at most 1.2 times as slow with much stored as with little.
`--full` stores ten million records and makes 10,000 shards; without it, a tenth of that.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.http_load import Bodies, Connection, fill, make_stream
from bench.servers import HeadraceServer, rss_mb
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import SystemFiles
from headrace.core.log.index import ActiveIndex, FrameEntry
from headrace.core.log.segment import index_path, segment_path
from headrace.core.log.stream_log import StreamLog
from headrace.core.log.writing import SegmentWriter
from headrace.core.model.sequence import BEGINNING

SHARD = "shardId-000000000000"
LITTLE = 10_000


@dataclass(frozen=True)
class Size:
    records: int
    shards: int
    streams: int
    segments: int
    rounds: int


def line(figure: str, value: str, bar: str = "") -> None:
    print(f"{figure:<72} {value:>16}  {bar}", flush=True)


def start_ms(server: HeadraceServer) -> float:
    """From nothing to the first answer."""
    started = time.perf_counter()
    connection = Connection(server.start())
    connection.call("ListStreams")
    took = (time.perf_counter() - started) * 1e3
    connection.socket.close()
    return took


def starts_ms(*servers: HeadraceServer, rounds: int = 5) -> list[float]:
    """The best start of each, in turn, each after a kill; leaves them running."""
    found: list[list[float]] = [[] for _ in servers]
    for _ in range(rounds):
        for server, times in zip(servers, found, strict=True):
            server.stop()
            times.append(start_ms(server))
    return [min(times) for times in found]


def iterator(connection: Connection, kind: str, **more: object) -> str:
    answer = connection.call(
        "GetShardIterator", StreamName="bench", ShardId=SHARD, ShardIteratorType=kind, **more
    )
    return str(answer["ShardIterator"])


def positions(connection: Connection, seconds: tuple[float, float]) -> dict[str, str]:
    """Iterators over the whole of what is stored; `seconds` is when filling began and ended."""
    middle_s = sum(seconds) / 2
    middle = iterator(connection, "AT_TIMESTAMP", Timestamp=middle_s)
    found: Any = connection.call("GetRecords", ShardIterator=middle, Limit=1)["Records"]
    return {
        "TRIM_HORIZON": iterator(connection, "TRIM_HORIZON"),
        "AT_TIMESTAMP, middle": middle,
        "AFTER_SEQUENCE_NUMBER, middle": iterator(
            connection,
            "AFTER_SEQUENCE_NUMBER",
            StartingSequenceNumber=found[0]["SequenceNumber"],
        ),
        "LATEST": iterator(connection, "LATEST"),
    }


def latencies(
    servers: list[tuple[Connection, tuple[float, float]]], rounds: int
) -> dict[tuple[str, int], list[float]]:
    """Median ms of GetRecords by position and limit, of each server.

    A round asks for everything once, of the servers in turn, every second one of them in the other
    order: what else the machine does in a second (it has just written all that is stored) then
    meets all figures alike, not the one that happens to be measured.
    """
    os.sync()
    both = [(connection, positions(connection, seconds)) for connection, seconds in servers]
    wanted = [(where, limit) for where in both[0][1] for limit in (1, 100, 1000)]
    took: dict[tuple[str, int], list[list[float]]] = {one: [[] for _ in both] for one in wanted}
    for round_ in range(rounds):
        turn = list(enumerate(both))[:: -1 if round_ % 2 else 1]
        for where, limit in wanted:
            for server, (connection, places) in turn:
                body = json.dumps({"ShardIterator": places[where], "Limit": limit}).encode()
                raw, passed = connection.raw("GetRecords", body)
                took[where, limit][server].append(passed * 1e3)
                count = len(json.loads(raw)["Records"])
                assert count == (0 if where == "LATEST" else limit), (where, limit, count)
    return {one: [median(times) for times in by_server] for one, by_server in took.items()}


def filled(root: Path, seed: int, records: int) -> tuple[HeadraceServer, int, tuple[float, float]]:
    """A running server with so many records of 100 B stored, and when that was."""
    root.mkdir()
    server = HeadraceServer(root)
    port = server.start()
    make_stream(port)
    began = time.time()
    fill(port, Bodies(seed).records(100), records)
    return server, port, (began, time.time())


def records_stored(root: Path, seed: int, size: Size) -> None:
    empty = HeadraceServer(root / "none")
    (root / "none").mkdir()
    empty.start()
    line("memory, nothing stored", f"{rss_mb(empty.pid):.0f} MB")
    few, few_port, few_s = filled(root / "few", seed, LITTLE)
    many, many_port, many_s = filled(root / "many", seed, size.records)
    line(f"memory after putting {size.records:,}", f"{rss_mb(many.pid):.0f} MB", "<= 130 MB")
    both = [(Connection(few_port), few_s), (Connection(many_port), many_s)]
    for (where, limit), (little, much) in latencies(both, size.rounds).items():
        line(
            f"GetRecords {where}, {limit} records: {LITTLE:,} -> {size.records:,}",
            f"{little:.2f} -> {much:.2f} ms",
            f"<= 1.2x: {much / little:.2f}x",
        )
    line(f"memory after reading, {size.records:,} stored", f"{rss_mb(many.pid):.0f} MB", "<= 130")
    few.stop()
    empty_ms, many_ms = starts_ms(empty, many)
    line(
        f"start to first answer, nothing -> {size.records:,} stored",
        f"{empty_ms:.0f} -> {many_ms:.0f} ms",
        f"<= 1.1x, <= 1000 ms: {many_ms / empty_ms:.2f}x",
    )
    line(f"memory after a start, {size.records:,} stored", f"{rss_mb(many.pid):.0f} MB", "<= 130")
    empty.stop()
    many.stop()
    shutil.rmtree(root / "many")


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def put_everywhere(connection: Connection, count: int) -> float:
    """Seconds to put a record into each of `count` shards, by explicit hash key."""
    width = 2**128 // count
    started = time.perf_counter()
    for first in range(0, count, 500):
        records = [
            {"Data": "eA==", "PartitionKey": "k", "ExplicitHashKey": str(i * width + width // 2)}
            for i in range(first, min(first + 500, count))
        ]
        answer = connection.call("PutRecords", StreamName="bench", Records=records)
        assert answer["FailedRecordCount"] == 0
    return time.perf_counter() - started


def list_all(connection: Connection) -> tuple[int, int]:
    """Shards and pages of ListShards."""
    answer = connection.call("ListShards", StreamName="bench")
    shards, pages = len(answer["Shards"]), 1  # type: ignore[arg-type]
    while token := answer.get("NextToken"):
        answer = connection.call("ListShards", NextToken=token)
        shards += len(answer["Shards"])  # type: ignore[arg-type]
        pages += 1
    return shards, pages


def many_shards(root: Path, size: Size) -> None:
    root.mkdir()
    server = HeadraceServer(root)
    connection = Connection(server.start())
    started = time.perf_counter()
    connection.call("CreateStream", StreamName="bench", ShardCount=size.shards)
    while True:
        answer: Any = connection.call("DescribeStreamSummary", StreamName="bench")
        if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
            break
        time.sleep(0.01)
    n = f"{size.shards:,} shards"
    line(f"{n}: create until ACTIVE", f"{time.perf_counter() - started:.2f} s")
    line(f"{n}: a record into each", f"{put_everywhere(connection, size.shards):.2f} s")
    started = time.perf_counter()
    shards, pages = list_all(connection)
    assert shards == size.shards
    line(f"{n}: ListShards, {pages} pages", f"{time.perf_counter() - started:.2f} s")
    line(f"{n}: memory", f"{rss_mb(server.pid):.0f} MB")
    line(f"{n}: open descriptors", f"{open_files(server.pid)}")
    line(f"{n}: start to first answer", f"{starts_ms(server)[0]:.0f} ms")
    server.stop()


def many_streams(root: Path, size: Size) -> None:
    root.mkdir()
    server = HeadraceServer(root)
    connection = Connection(server.start())
    for i in range(size.streams):
        connection.call("CreateStream", StreamName=f"s{i}", ShardCount=1)
    for i in range(size.streams):
        connection.call("PutRecord", StreamName=f"s{i}", Data="eA==", PartitionKey="k")
    n = f"{size.streams:,} streams"
    line(f"{n}: memory", f"{rss_mb(server.pid):.0f} MB")
    line(f"{n}: open descriptors", f"{open_files(server.pid)}")
    line(f"{n}: start to first answer", f"{starts_ms(server)[0]:.0f} ms")
    line(f"{n}: open descriptors after a start", f"{open_files(server.pid)}")
    server.stop()


def many_segments(root: Path, size: Size) -> None:
    """A log of a billion records' shape: sealed segments of 128 MiB with nothing in them."""
    make_segments(root, size.segments)
    for _ in range(2):  # the second time the indexes are in the page cache
        started = time.perf_counter()
        log = StreamLog.open(root, SystemFiles(), now_ms=0)
        took = (time.perf_counter() - started) * 1e3
        log.close()
    line(f"{size.segments:,} sealed segments: opening the log", f"{took:.0f} ms")
    log = StreamLog.open(root, SystemFiles(), now_ms=0)
    now = log.snapshot()
    for what, look in (
        ("a time in the middle", lambda: now.find_time(0, size.segments // 2 * 1000 + 500)),
        ("a shard that has no records", lambda: now.read(
            9, BEGINNING, max_records=1, max_bytes=1)),
    ):  # fmt: skip
        line(f"{size.segments:,} sealed segments: {what}", f"{best_ms(look):.2f} ms")
    log.close()


def best_ms(look: Callable[[], object]) -> float:
    found = []
    for _ in range(3):
        started = time.perf_counter()
        look()
        found.append((time.perf_counter() - started) * 1e3)
    return min(found)


def make_segments(folder: Path, count: int, frames: int = 3500, shards: int = 4) -> None:
    """Sealed segments with an index each and no bytes: files that are all hole."""
    folder.mkdir()
    files = SystemFiles()
    writer = SegmentWriter(folder, SegmentAccess(files))
    frame_no = 1
    for i in range(count):
        index = ActiveIndex()
        first, at_ms = frame_no, i * 1000 + 1
        for j in range(frames):
            frame_no += 1
            entry = FrameEntry(frame_no, at_ms + j * 999 // frames, j * 36_000, 36_000, 100)
            index.add(j % shards, entry)
        path = segment_path(folder, first)
        with path.open("wb") as file:
            file.truncate(128 << 20)
        index_path(path).write_bytes(
            index.encode(
                first_frame=first,
                last_frame=frame_no,
                first_arrival_ms=at_ms,
                last_arrival_ms=at_ms + (frames - 1) * 999 // frames,
                end=128 << 20,
            )
        )
        frame_no += 1
    snapshot = StreamLog.open(folder.with_name("empty"), files, now_ms=0)
    body = snapshot._snapshot()
    snapshot.close()
    files.close(writer.create(frame_no, body, count * 1000, 0).fd)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="ten million records, 10,000 shards")
    parser.add_argument("--quick", action="store_true", help="a hundredth of that")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    size = Size(1_000_000, 1_000, 200, 500, 101)
    if arguments.full:
        size = Size(10_000_000, 10_000, 2_000, 2_000, 401)
    elif arguments.quick:
        size = Size(100_000, 100, 50, 100, 11)
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        records_stored(root, arguments.seed, size)
        many_shards(root / "shards", size)
        many_streams(root / "streams", size)
        many_segments(root / "segments", size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
