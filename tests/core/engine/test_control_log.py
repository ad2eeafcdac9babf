"""The control log: durable before it answers, replayed to the same state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_log_harness import ControlLog, create, open_log
from headrace.core.control.machine import Command, ControlState, apply
from headrace.core.control.streams import MergeShards, RemoveStream, SplitShard
from headrace.core.engine.embedded import control_log as module
from headrace.core.engine.embedded.control_log import SqliteControlLog
from headrace.core.errors import (
    InternalFailure,
    ResourceInUse,
    StorageError,
    UnknownFormatVersion,
)

A: Any = {"account": "1", "region": "r", "name": "a", "uid": "a"}


async def test_commands_lead_to_the_same_state_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    log = open_log(path)
    await log.submit(create("a"))
    await log.submit(SplitShard(**A, shard=0, at="1000", at_ms=2000))
    await log.submit(MergeShards(**A, shard=2, adjacent=3, at_ms=3000))
    before = msgspec.json.encode(log.state)
    await log.close()
    again = open_log(path)
    assert msgspec.json.encode(again.state) == before
    await again.close()


async def test_a_refused_command_changes_nothing_now_and_on_replay(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    log = open_log(path)
    await log.submit(create("a"))
    before = msgspec.json.encode(log.state)
    with pytest.raises(ResourceInUse):
        await log.submit(create("a"))
    assert msgspec.json.encode(log.state) == before
    await log.close()
    again = open_log(path)
    assert msgspec.json.encode(again.state) == before
    await again.close()


async def test_a_fault_of_the_state_machine_leaves_nobody_waiting_and_the_log_usable(
    tmp_path: Path,
) -> None:
    def faulty(state: ControlState, command: Command) -> object:
        if getattr(command, "name", "") == "bad":
            raise ZeroDivisionError
        return apply(state, command)

    fatal: list[BaseException] = []
    log: ControlLog = SqliteControlLog(
        tmp_path / "control.sqlite",
        state_type=ControlState,
        command_type=Command,
        apply=faulty,
        on_fatal=fatal.append,
    )
    with pytest.raises(InternalFailure):
        await log.submit(create("bad"))
    await log.submit(create("good"))
    await log.close()
    again: ControlLog = SqliteControlLog(
        tmp_path / "control.sqlite",
        state_type=ControlState,
        command_type=Command,
        apply=faulty,
        on_fatal=fatal.append,
    )
    assert list(again.state.streams.streams) == ["1/r/good"]
    assert not fatal
    await again.close()


async def test_commands_at_once_are_applied_in_order_with_few_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path / "control.sqlite")
    commits = 0
    insert = log._insert

    def counted(rows: list[tuple[int, bytes, int]]) -> None:
        nonlocal commits
        commits += 1
        insert(rows)

    monkeypatch.setattr(log, "_insert", counted)
    await asyncio.gather(*(log.submit(create(f"s{i}")) for i in range(100)))
    assert list(log.state.streams.streams) == [f"1/r/s{i}" for i in range(100)]
    assert commits <= 3
    await log.close()


async def test_a_stream_made_again_begins_after_the_one_before(tmp_path: Path) -> None:
    """Else an old checkpoint would skip the new stream's records."""
    log = open_log(tmp_path / "control.sqlite")
    await log.submit(create("a"))
    await log.submit(SplitShard(**A, shard=0, at="1000", at_ms=1000))
    last = max(shard.created_s for shard in log.state.streams.streams["1/r/a"].shards)
    await log.submit(RemoveStream(**A))
    await log.submit(create("a"))
    assert all(s.created_s > last for s in log.state.streams.streams["1/r/a"].shards)
    await log.close()


