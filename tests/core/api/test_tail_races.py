"""What a reader sees of records that are just being written.

The disk is held in the middle of a sync, so that what takes milliseconds otherwise lasts as long
as the test wants.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.engine.embedded import group_commit
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.errors import ProducerFenced, ServiceUnavailable
from headrace.core.log.files import SystemFiles
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.records import ProducerStamp, PutEntry
from headrace.core.part import StreamTarget
from headrace.core.server import Server
from headrace.core.testing.faulty_files import no_space
from headrace.core.testing.manual_clock import ManualClock

STREAM = "s"
SHARD = "shardId-000000000000"
HOUR_MS = 3_600_000


class SlowDisk(SystemFiles):
    """A disk whose syncs can be held back and let go."""

    def __init__(self) -> None:
        self.is_full = False
        self._syncs, self._renames = _Gate(), _Gate()

    def hold(self) -> None:
        self._syncs.shut()

    def hold_renames(self) -> None:
        """The index of a sealed segment is renamed into its place."""
        self._renames.shut()

    def let_go(self) -> None:
        self._syncs.open()
        self._renames.open()

    async def sync_has_begun(self) -> None:
        await asyncio.to_thread(self._syncs.wait_for_somebody)

    async def rename_has_begun(self) -> None:
        await asyncio.to_thread(self._renames.wait_for_somebody)

    def sync_data(self, fd: int) -> None:
        self._syncs.pass_through()
        super().sync_data(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._renames.pass_through()
        super().rename(source, target)

    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        if self.is_full:
            raise no_space()
        super().write_at(fd, buffers, offset)


class _Gate:
    """Threads pass while it is open, and wait while it is shut."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._opened.set()
        self._waiting = threading.Event()

    def shut(self) -> None:
        self._waiting.clear()
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()

    def pass_through(self) -> None:
        if not self._opened.is_set():
            self._waiting.set()
            assert self._opened.wait(10), "the test never opened the gate"

    def wait_for_somebody(self) -> None:
        assert self._waiting.wait(10), "nobody came to the gate"


@pytest.fixture(autouse=True)
def writes_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A held disk must hold a writer thread, not the loop this test runs in."""
    monkeypatch.setattr(InLoop, "small_bytes", 0)
    monkeypatch.setattr(InLoop, "lone_bytes", 0)


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def here(tmp_path: Path, disk: SlowDisk, clock: ManualClock) -> AsyncIterator[Server]:
    async with server_here(tmp_path / "data", clock, files=disk) as server:
        yield server
        disk.let_go()


@pytest.fixture
async def client(here: Server) -> AsyncIterator[StreamClient]:
    async with StreamClient(StreamTarget(endpoint=here.endpoint)) as stream_client:
        await stream_client.ensure_stream(STREAM, shards=1)
        yield stream_client


async def in_window(server: Server, least_bytes: int = 1) -> int:
    """Wait until what is put next is in the open window; returns its data's bytes."""
    (opened,) = server._catalog._open.values()
    assert isinstance(opened.log, EmbeddedShardLog)
    async with asyncio.timeout(10):
        while opened.log.commits._in_flight_bytes < least_bytes:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return opened.log.commits._in_flight_bytes


def put(client: StreamClient, *data: bytes) -> asyncio.Task[object]:
    return asyncio.create_task(client.put_records(STREAM, [PutEntry(one, "k") for one in data]))


async def rest(client: StreamClient, token: str | None) -> list[bytes]:
    """All that an iterator still gives."""
    found: list[bytes] = []
    while token is not None:
        got = await client.get_records(token)
        found += [record.data for record in got.records]
        token = got.next_iterator
        if not got.records:
            break
    return found


async def test_a_reader_of_an_empty_stream_gets_the_record_just_being_written(
    client: StreamClient, disk: SlowDisk
) -> None:
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    disk.hold()
    putting = put(client, b"first")
    await disk.sync_has_begun()
    during = await client.get_records(token)
    assert during.records == []
    disk.let_go()
    await putting
    assert await rest(client, during.next_iterator) == [b"first"]


