"""Reads of what only the disk has: they hold up nobody, whatever happens to their files meanwhile.

Random schedules print their seed; HEADRACE_SEED runs one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.engine.seam import LogClosed, ShardPut
from headrace.core.errors import ResourceNotFound
from headrace.core.log.access import SegmentAccess
from headrace.core.log.open_files import OpenFiles
from headrace.core.log.reading import Slice
from headrace.core.log.stream_log import StreamLog, StreamLogOptions
from headrace.core.model.records import PutEntry
from headrace.core.model.sequence import BEGINNING, Position
from headrace.core.part import StreamTarget
from headrace.core.shapes import GetResult
from headrace.core.testing.cold_files import READERS, ColdFiles
from headrace.core.testing.manual_clock import ManualClock

SHARD = "shardId-000000000000"


class Rig:
    """One shard log over a disk that can be slow."""

    def __init__(self, folder: Path, *, segment_bytes: int = 1000, max_open: int = 64) -> None:
        self.files = ColdFiles()
        self.clock = ManualClock()
        self.access = SegmentAccess(self.files, max_open=max_open)
        self.pools = [ThreadPoolExecutor(1), ThreadPoolExecutor(4, READERS)]
        stream_log = StreamLog.open(
            folder,
            self.access,
            now_ms=self.clock.now_ms(),
            options=StreamLogOptions(segment_bytes=segment_bytes),
        )
        self.log = EmbeddedShardLog(
            stream_log, self.pools[0], self.clock, self._fatal, self.pools[1]
        )
        self.count = 0

    def _fatal(self, error: BaseException) -> None:
        raise AssertionError("the store must not fail here") from error

    async def put(self, records: int = 1) -> None:
        for _ in range(records):
            data = b64encode(b"%d" % self.count + b"." * 200).decode()
            self.count += 1
            await self.log.append([ShardPut(0, 1, [data], ["k"], 200)])

    def read(self, at: Position = BEGINNING, records: int = 10_000) -> asyncio.Task[Slice]:
        return asyncio.create_task(
            self.log.read(0, at, floor=BEGINNING, max_records=records, max_bytes=1 << 20)
        )

    async def close(self) -> None:
        self.files.let_go()
        await self.log.close()
        for pool in self.pools:
            pool.shutdown()
        assert not self.files.faults
        assert self.files.open_count == 0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "log")
    yield made
    await made.close()


def numbers(part: Slice) -> list[int]:
    rows = json.loads(b"[" + b",".join(part.parts) + b"]")
    return [int(b64decode(row["Data"]).rstrip(b".")) for row in rows]


async def held_read(
    rig: Rig, at: Position = BEGINNING, records: int = 10_000
) -> asyncio.Task[Slice]:
    """A read that waits for the disk, in a thread."""
    rig.files.is_cold = True
    rig.files.hold()
    task = rig.read(at, records)
    await rig.files.somebody_waits()
    return task


async def test_what_is_in_memory_is_read_without_a_thread(rig: Rig) -> None:
    await rig.put(20)
    await rig.read()  # opens the files
    before = rig.files.reads_count
    assert numbers(await rig.read()) == list(range(20))
    assert rig.files.reads_count == before


async def test_a_read_that_waits_for_the_disk_does_not_hold_up_puts(rig: Rig) -> None:
    await rig.put(10)
    task = await held_read(rig)
    await rig.put(10)
    assert not task.done()
    rig.files.let_go()
    got = numbers(await task)
    assert got[:10] == list(range(10)) and got == list(range(len(got)))


async def test_the_tail_is_read_while_an_old_read_waits(rig: Rig) -> None:
    await rig.put(10)
    task = await held_read(rig)
    at = rig.log.tail
    await rig.put()
    rig.files.is_cold = False
    assert numbers(await rig.read(at)) == [10]
    rig.files.is_cold = True
    assert not task.done()


async def test_the_segment_being_read_is_trimmed(rig: Rig, tmp_path: Path) -> None:
    await rig.put(4)
    await rig.read()  # the files are open: the thread waits inside the first one
    task = await held_read(rig, records=1)
    await rig.clock.advance(10)
    await rig.put(10)
    assert await rig.log.trim(rig.clock.now_ms()) > 0
    # other files take the lowest free descriptors: whose was closed too early is found out
    others = [os.open(tmp_path, os.O_RDONLY) for _ in range(10)]
    rig.files.let_go()
    assert numbers(await task) == [0]
    for other in others:
        os.close(other)


async def test_a_segment_is_trimmed_before_the_thread_opens_it(rig: Rig) -> None:
    await rig.put(4)
    await rig.clock.advance(10)
    await rig.put(10)
    rig.access.open_files.close()
    middle = Position(2, 1)  # after the first record
    task = await held_read(rig, middle)
    assert await rig.log.trim(rig.clock.now_ms()) > 0
    rig.files.let_go()
    part = await task
    assert part.missed
    assert numbers(part)[-1] == 13 and 1 not in numbers(part)


async def test_the_segment_being_read_is_sealed(rig: Rig) -> None:
    await rig.put()
    task = await held_read(rig)
    await rig.put(10)
    rig.files.let_go()
    assert numbers(await task)[0] == 0


async def test_closing_waits_for_reads_and_refuses_new_ones(rig: Rig) -> None:
    await rig.put(10)
    task = await held_read(rig)
    closing = asyncio.create_task(rig.log.close())
    await asyncio.sleep(0)
    assert not closing.done()
    with pytest.raises(LogClosed):
        await rig.read()
    rig.files.let_go()
    assert numbers(await task) == list(range(10))
    await closing
    assert rig.files.open_count == 0


async def test_a_cancelled_read_is_still_waited_for(rig: Rig) -> None:
    await rig.put(10)
    task = await held_read(rig)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    closing = asyncio.create_task(rig.log.close())
    await asyncio.sleep(0.02)
    assert not closing.done()  # a thread is in there yet
    rig.files.let_go()
    await closing


def test_a_file_in_use_is_not_closed_for_want_of_room(tmp_path: Path) -> None:
    files = ColdFiles()
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    pool = OpenFiles(files, max_open=1)
    first = pool.take(paths[0], wait=True)
    for path in paths[1:]:
        with pool.take(path, wait=True):
            pass
    buffer = memoryview(bytearray(1))
    assert files.read_into(first.fd, buffer, 0, wait=True) == 1 and bytes(buffer) == b"a"
    with pool.take(paths[2], wait=True):
        pool.forget(paths[0])
        assert files.open_count == 2
    with first:  # gives it back
        pass
    assert files.open_count == len(pool) == 1
    pool.close()
    assert files.open_count == 0


async def test_readers_puts_rolls_and_trims_at_random(tmp_path: Path) -> None:
    seed = int(os.environ.get("HEADRACE_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    rig = Rig(tmp_path / "log", segment_bytes=2500, max_open=2)
    rig.files.is_cold = True
    done = asyncio.Event()

    async def follow() -> int:
        """Read everything to the end; nothing may be left out unless it says so."""
        at, last = BEGINNING, -1
        while True:
            is_last = done.is_set()
            part = await rig.read(at, chance.randint(1, 30))
            at = part.next
            got = numbers(part)
            if got:
                assert got == list(range(got[0], got[-1] + 1))
                assert got[0] == last + 1 or (got[0] > last and (part.missed or last < 0))
                last = got[-1]
            elif is_last:
                return last
            await asyncio.sleep(0)

    readers = [asyncio.create_task(follow()) for _ in range(4)]
    for _ in range(80):
        await rig.put(chance.randint(1, 4))
        await rig.clock.advance(1)
        rig.files.is_cold = chance.random() < 0.7
        if chance.random() < 0.1:
            await rig.log.trim(rig.clock.now_ms() - chance.randint(5, 60))
        if chance.random() < 0.05:
            rig.access.frames.put("room", (None, None), 1 << 30)  # type: ignore[arg-type]
    done.set()
    assert await asyncio.gather(*readers) == [rig.count - 1] * 4
    await rig.close()


@dataclass
class Held:
    """A server with one record in stream `s`, and a GetRecords that waits for the disk."""

    client: StreamClient
    files: ColdFiles
    getting: asyncio.Task[GetResult]
    iterator: str


@contextlib.asynccontextmanager
async def held_get(data: Path) -> AsyncIterator[Held]:
    files = ColdFiles()
    async with (
        server_here(data, files=files) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        await client.put_records("s", [PutEntry(b"first", "k")])
        iterator = await client.get_shard_iterator("s", SHARD, "TRIM_HORIZON")
        files.is_cold = True
        files.hold()
        getting = asyncio.create_task(client.get_records(iterator))
        await files.somebody_waits()
        yield Held(client, files, getting, iterator)


async def test_a_shard_closed_while_it_is_read_has_not_ended_yet(tmp_path: Path) -> None:
    async with held_get(tmp_path / "data") as held:
        await held.client.put_records("s", [PutEntry(b"second", "k")])
        await held.client.call(
            "SplitShard",
            {"StreamName": "s", "ShardToSplit": SHARD, "NewStartingHashKey": str(1 << 127)},
        )
        held.files.let_go()
        found: list[bytes] = []
        got = await held.getting
        while True:
            found += [record.data for record in got.records]
            if got.next_iterator is None:
                break
            got = await held.client.get_records(got.next_iterator)
        assert found == [b"first", b"second"]


async def test_a_stream_is_deleted_while_it_is_read(tmp_path: Path) -> None:
    async with held_get(tmp_path / "data") as held:
        deleting = asyncio.create_task(held.client.call("DeleteStream", {"StreamName": "s"}))
        with pytest.raises(ResourceNotFound):
            while True:
                await held.client.get_shard_iterator("s", SHARD, "TRIM_HORIZON")
        held.files.let_go()
        await deleting
        assert [record.data for record in (await held.getting).records] == [b"first"]
        with pytest.raises(ResourceNotFound):
            await held.client.get_records(held.iterator)
    assert not held.files.faults
