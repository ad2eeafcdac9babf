"""Readers who come upon a damaged index: it is made again in a thread, whatever happens there."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.engine.seam import ShardPut
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import SystemFiles
from headrace.core.log.reading import Slice
from headrace.core.log.stream_log import StreamLog, StreamLogOptions
from headrace.core.model.sequence import BEGINNING
from headrace.core.testing.cold_files import READERS
from headrace.core.testing.manual_clock import ManualClock

RECORDS = 40


class HeldScans(SystemFiles):
    """Scans of segments, which alone read like this, can be held up; says who is at one."""

    def __init__(self) -> None:
        self.scanning: list[str] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_at_one = threading.Event()

    def written_end(self, fd: int) -> int:
        self.scanning.append(threading.current_thread().name)
        self.is_at_one.set()
        assert self.may_go.wait(10)
        return super().written_end(fd)


class Rig:
    """A shard log of several segments, opened again with every index damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = HeldScans()
        self.clock = ManualClock()
        self.writers, self.readers = ThreadPoolExecutor(1), ThreadPoolExecutor(4, READERS)

    def open(self) -> EmbeddedShardLog:
        options = StreamLogOptions(segment_bytes=2000)
        stream_log = StreamLog.open(
            self.folder, SegmentAccess(self.files), now_ms=self.clock.now_ms(), options=options
        )
        return EmbeddedShardLog(stream_log, self.writers, self.clock, self._fatal, self.readers)

    def _fatal(self, error: BaseException) -> None:
        raise AssertionError("the store must not fail here") from error

    async def start(self) -> None:
        log = self.open()
        for i in range(RECORDS):
            data = b64encode(b"%d" % i + b"." * 200).decode()
            await log.append([ShardPut(0, 1, [data], ["k"], 200)])
            self.clock.step_wall(1000)
        await log.close()
        for index in self.indexes():
            raw = bytearray(index.read_bytes())
            raw[8] ^= 1
            index.write_bytes(raw)
        self.log = self.open()
        self.files.scanning.clear()
        self.files.is_at_one.clear()

    def indexes(self) -> list[Path]:
        return sorted(self.folder.glob("*.idx"))

    async def read(self) -> Slice:
        return await self.log.read(
            0, BEGINNING, floor=BEGINNING, max_records=10_000, max_bytes=1 << 20
        )

    async def at_a_scan(self) -> None:
        assert await asyncio.to_thread(self.files.is_at_one.wait, 10), "nothing was made again"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "log")
    await made.start()
    assert len(made.indexes()) > 4
    yield made
    made.files.may_go.set()
    await made.log.close()
    made.writers.shutdown()
    made.readers.shutdown()


def numbers(part: Slice) -> list[int]:
    rows = json.loads(b"[" + b",".join(part.parts) + b"]")
    return [int(b64decode(row["Data"]).rstrip(b".")) for row in rows]


async def test_it_is_made_again_in_a_thread_and_puts_go_on(rig: Rig) -> None:
    rig.files.may_go.clear()
    reads = [asyncio.create_task(rig.read()) for _ in range(3)]
    await rig.at_a_scan()
    data = b64encode(b"%d" % RECORDS).decode()
    await asyncio.wait_for(rig.log.append([ShardPut(0, 1, [data], ["k"], 200)]), 10)
    rig.files.may_go.set()
    for read in reads:
        assert numbers(await read)[:RECORDS] == list(range(RECORDS))
    assert len(rig.files.scanning) == len(rig.indexes())
    assert all(name.startswith(READERS) for name in rig.files.scanning)


async def test_a_segment_trimmed_while_its_index_is_made_again_is_no_error(rig: Rig) -> None:
    rig.files.may_go.clear()
    read = asyncio.create_task(rig.read())
    await rig.at_a_scan()
    assert await rig.log.trim(rig.clock.now_ms() - RECORDS * 500) > 1
    rig.files.may_go.set()
    found = numbers(await read)
    assert found == list(range(found[0], RECORDS)) and 0 < found[0] <= RECORDS // 2
    await rig.log.close()
    rig.log = rig.open()
    assert numbers(await rig.read()) == found
    assert {path.stem for path in rig.indexes()} < {p.stem for p in rig.folder.glob("*.seg")}


async def test_a_log_that_is_closed_waits_for_it(rig: Rig) -> None:
    rig.files.may_go.clear()
    read = asyncio.create_task(rig.read())
    await rig.at_a_scan()
    closing = asyncio.create_task(rig.log.close())
    await asyncio.sleep(0)
    assert not closing.done()
    rig.files.may_go.set()
    await closing
    assert numbers(await read) == list(range(RECORDS))