async def test_a_reader_behind_the_retention_gets_the_record_just_being_written(
    client: StreamClient, disk: SlowDisk, clock: ManualClock
) -> None:
    await put(client, b"long expired")
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    await clock.advance(30 * HOUR_MS)
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    disk.hold()
    putting = put(client, b"fresh")
    await disk.sync_has_begun()
    during = await client.get_records(token)
    assert during.records == []
    disk.let_go()
    await putting
    assert await rest(client, during.next_iterator) == [b"fresh"]


@pytest.mark.parametrize("kind", ["LATEST", "AT_TIMESTAMP"])
async def test_a_put_after_the_iterator_joins_a_window_begun_before(
    here: Server, client: StreamClient, disk: SlowDisk, clock: ManualClock, kind: str
) -> None:
    """The second put's frame is open already when the iterator is made, the third joins it."""
    disk.hold()
    first = put(client, b"1")
    await disk.sync_has_begun()
    second = put(client, b"2")
    before_bytes = await in_window(here)
    at_ms = clock.now_ms() if kind == "AT_TIMESTAMP" else None
    token = await client.get_shard_iterator(STREAM, SHARD, kind, at_ms=at_ms)
    third = put(client, b"3")
    await in_window(here, before_bytes + 1)
    disk.let_go()
    await asyncio.gather(first, second, third)
    # the first two were not there yet for any reader, so seeing them is right too
    assert (await rest(client, token))[-1:] == [b"3"]


