"""The control log on a full disk: refused with nothing stored, and a disk that fails stops it."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from control_log_harness import create, open_log
from headrace.core.errors import InternalFailure, StorageFull, StorageLocked
from headrace.core.log.files import SystemFiles
from headrace.core.testing.faulty_files import FaultyFiles, io_error, no_space
from small_disk import small_disk


async def test_an_unwritable_log_stops_the_process_and_a_full_disk_does_not(
    tmp_path: Path,
) -> None:
    fatal: list[BaseException] = []
    files = FaultyFiles()
    log = open_log(tmp_path / "control.sqlite", fatal, files)
    files.fail_always("commit", no_space)
    with pytest.raises(StorageFull, match="nothing was changed"):
        await log.submit(create("a"))
    assert not fatal
    files.heal()
    await log.submit(create("a"))
    files.fail_always("commit", io_error)
    # the second comes while the first is being committed: neither may wait for ever
    first, second = asyncio.create_task(log.submit(create("b"))), None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(log.submit(create("c")))
    for failed in (first, second):
        with pytest.raises(InternalFailure):
            await asyncio.wait_for(failed, 10)
    assert len(fatal) == 1
    with pytest.raises(InternalFailure, match="stopping"):
        await log.submit(create("d"))
    await log.close()


async def test_who_came_while_the_disk_was_found_full_is_answered_too(tmp_path: Path) -> None:
    files = FaultyFiles()
    log = open_log(tmp_path / "control.sqlite", files=files)
    files.fail_always("commit", no_space)
    first = asyncio.create_task(log.submit(create("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(log.submit(create("b")))
    for failed in (first, second):
        with pytest.raises(StorageFull):
            await asyncio.wait_for(failed, 10)
    await log.close()


async def test_what_sqlite_itself_says_of_a_full_database_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    fatal: list[BaseException] = []

    class Small(SystemFiles):
        def connect(self, path: Path) -> sqlite3.Connection:
            made = super().connect(path)
            made.execute("PRAGMA max_page_count = 32")  # 128 KiB
            return made

    log = open_log(path, fatal, Small())
    stored = 0
    with pytest.raises(StorageFull):
        for _ in range(1000):
            await log.submit(create(f"s{stored}"))
            stored += 1
    assert stored
    assert not fatal
    before = msgspec.json.encode(log.state)
    await log.close()
    again = open_log(path)  # with room
    assert msgspec.json.encode(again.state) == before
    await again.submit(create("more"))
    await again.close()


class _Quota(SystemFiles):
    """Files that may grow no more. SQLite finds out by itself; all others are told why."""

    is_quota = True

    def write_at(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        raise no_space() if self.is_quota else io_error()


@contextmanager
def _no_file_grows(beyond_bytes: int) -> Iterator[None]:
    """Writing further is an error, but not ENOSPC: what SQLite makes of EDQUOT, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_used_up_quota_is_a_full_disk(tmp_path: Path) -> None:
    path, fatal = tmp_path / "control.sqlite", list[BaseException]()
    log = open_log(path, fatal, _Quota())
    await log.submit(create("a"))
    before, wal = msgspec.json.encode(log.state), path.with_name("control.sqlite-wal")
    # at the first page of the commit, in the middle of its last one, just before its end
    for spare in (0, 5000, 4119, 4120 * 2 - 1):
        with (
            _no_file_grows(wal.stat().st_size + spare),
            pytest.raises(StorageFull, match="nothing was changed") as caught,
        ):
            await log.submit(create("b" * 6000))
        cause = caught.value.__cause__
        assert isinstance(cause, sqlite3.Error)
        assert cause.sqlite_errorcode == sqlite3.SQLITE_IOERR_WRITE
        left = tmp_path / f"left{spare}"  # what a kill right now would leave
        left.mkdir()
        for file in (path, wal):
            shutil.copy(file, left)
        crashed = open_log(left / path.name)
        assert msgspec.json.encode(crashed.state) == before
        await crashed.close()
    assert not fatal
    await log.submit(create("b"))
    before = msgspec.json.encode(log.state)
    await log.close()
    again = open_log(path)
    assert msgspec.json.encode(again.state) == before
    await again.close()


async def test_a_write_that_fails_while_there_is_room_stops_the_process(tmp_path: Path) -> None:
    path, fatal, files = tmp_path / "control.sqlite", list[BaseException](), _Quota()
    files.is_quota = False
    log = open_log(path, fatal, files)
    with _no_file_grows(path.stat().st_size), pytest.raises(InternalFailure):
        for i in range(100):
            await log.submit(create(f"s{i}"))
    assert len(fatal) == 1
    await log.close()


async def test_nothing_but_the_log_itself_can_run_out_of_room(tmp_path: Path) -> None:
    """The index of it, which is written after the sync, is in no file."""
    path = tmp_path / "control.sqlite"
    log = open_log(path)
    await log.submit(create("a"))
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, f"{path.name}-wal"]

    class Impatient(SystemFiles):
        def connect(self, path: Path) -> sqlite3.Connection:
            return sqlite3.connect(path, isolation_level=None, timeout=0)

    with pytest.raises(StorageLocked, match=r"cannot be opened.*another program has it open"):
        open_log(path, files=Impatient())
    await log.close()


async def test_a_log_is_not_made_without_room_and_is_opened_without(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        path = disk.folder / "control.sqlite"
        disk.fill()
        with pytest.raises(StorageFull, match=r"cannot be opened.*free some space"):
            open_log(path)
        disk.make_room()
        log = open_log(path)
        assert log.secret(lambda: b"s") == b"s"
        await log.submit(create("a"))
        before = msgspec.json.encode(log.state)
        disk.fill()
        with pytest.raises(StorageFull, match="nothing was changed"):
            for _ in range(100):
                await log.submit(create("a"))
        await log.close()
        again = open_log(path)
        assert again.secret(lambda: b"another") == b"s"
        assert msgspec.json.encode(again.state) == before
        disk.make_room()
        await again.submit(create("b"))
        await again.close()
