"""`headrace put STREAM` and `headrace tail STREAM`: records in by hand, records out to look at."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.core.errors import ConfigError, ExpiredIterator, ResourceNotFound, ThroughputExceeded
from headrace.core.limits import MAX_RECORDS_PER_PUT
from headrace.core.model.records import PutEntry, PutResult, Record
from headrace.core.units import parse_duration_ms
from headrace.pipeline.cli.console import AsJson, print_json_line, talk
from headrace.pipeline.cli.streams import Name, with_client
from headrace.pipeline.cli.target import Endpoint, File, Region, make_target

if TYPE_CHECKING:
    from headrace.core.client import StreamClient

#: Between two reads of a shard that had nothing; five reads a second are what AWS allows.
_POLL_S = 0.25

#: Between two looks for shards that a split or merge has made.
_SHARDS_PERIOD_S = 5.0


def put(
    stream: Name,
    data: Annotated[
        list[str] | None, typer.Argument(metavar="[DATA]...", help="Records; none: stdin's lines.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", "-k", help="Partition key; the data's hash by default.")
    ] = None,
    as_json: AsJson = False,
    endpoint: Endpoint = None,
    region: Region = None,
    file: File = None,
) -> None:
    """Put records into STREAM: one for each DATA, or one for each line of stdin.

    Lines go out as they come in, without their newline. Ends when every record is stored.
    """
    target = make_target(endpoint, region, file)

    async def work(client: StreamClient) -> int:
        from headrace.core.producer import Producer

        await client.call("DescribeStreamSummary", {"StreamName": stream})  # a typo fails now
        producer = Producer(client, stream)
        count = 0
        async for batch in _batches(data):
            entries = [PutEntry(one, key or hashlib.md5(one).hexdigest()) for one in batch]
            results = await producer.put_batch(entries)
            count += len(results)
            if as_json:
                _print_results(results)
        return count

    count = with_client(target, work)
    talk.print(f"{count} record{'s' * (count != 1)} stored in {stream}", markup=False)


def tail(
    stream: Name,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", "-b", help="Begin with the oldest record.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Begin this long ago, such as 15m or 2h.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on as new records come in.")
    ] = True,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="End after this many records.")
    ] = None,
    as_json: AsJson = False,
    endpoint: Endpoint = None,
    region: Region = None,
    file: File = None,
) -> None:
    """Print STREAM's records, all shards, one a line; new ones as they come in.

    Within a shard the order is the stream's. With --json a line has the record's key, shard,
    sequence number and time too, and data that is not text comes as data_base64.
    """
    start = _Start.of(from_beginning, since)
    target = make_target(endpoint, region, file)
    printer = _Printer(as_json, limit)
    with contextlib.suppress(KeyboardInterrupt):
        with_client(target, lambda client: _Tail(client, stream, start, follow, printer).run())


async def _batches(data: list[str] | None) -> AsyncIterator[list[bytes]]:
    """Lists of at most 500 records: all arguments, or stdin's lines as they come."""
    if data is not None:
        for i in range(0, len(data), MAX_RECORDS_PER_PUT):
            yield [one.encode() for one in data[i : i + MAX_RECORDS_PER_PUT]]
        return
    if sys.stdin.isatty():
        talk.print("reading records from the keyboard, one a line; Ctrl-D ends")
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=4 * MAX_RECORDS_PER_PUT)
    loop = asyncio.get_running_loop()

    def hand_over(line: bytes | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

    def read() -> None:
        with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):  # loop is gone
            for line in _stdin_lines():
                hand_over(line)
            hand_over(None)

    threading.Thread(target=read, daemon=True).start()
    line = await queue.get()
    while line is not None:
        batch = [line]
        while len(batch) < MAX_RECORDS_PER_PUT and not queue.empty():
            line = queue.get_nowait()
            if line is None:
                break
            batch.append(line)
        yield batch
        line = None if line is None else await queue.get()


def _stdin_lines() -> Iterator[bytes]:
    """Lines as they come in, without their ends.

    Past Python's own buffer: a thread that waits in that one holds a lock Python wants at exit.
    """
    rest = b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