async def test_the_end_of_a_closed_shard_waits_for_its_last_records(
    client: StreamClient, disk: SlowDisk
) -> None:
    """Also when the same split is asked for twice: the refused one must not show the end."""
    token: str | None = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")

    async def split() -> None:
        await client.call(
            "SplitShard",
            {"StreamName": STREAM, "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)},
        )

    splits = [asyncio.create_task(split()) for _ in range(3)]
    last: list[asyncio.Task[object]] = []
    found: list[bytes] = []
    for i in range(50):
        last.append(put(client, b"%d" % i))
        await asyncio.sleep(0)
        assert token is not None
        got = await client.get_records(token)
        found += [record.data for record in got.records]
        token = got.next_iterator
        if token is None:
            break
    done = await asyncio.gather(*splits, return_exceptions=True)
    assert sum(result is None for result in done) == 1
    await asyncio.gather(*last)
    found += await rest(client, token)
    for child in ("shardId-000000000001", "shardId-000000000002"):
        found += await rest(client, await client.get_shard_iterator(STREAM, child, "TRIM_HORIZON"))
    assert sorted(found) == sorted(b"%d" % i for i in range(len(last)))
    del disk


async def test_repeats_do_not_count_as_being_written(
    client: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer that puts more again than may be in flight must not shut the stream."""
    monkeypatch.setattr(group_commit, "MAX_IN_FLIGHT_BYTES", 100_000)
    entries = [PutEntry(bytes(1000), "k")] * 50
    for sequences in (list(range(50)), list(range(50)), list(range(50))):
        await client.put_records(STREAM, entries, producer=ProducerStamp("p", 1, sequences))
    for _ in range(3):
        with pytest.raises(ProducerFenced):
            await client.put_records(STREAM, entries, producer=ProducerStamp("p", 0, sequences))
    await put(client, b"x")


async def test_what_a_full_disk_refused_does_not_count_as_being_written(
    here: Server, client: StreamClient, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_IN_FLIGHT_BYTES", 100_000)
    disk.hold()
    first = put(client, b"1")
    await disk.sync_has_begun()
    refused = put(client, bytes(90_000))
    later = [put(client, bytes(9_000))]
    await in_window(here, 99_000)
    disk.is_full = True
    disk.let_go()
    await first
    results = await asyncio.gather(refused, *later, return_exceptions=True)
    assert all(isinstance(result, ServiceUnavailable) for result in results)
    disk.is_full = False
    await put(client, bytes(50_000))
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    assert await rest(client, token) == [b"1", bytes(50_000)]


async def test_more_than_may_be_in_flight_is_refused_whole(
    here: Server, client: StreamClient, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_IN_FLIGHT_BYTES", 100_000)
    disk.hold()
    first = put(client, b"1")
    await disk.sync_has_begun()
    second = put(client, bytes(90_000))
    await in_window(here, 90_000)
    with pytest.raises(ServiceUnavailable):
        await put(client, bytes(5_000), bytes(6_000))
    disk.let_go()
    await asyncio.gather(first, second)
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    assert await rest(client, token) == [b"1", bytes(90_000)]


async def test_more_records_at_once_than_a_frame_holds(
    here: Server, client: StreamClient, disk: SlowDisk
) -> None:
    disk.hold()
    putting = [put(client, b"first")]
    await disk.sync_has_begun()
    putting += [put(client, *(b"%d %d" % (i, j) for j in range(500))) for i in range(40)]
    data_bytes = sum(len(b"%d %d" % (i, j)) for i in range(40) for j in range(500))
    await in_window(here, data_bytes)
    disk.let_go()
    await asyncio.gather(*putting)
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    found = await rest(client, token)
    assert len(found) == len(set(found)) == 20_001
    for i in range(40):
        assert [int(d.split()[1]) for d in found[1:] if int(d.split()[0]) == i] == list(range(500))


async def test_a_repeat_is_not_acknowledged_before_the_first_is_durable(
    client: StreamClient, disk: SlowDisk
) -> None:
    stamp = ProducerStamp("p", 0, [1])
    disk.hold()
    calls = []
    for _ in range(3):
        calls.append(
            asyncio.create_task(client.put_records(STREAM, [PutEntry(b"x", "k")], producer=stamp))
        )
        await disk.sync_has_begun()
    done, _ = await asyncio.wait(calls, timeout=0.2)
    assert not done
    disk.let_go()
    results = await asyncio.gather(*calls)
    assert len({result[0].sequence_number for result in results}) == 1
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    assert await rest(client, token) == [b"x"]


async def test_a_stream_deleted_in_the_middle_of_a_put(
    client: StreamClient, disk: SlowDisk
) -> None:
    disk.hold()
    putting = put(client, b"x")
    await disk.sync_has_begun()
    deleting = asyncio.create_task(client.call("DeleteStream", {"StreamName": STREAM}))
    await asyncio.sleep(0.05)
    disk.let_go()
    await asyncio.gather(putting, deleting)  # it was stored, and then it was deleted
    await client.ensure_stream(STREAM, shards=1)
    token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
    assert await rest(client, token) == []


async def test_a_split_with_a_full_disk_remembers_nothing_that_was_not_stored(
    client: StreamClient, disk: SlowDisk
) -> None:
    """The producer's memory is cut at the split while the refused records are still in it."""
    stamp = ProducerStamp("p", 0, list(range(20)))
    entries = [PutEntry(b"%d" % i, f"key {i}") for i in range(20)]
    disk.hold()
    first = put(client, b"first")
    await disk.sync_has_begun()
    split = asyncio.create_task(
        client.call(
            "SplitShard",
            {"StreamName": STREAM, "ShardToSplit": SHARD, "NewStartingHashKey": str(2**127)},
        )
    )
    await asyncio.sleep(0.05)
    producing = asyncio.create_task(client.put_records(STREAM, entries, producer=stamp))
    await asyncio.sleep(0.05)
    disk.is_full = True
    disk.let_go()
    await first
    await asyncio.gather(split, producing, return_exceptions=True)
    disk.is_full = False
    await client.put_records(STREAM, entries, producer=stamp)
    found: list[bytes] = []
    for shard in await client.list_shards(STREAM):
        token = await client.get_shard_iterator(STREAM, shard.shard_id, "TRIM_HORIZON")
        found += await rest(client, token)
    assert sorted(found) == sorted([b"first", *(entry.data for entry in entries)])


async def test_reading_a_segment_while_it_is_sealed(tmp_path: Path, clock: ManualClock) -> None:
    """The writer once closed the file before readers had been moved to the new one."""
    disk = SlowDisk()
    options = StreamLogOptions(segment_bytes=20_000)
    async with (
        server_here(tmp_path / "data", clock, files=disk, log_options=options) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream(STREAM, shards=1)
        await put(client, b"early")
        token = await client.get_shard_iterator(STREAM, SHARD, "TRIM_HORIZON")
        disk.hold_renames()
        putting = put(client, bytes(30_000))
        await disk.rename_has_begun()
        got = await client.get_records(token)
        assert [record.data for record in got.records] == [b"early"]
        disk.let_go()
        await putting
        assert await rest(client, got.next_iterator) == [bytes(30_000)]
