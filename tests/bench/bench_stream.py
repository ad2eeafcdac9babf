"""The stream beside kinesalite on disk and beside this disk's own limit, in one run.

Load comes from one child process (`wrk` is not needed), with bodies made beforehand from a seed.
The two servers and the disk are measured in turn, about a second each, again and again: what else
the machine does in the meantime meets all of them. A rate is the median of its rounds, a percentile
that of the latencies of all rounds together. A round in which the host of a virtual machine took
much of its time for others is left out, for all of them, if another one can be had; where some
were, it is told, with the ratio of all rounds.

    python -m tests.bench stream [--quick] [--seed N] [--peer NODE_MODULES]

The peer is found in $NODE_PATH or ./node_modules (`npm install kinesalite`); without it only the
project's own figures are printed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench.disk_limit import DiskLimit
from bench.http_load import Bodies, Connection, Loaded, LoadProcess, fill, make_stream
from bench.in_turn import Found, Round, in_turn
from bench.put_to_visible import PollingReader
from bench.servers import HeadraceServer, PeerServer, Server, peer_modules, rss_mb
from bench.table import OURS, THEIRS, Row, percentile, show_header


@dataclass(frozen=True)
class Effort:
    """How long to look."""

    rounds: int
    seconds: float
    """Of each server in each round."""
    stored: int
    """Records that the reading figures are measured on."""


T = TypeVar("T")


def show(
    figure: str,
    unit: str,
    bar: str,
    found: Found[T],
    value: Callable[[list[T]], float],
    note: str = "",
) -> None:
    """A line of the table; `value` makes one of the rounds that count.

    `note` may name a contender, in braces, whose value then stands there.
    """
    values = found.values(value)
    notes = [note.format(**values)] if note else []
    row = Row(figure, unit, bar, values)
    if found.steadiness:
        notes.append(found.steadiness)
        every = Row(figure, unit, bar, found.values(value, found.tried))
        if every.theirs is not None:
            notes.append(f"in all {every.ratio}")
    row.note = f"({'; '.join(notes)})" if notes else ""
    row.show()


Measured = tuple[Loaded, float]
"""A stretch of load, and the disk's synced writes a second just before it."""


def rate(rounds: list[Measured], records: int) -> float:
    """Records a second where an answer is for so many."""
    return median(loaded.answers_per_s for loaded, _ in rounds) * records


def p99_ms(rounds: list[Measured]) -> float:
    return percentile([ms for loaded, _ in rounds for ms in loaded.latencies_ms], 0.99)


def writing(ports: dict[str, int], root: Path, load: LoadProcess, effort: Effort) -> None:
    """What the puts take, beside one synced write of their size for each of them."""

    def loaded(
        operation: str, bodies: str, connections: int, limit: DiskLimit
    ) -> tuple[Found[Measured], float]:
        def one(port: int) -> Measured:
            commits_per_s = limit.commits_per_s()
            return load.load(port, operation, bodies, connections, effort.seconds), commits_per_s

        found = in_turn(effort.rounds, {name: partial(one, port) for name, port in ports.items()})
        return found, median(
            commits_per_s for round_ in found.counted for _, commits_per_s in round_.values.values()
        )

    for bodies, size, bar in (("100 B", 145_000, ">= 15x"), ("1 KiB", 790_000, ">= 14x")):
        for connections in (1, 8):
            found, commits = loaded("PutRecords", bodies, connections, DiskLimit(root, size, 20))
            show(
                f"PutRecords 500 x {bodies}, {connections} connections",
                "records/s",
                bar,
                found,
                partial(rate, records=500),
                f"disk: {commits * 500:,.0f} in one sync per request",
            )
            if (bodies, connections) == ("100 B", 1):
                figure = "PutRecords 500 x 100 B p99, 1 connection"
                show(figure, "ms", "<= 0.083x", found, p99_ms)
    found, commits = loaded("PutRecord", "single", 64, DiskLimit(root, 4096, 50))
    figure = "PutRecord 100 B, 64 connections"
    note = f"disk: {commits:,.0f} syncs/s"
    show(figure, "records/s", ">= 4x", found, partial(rate, records=1), note)