def _print_results(results: Iterable[PutResult]) -> None:
    for result in results:
        print_json_line({"shard": result.shard_id, "sequence_number": result.sequence_number})


class _Start:
    """Where to begin on the shards that are there at the start; later ones begin at their start."""

    def __init__(self, kind: str, at_ms: int | None = None) -> None:
        self.kind = kind
        self.at_ms = at_ms

    @classmethod
    def of(cls, from_beginning: bool, since: str | None) -> _Start:
        if from_beginning and since is not None:
            raise ConfigError("--from-beginning and --since exclude each other")
        if since is None:
            return cls("TRIM_HORIZON" if from_beginning else "LATEST")
        try:
            duration_ms = parse_duration_ms(since)
        except ValueError as error:
            raise ConfigError(f"--since: expected {error}") from None
        assert isinstance(duration_ms, int)
        return cls("AT_TIMESTAMP", time.time_ns() // 1_000_000 - duration_ms)


class _Printer:
    """Prints records until there were enough."""

    def __init__(self, as_json: bool, limit: int | None) -> None:
        self._as_json = as_json
        self._left = limit

    @property
    def is_done(self) -> bool:
        return self._left == 0

    def print(self, shard_id: str, records: Iterable[Record]) -> None:
        for record in records:
            if self.is_done:
                return
            if self._left is not None:
                self._left -= 1
            if self._as_json:
                print_json_line(_as_dict(shard_id, record))
            else:
                sys.stdout.buffer.write(record.data.rstrip(b"\n") + b"\n")
        sys.stdout.flush()


def _as_dict(shard_id: str, record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "shard": shard_id,
        "sequence_number": record.sequence_number,
        "partition_key": record.partition_key,
        "arrival_ms": record.approximate_arrival_ms,
    }
    try:
        fields["data"] = record.data.decode()
    except UnicodeDecodeError:
        fields["data_base64"] = base64.b64encode(record.data).decode()
    return fields


class _Tail:
    """One reader a shard, and a look for new shards now and then."""

    def __init__(
        self, client: StreamClient, stream: str, start: _Start, follow: bool, printer: _Printer
    ) -> None:
        self._client = client
        self._stream = stream
        self._start = start
        self._follow = follow
        self._printer = printer
        self._readers: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        start = self._start
        try:
            while not self._printer.is_done:
                for shard in await self._client.list_shards(self._stream):
                    if shard.shard_id not in self._readers:
                        reader = self._read(shard.shard_id, start)
                        self._readers[shard.shard_id] = asyncio.create_task(reader)
                start = _Start("TRIM_HORIZON")
                running = [task for task in self._readers.values() if not task.done()]
                if not running and not self._follow:
                    break
                done, _ = await asyncio.wait(
                    running or [asyncio.create_task(asyncio.sleep(_POLL_S))],
                    timeout=_SHARDS_PERIOD_S if self._follow else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    task.result()
        finally:
            for task in self._readers.values():
                task.cancel()

    async def _read(self, shard_id: str, start: _Start) -> None:
        client, last = self._client, None
        iterator: str | None = await client.get_shard_iterator(
            self._stream, shard_id, start.kind, at_ms=start.at_ms
        )
        while iterator is not None and not self._printer.is_done:
            try:
                answer = await client.get_records(iterator)
            except ThroughputExceeded:
                await asyncio.sleep(1)
                continue
            except ExpiredIterator:
                kind = "AFTER_SEQUENCE_NUMBER" if last else start.kind
                iterator = await client.get_shard_iterator(
                    self._stream, shard_id, kind, sequence_number=last, at_ms=start.at_ms
                )
                continue
            except ResourceNotFound:
                return  # the shard expired, or the stream was deleted: list_shards will tell
            self._printer.print(shard_id, answer.records)
            if answer.records:
                last = answer.records[-1].sequence_number
            elif answer.millis_behind_latest == 0:
                if not self._follow:
                    return
                await asyncio.sleep(_POLL_S)
            iterator = answer.next_iterator