async def test_snapshots_bound_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_EVERY", 10)
    path = tmp_path / "control.sqlite"
    log = open_log(path)
    for i in range(35):
        await log.submit(create(f"s{i}"))
    before = msgspec.json.encode(log.state)
    await log.close()
    with sqlite3.connect(path) as db:
        (kept,) = db.execute("SELECT count(*) FROM commands").fetchone()
    db.close()
    assert kept < 15
    again = open_log(path)
    assert msgspec.json.encode(again.state) == before
    await again.close()


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    await open_log(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    db.close()
    with pytest.raises(UnknownFormatVersion):
        open_log(path)


async def filled(path: Path) -> bytes:
    """A control log with a snapshot and some commands; its state."""
    log = open_log(path)
    for i in range(15):
        await log.submit(create(f"s{i}"))
    state = msgspec.json.encode(log.state)
    await log.close()
    return state


def change(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(statement, values)
        db.commit()


async def test_every_changed_bit_of_what_is_stored_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_EVERY", 10)
    path = tmp_path / "control.sqlite"
    state = await filled(path)
    for table, what in (("commands", "command 15"), ("snapshot", "the snapshot")):
        with contextlib.closing(sqlite3.connect(path)) as db:
            query = f"SELECT n, body FROM {table} ORDER BY n DESC LIMIT 1"
            n, body = db.execute(query).fetchone()
        update = f"UPDATE {table} SET body = ? WHERE n = ?"
        for bit in range(0, len(body) * 8, 13):
            flipped = bytearray(body)
            flipped[bit // 8] ^= 1 << bit % 8
            change(path, update, bytes(flipped), n)
            with pytest.raises(StorageError, match=f"{what} is not what was written") as caught:
                open_log(path)
            assert caught.value.path == str(path)
        change(path, update, body, n)
    again = open_log(path)
    assert msgspec.json.encode(again.state) == state
    await again.close()
    for strange in (None, "text", 7):
        change(path, "UPDATE commands SET body = ? WHERE n = 15", strange)
        with pytest.raises(StorageError, match="command 15 is not what was written"):
            open_log(path)
    change(path, "DELETE FROM commands WHERE n = 13")
    with pytest.raises(StorageError, match="command 13 is missing"):
        open_log(path)


async def test_one_without_checksums_is_given_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SNAPSHOT_EVERY", 10)
    path = tmp_path / "control.sqlite"
    state = await filled(path)
    for table in ("commands", "snapshot"):
        change(path, f"ALTER TABLE {table} DROP COLUMN crc")
    change(path, "UPDATE meta SET value = '1' WHERE key = 'format'")
    for _ in range(2):
        again = open_log(path)
        assert msgspec.json.encode(again.state) == state
        await again.submit(create("more"))
        await again.submit(RemoveStream(account="1", region="r", name="more", uid="more"))
        state = msgspec.json.encode(again.state)
        await again.close()


async def test_one_that_an_older_version_had_only_begun(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    change(path, "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB)")
    change(path, "CREATE TABLE commands (n INTEGER PRIMARY KEY, body BLOB)")
    state = await filled(path)
    again = open_log(path)
    assert msgspec.json.encode(again.state) == state
    await again.close()


def start_child(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )


async def test_a_start_writes_anew_what_the_one_before_may_not_have_synced(tmp_path: Path) -> None:
    path, left = tmp_path / "control.sqlite", tmp_path / "left"
    log = open_log(path)
    await log.submit(create("a"))
    left.mkdir()
    for name in (path.name, f"{path.name}-wal"):  # as a killed process leaves them
        (left / name).write_bytes((tmp_path / name).read_bytes())
    await log.close()
    again = open_log(left / path.name)
    assert (left / f"{path.name}-wal").stat().st_size == 0
    assert list(again.state.streams.streams) == ["1/r/a"]
    await again.close()


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from headrace.core.control.machine import Command, ControlState, apply\n"
        "from headrace.core.control.streams import CreateStream\n"
        "from headrace.core.engine.embedded.control_log import SqliteControlLog\n"
        "async def main():\n"
        "    log = SqliteControlLog(Path(sys.argv[1]), state_type=ControlState,\n"
        "        command_type=Command, apply=apply, on_fatal=print)\n"
        "    i = len(log.state.streams.streams)\n"
        "    while True:\n"
        "        await log.submit(CreateStream(account='1', region='r', name=f's{i}',\n"
        "            uid=str(i), at_ms=1, mode='PROVISIONED', shards=1))\n"
        "        i += 1\n"
        "        print(i, flush=True)\n"
        "asyncio.run(main())\n"
    )
    answered = 0
    for _ in range(3):
        child = start_child(script, path)
        assert child.stdout is not None
        for _ in range(25):
            answered = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split()
        answered = int(rest[-1]) if rest else answered
        child.stdout.close()
        child.wait()
        log = open_log(path)
        assert answered <= len(log.state.streams.streams) <= answered + 1
        await log.close()