def visibility(ports: dict[str, int], root: Path, effort: Effort, per_s: float = 100.0) -> None:
    """From before a put to the answer that shows the record, beside one synced write."""
    count = int(per_s * effort.seconds)
    limit = DiskLimit(root, 512, count)
    reader = PollingReader()
    found = in_turn(
        effort.rounds,
        {name: partial(reader.visible_ms, port, count, per_s) for name, port in ports.items()}
        | {"disk": partial(limit.paced_ms, per_s)},
    )
    reader.stop()
    for share, bar in ((0.50, "<= 0.5x"), (0.99, "<= 0.35x")):
        figure = f"put to visible p{share * 100:.0f}, polling reader"
        value = partial(_of_all, share=share)
        show(figure, "ms", bar, found, value, "disk: {disk:.2f} for one sync")


def _of_all(rounds: list[list[float]], share: float) -> float:
    return percentile([ms for round_ in rounds for ms in round_], share)


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


def reading(servers: list[Server], bodies: list[bytes], effort: Effort) -> None:
    """On fresh servers, filled to a number of records that is known."""
    # the peer's rate is flat in what it stores; the time it takes to fill is not
    fewer = min(effort.stored, 200_000)
    counts = {s.name: effort.stored if s.name == OURS else fewer for s in servers}
    note = f"{THEIRS} with {fewer:,}" if len(servers) > 1 and fewer < effort.stored else ""

    def records_per_s(port: int, count: int) -> float:
        total, took = drain(port)
        assert total == count, f"{total} of {count} records came back"
        return total / took

    def start_ms(server: Server) -> float:
        server.stop()
        started = time.perf_counter()
        server.start()
        return (time.perf_counter() - started) * 1e3

    drains = {}
    for server in servers:
        port = server.start()
        make_stream(port)
        fill(port, bodies, counts[server.name])
        drains[server.name] = partial(records_per_s, port, counts[server.name])
    drained = in_turn(3, drains)
    memory = {server.name: rss_mb(server.pid) for server in servers}
    starts = in_turn(3, {server.name: partial(start_ms, server) for server in servers})
    for server in servers:
        server.stop()
    stored = f"{effort.stored:,}"
    show(f"GetRecords drain, {stored} x 100 B", "records/s", ">= 50x", drained, median, note)
    in_memory = Found([Round(memory, 0.0)], 1)
    show(f"memory with {stored} records stored", "MB", "<= 130 MB", in_memory, median, note)
    show(f"start to first answer, {stored} stored", "ms", "<= 1000 ms", starts, median, note)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="short rounds, fewer records")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--peer", help="a node_modules folder that has kinesalite")
    parser.add_argument("--records", type=int, help="records stored for the reading figures")
    arguments = parser.parse_args()
    rounds, seconds, stored = (2, 0.5, 100_000) if arguments.quick else (9, 1.0, 1_000_000)
    if arguments.records is not None and (arguments.records < 500 or arguments.records % 500):
        parser.error("--records: a multiple of 500, which is what a request brings")
    effort = Effort(rounds, seconds, arguments.records or stored)
    modules = peer_modules(arguments.peer)
    print(f"seed {arguments.seed}; peer: {'kinesalite on disk' if modules else 'not installed'}")
    bodies = Bodies(arguments.seed)
    small = bodies.records(100)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        by_name = {"100 B": small, "1 KiB": bodies.records(1024), "single": bodies.single(100)}
        load = LoadProcess(by_name)
        stack.callback(load.stop)
        ports = {}
        for server in contenders(root / "writing", modules):
            ports[server.name] = server.start()
            stack.callback(server.stop)
            make_stream(ports[server.name])
        show_header()
        writing(ports, root, load, effort)
        visibility(ports, root, effort)
        reading(contenders(root / "reading", modules), small, effort)
    return 0


def contenders(root: Path, modules: Path | None) -> list[Server]:
    """Ours, and the peer if it is installed, on fresh folders of their own."""
    for name in ("ours", "theirs"):
        (root / name).mkdir(parents=True)
    servers: list[Server] = [HeadraceServer(root / "ours")]
    if modules:
        servers.append(PeerServer(root / "theirs", modules))
    return servers


if __name__ == "__main__":
    sys.exit(main())
