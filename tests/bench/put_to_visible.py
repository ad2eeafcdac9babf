"""How long a record takes from before its put until a polling reader has it."""

from __future__ import annotations

import base64
import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe

from bench.http_load import Connection


def _serve(pipe: Pipe) -> None:
    """The reader's process: asked for a port and a count, it says `None` once it reads, then ms."""
    while (asked := pipe.recv()) is not None:
        port, count, seconds = asked
        connection = Connection(port)
        iterator = connection.call(
            "GetShardIterator",
            StreamName="bench",
            ShardId="shardId-000000000000",
            ShardIteratorType="LATEST",
        )["ShardIterator"]
        pipe.send(None)
        found: list[float] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < deadline:
            answer = connection.call("GetRecords", ShardIterator=iterator, Limit=1000)
            now = time.clock_gettime(time.CLOCK_MONOTONIC)
            iterator = answer["NextShardIterator"]
            records = answer["Records"]
            assert isinstance(records, list)
            for record in records:
                put = float(base64.b64decode(record["Data"]).split(b"|")[0])
                found.append((now - put) * 1e3)
        connection.socket.close()
        pipe.send(found)


class PollingReader:
    """A process that polls the tail of a stream without a pause, while this one puts."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()

    def visible_ms(self, port: int, count: int, per_s: float) -> list[float]:
        """Put `count` records of 100 B at `per_s` a second; the time each took to be read."""
        self._pipe.send((port, count, count / per_s + 5))
        self._pipe.recv()
        connection = Connection(port)
        started = time.monotonic()
        for i in range(count):
            time.sleep(max(started + i / per_s - time.monotonic(), 0))
            data = b"%.9f|" % time.clock_gettime(time.CLOCK_MONOTONIC)
            connection.call(
                "PutRecord",
                StreamName="bench",
                Data=base64.b64encode(data.ljust(100, b".")).decode(),
                PartitionKey="k",
                ExplicitHashKey="0",
            )
        found: list[float] = self._pipe.recv()
        connection.socket.close()
        assert len(found) == count, f"{len(found)} of {count} records became visible"
        return found

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join()
