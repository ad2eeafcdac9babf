"""The stream beside kinesalite on disk and beside this disk's own limit, in one run.

Load comes from one child process per measurement (`wrk` is not needed), with bodies made
beforehand from a seed. Rounds alternate between the two servers, so that what else the machine
does in the meantime meets both; the best round of each counts.

    python tests/bench/bench_stream.py [--quick] [--seed N] [--peer NODE_MODULES]

The peer is found in $NODE_PATH or ./node_modules (`npm install kinesalite`); without it only the
project's own figures are printed.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.http_load import Bodies, Connection, fill, load, make_stream
from bench.servers import HeadraceServer, PeerServer, Server, peer_modules, rss_mb


def drain(port: int) -> tuple[int, float]:
    """Records and server seconds of reading every shard from the beginning."""
    connection = Connection(port)
    shards = connection.call("ListShards", StreamName="bench")["Shards"]
    assert isinstance(shards, list)
    total, seconds = 0, 0.0
    for shard in shards:
        iterator = connection.call(
            "GetShardIterator",
            StreamName="bench",
            ShardId=shard["ShardId"],
            ShardIteratorType="TRIM_HORIZON",
        )["ShardIterator"]
        while True:
            request = json.dumps({"ShardIterator": iterator, "Limit": 10000}).encode()
            raw, took = connection.raw("GetRecords", request)
            seconds += took
            answer = json.loads(raw)
            total += len(answer["Records"])
            iterator = answer.get("NextShardIterator")
            if not answer["Records"] or iterator is None:
                break
    connection.socket.close()
    return total, seconds


def _visible(port: int, count: int, rate: float, out: multiprocessing.Queue[list[float]]) -> None:
    """Reader: put-to-visible latencies (ms) of `count` records that carry their time."""
    connection = Connection(port)
    iterator = connection.call(
        "GetShardIterator",
        StreamName="bench",
        ShardId="shardId-000000000000",
        ShardIteratorType="LATEST",
    )["ShardIterator"]
    out.put([])
    found: list[float] = []
    deadline = time.monotonic() + count / rate + 5
    while len(found) < count and time.monotonic() < deadline:
        answer = connection.call("GetRecords", ShardIterator=iterator, Limit=1000)
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        iterator = answer["NextShardIterator"]
        records = answer["Records"]
        assert isinstance(records, list)
        found += [(now - float(base64.b64decode(r["Data"]).split(b"|")[0])) * 1e3 for r in records]
    out.put(found)


def put_to_visible(port: int, count: int = 400, rate: float = 100.0) -> tuple[float, float]:
    """p50 and p99 ms from before the put to the answer that shows the record."""
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.Queue[list[float]] = context.Queue()
    reader = context.Process(target=_visible, args=(port, count, rate, out), daemon=True)
    reader.start()
    out.get()
    connection = Connection(port)
    started = time.monotonic()
    for i in range(count):
        time.sleep(max(started + i / rate - time.monotonic(), 0))
        data = b"%.9f|" % time.clock_gettime(time.CLOCK_MONOTONIC)
        connection.call(
            "PutRecord",
            StreamName="bench",
            Data=base64.b64encode(data.ljust(100, b".")).decode(),
            PartitionKey="k",
            ExplicitHashKey="0",
        )
    found = sorted(out.get())
    reader.join()
    connection.socket.close()
    return found[len(found) // 2], found[int(len(found) * 0.99)]


@dataclass
class Row:
    """One line of the table. A bar is of ours : theirs if it ends in x, else of ours alone."""

    figure: str
    unit: str
    bar: str
    smaller_is_better: bool = False
    ours: float | None = None
    theirs: float | None = None
    limit: str = ""

    @property
    def ratio(self) -> str:
        if self.ours is None or self.theirs is None:
            return "-"
        return f"{self.ours / self.theirs:.2f}x"

    @property
    def verdict(self) -> str:
        """Whether the bar is reached; nothing where there is no peer to compare with."""
        relation, bound, *_ = self.bar.removesuffix("x").split()
        value = self.ours
        if self.bar.endswith("x"):
            value = self.ours / self.theirs if self.ours and self.theirs else None
        if value is None:
            return ""
        reached = value >= float(bound) if relation == ">=" else value <= float(bound)
        return "reached" if reached else "missed"


def best(row: Row, servers: list[Server], rounds: int, measure: Callable[[int], float]) -> None:
    """Measure both servers in turn, `rounds` times, and keep the best of each."""
    pick = min if row.smaller_is_better else max
    for _ in range(rounds):
        for server in servers:
            value = measure(server_ports[server.name])
            if server.name == "headrace":
                row.ours = value if row.ours is None else pick(row.ours, value)
            else:
                row.theirs = value if row.theirs is None else pick(row.theirs, value)
    print_row(row)


server_ports: dict[str, int] = {}


def print_row(row: Row) -> None:
    def number(value: float | None) -> str:
        if value is None:
            return "-"
        return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"

    print(
        f"{row.figure:<52} {number(row.ours):>12} {number(row.theirs):>12} {row.ratio:>9}  "
        f"{row.bar:<10} {row.verdict:<8} {row.unit} {row.limit}",
        flush=True,
    )


def disk_limit(folder: Path, size: int, rounds: int = 60) -> float:
    """Commits a second of appending `size` bytes and syncing them: what this disk can do."""
    path = folder / "limit"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, size * rounds)
    data = random.randbytes(size)
    started = time.perf_counter()
    for i in range(rounds):
        os.pwrite(fd, data, i * size)
        os.fdatasync(fd)
    rate = rounds / (time.perf_counter() - started)
    os.close(fd)
    path.unlink()
    return rate


def paced_sync(folder: Path, count: int = 400, rate: float = 100.0) -> tuple[float, float]:
    """p50 and p99 ms of writing and syncing one record at the pace of `put_to_visible`.

    The processor is kept awake between them, as a polling reader does.
    """
    path = folder / "limit"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 512 * count)
    found: list[float] = []
    due = time.perf_counter()
    for i in range(count):
        due += 1 / rate
        while time.perf_counter() < due:
            pass
        os.pwrite(fd, bytes(512), 512 * i)
        os.fdatasync(fd)
        found.append((time.perf_counter() - due) * 1e3)
    os.close(fd)
    path.unlink()
    found.sort()
    return found[count // 2], found[int(count * 0.99)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="short rounds, fewer records")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--peer", help="a node_modules folder that has kinesalite")
    parser.add_argument("--records", type=int, help="records stored for the reading figures")
    arguments = parser.parse_args()
    seconds, rounds = (1.0, 1) if arguments.quick else (3.0, 3)
    stored = arguments.records or (100_000 if arguments.quick else 1_000_000)
    modules = peer_modules(arguments.peer)
    print(f"seed {arguments.seed}; peer: {'kinesalite on disk' if modules else 'not installed'}")
    bodies = Bodies(arguments.seed)
    small, large, single = bodies.records(100), bodies.records(1024), bodies.single(100)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: list[Server] = [HeadraceServer(root / "ours")]
        if modules:
            servers.append(PeerServer(root / "theirs", modules))
        for server in servers:
            (root / ("ours" if server.name == "headrace" else "theirs")).mkdir()
            server_ports[server.name] = server.start()
            stack.callback(server.stop)
            make_stream(server_ports[server.name])
        commits = {size: disk_limit(root, size) for size in (4096, 145_000, 790_000)}
        print(f"{'figure':<52} {'headrace':>12} {'kinesalite':>12} {'ratio':>9}  {'bar':<19} unit")
        for size, name, bar in ((145_000, "100 B", ">= 15x"), (790_000, "1 KiB", ">= 14x")):
            body = small if name == "100 B" else large
            for connections in (1, 8):
                best(
                    Row(
                        f"PutRecords 500 x {name}, {connections} connections",
                        "records/s",
                        bar,
                        limit=f"(disk: {commits[size] * 500:,.0f} in one sync per request)",
                    ),
                    servers,
                    rounds,
                    lambda port, b=body, c=connections: (  # type: ignore[misc]
                        load(port, "PutRecords", b, c, seconds)[0] * 500
                    ),
                )
        best(
            Row("PutRecords 500 x 100 B p99, 1 connection", "ms", "<= 0.083x", True),
            servers,
            rounds,
            lambda port: load(port, "PutRecords", small, 1, seconds)[2],
        )
        best(
            Row(
                "PutRecord 100 B, 64 connections",
                "records/s",
                ">= 4x",
                limit=f"(disk: {commits[4096]:,.0f} syncs/s)",
            ),
            servers,
            rounds,
            lambda port: load(port, "PutRecord", single, 64, seconds)[0],
        )
        for index, (percentile, bar, sync_ms) in enumerate(
            zip(("p50", "p99"), ("<= 0.5x", "<= 0.35x"), paced_sync(root), strict=True)
        ):
            limit = f"(disk: {sync_ms:.2f} for one sync)"
            row = Row(f"put to visible {percentile}, polling reader", "ms", bar, True, limit=limit)
            best(row, servers, 1, lambda port, i=index: put_to_visible(port)[i])  # type: ignore[misc]
        reading(root, servers, small, stored)
    return 0


def reading(root: Path, servers: list[Server], bodies: list[bytes], stored: int) -> None:
    """What is stored by now differs: fill both to the same number first, on fresh folders."""
    drained = Row(f"GetRecords drain, {stored:,} x 100 B", "records/s", ">= 50x")
    memory = Row(f"memory with {stored:,} records stored", "MB", "<= 130 MB", True)
    start = Row(f"start to first answer, {stored:,} stored", "ms", "<= 1000 ms", True)
    fresh: list[Server] = [HeadraceServer(root / "ours-read")]
    if len(servers) > 1:
        assert isinstance(servers[1], PeerServer)
        fresh.append(PeerServer(root / "theirs-read", servers[1]._modules))
    for server in fresh:
        ours = server.name == "headrace"
        (root / ("ours-read" if ours else "theirs-read")).mkdir()
        port = server.start()
        make_stream(port)
        count = stored if ours else min(stored, 200_000)  # the peer's rate is flat; its time is not
        fill(port, bodies, count)
        total, took = drain(port)
        assert total == count, f"{server.name} gave {total} of {count} records"
        memory_mb = rss_mb(server.pid)
        server.stop()
        started = time.perf_counter()
        server.start()
        started_ms = (time.perf_counter() - started) * 1e3
        server.stop()
        for row, value in ((drained, total / took), (memory, memory_mb), (start, started_ms)):
            if ours:
                row.ours = value
            else:
                row.theirs = value
    for row in (drained, memory, start):
        print_row(row)


if __name__ == "__main__":
    sys.exit(main())
