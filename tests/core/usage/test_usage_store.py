"""The store of usage alone: full, damaged, older and newer files, old hours, peaks."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace.core.engine.embedded.usage_store import SqliteUsageStore
from headrace.core.engine.embedded.usage_tables import SHARD_HOURS_KEPT, STREAM_HOURS_KEPT
from headrace.core.errors import StorageError
from headrace.core.model.usage import (
    ConsumerCounts,
    Counts,
    Peak,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
)
from headrace.core.service.peaks import PEAK_HOURS, PeakWindow

ONE = StreamIdentity("u1", "1", "r", "s", 5)


def batch(number: int, hour: int = 1000, count: int = 1) -> UsageBatch:
    return UsageBatch(
        number,
        {"u1": ONE},
        {(hour, "u1"): StreamCounts(records_in=count, peak_bytes_per_s=number, mode="ON_DEMAND")},
        {(hour, "u1", 0): Counts(records_in=count, peak_bytes_per_s=number)},
        {(hour, "u1", "c:1"): ConsumerCounts(fanout_records=count)},
    )


def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    opened: list[sqlite3.Connection] = []

    def connect_and_tell(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect_and_tell)
    store = SqliteUsageStore(tmp_path / "usage.sqlite")
    store.add(batch(1))
    (pages,) = opened[0].execute("PRAGMA page_count").fetchone()
    opened[0].execute(f"PRAGMA max_page_count={pages}")
    large = batch(2)
    large.shards |= {(1000, "u1", i): Counts(records_in=1) for i in range(5000)}
    with pytest.raises(StorageError, match="disk is full"):
        store.add(large)
    assert store.hours("u1", 0)[1][1000].records_in == 1  # nothing of it, not half
    opened[0].execute("PRAGMA max_page_count=1000000")
    store.add(large)
    assert store.hours("u1", 0)[1][1000].records_in == 2
    assert store.keys("shards", "u1", 0) == (2, list(range(5000)), 1000)
    store.close()


def test_what_is_damaged_is_set_aside_and_a_new_file_begun(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite"
    path.write_bytes(b"This is no database at all. " * 100)
    store = SqliteUsageStore(path)
    with pytest.raises(StorageError):
        store.add(batch(1))
    store.add(batch(1))
    assert store.last_batch() == 1
    assert (tmp_path / "usage.sqlite.damaged").read_bytes().startswith(b"This is no")
    store.close()


def changed_meanwhile(path: Path, statement: str) -> SqliteUsageStore:
    """A store with a batch, closed, changed by an SQL statement, and opened again."""
    store = SqliteUsageStore(path)
    store.add(batch(1))
    store.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)
    return SqliteUsageStore(path)


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    newer = "UPDATE meta SET value = '2' WHERE key = 'format'"
    store = changed_meanwhile(tmp_path / "usage.sqlite", newer)
    for _ in range(2):
        with pytest.raises(StorageError, match="newer Headrace"):
            store.add(batch(2))


def test_a_count_that_came_later_becomes_a_column(tmp_path: Path) -> None:
    older = "ALTER TABLE shard_hours DROP COLUMN kib_in"
    store = changed_meanwhile(tmp_path / "usage.sqlite", older)
    store.add(batch(2))
    _, page = store.page("shards", "u1", 0, 0, 0)
    assert page.hours == {(1000, 0): Counts(records_in=2, peak_bytes_per_s=2)}
    store.close()


def test_old_hours_go_and_their_stream_with_the_last_of_them(tmp_path: Path) -> None:
    store = SqliteUsageStore(tmp_path / "usage.sqlite")
    store.add(batch(1, hour=1000))
    store.add(batch(2, hour=1001))
    assert store.stream_peaks(0) == {"u1": [(1000, Peak(1)), (1001, Peak(2))]}
    assert store.shard_peaks("u1", 0) == {0: Peak(2)}
    store.prune(1001 + SHARD_HOURS_KEPT)
    assert list(store.hours("u1", 0)[1]) == [1000, 1001]
    assert list(store.page("shards", "u1", 0, 0, 9)[1].hours) == [(1001, 0)]
    assert list(store.page("consumers", "u1", 0, "c:1", "c:1")[1].hours) == [(1001, "c:1")]
    store.prune(1001 + STREAM_HOURS_KEPT)
    assert store.stream_peaks(0) == {"u1": [(1001, Peak(2))]}
    store.prune(1002 + STREAM_HOURS_KEPT)
    assert store.identities("1", "r", None) == []
    store.close()


def test_of_the_peaks_those_are_read_that_no_later_one_reaches(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = SqliteUsageStore(tmp_path / "usage.sqlite")
    counts = {
        (hour, "u1"): StreamCounts(
            peak_bytes_per_s=chance.randrange(50), peak_records_per_s=chance.randrange(50)
        )
        for hour in range(1000, 1500)
    }
    store.add(UsageBatch(1, {"u1": ONE}, counts))
    every = [(h, Peak(c.peak_bytes_per_s, c.peak_records_per_s)) for (h, _), c in counts.items()]
    known = store.stream_peaks(1000)["u1"]
    assert known[0] == every[0]
    assert len(known) < 50  # of 500
    read, all_read = PeakWindow(known), PeakWindow(every)
    for hour in range(1499, 1500 + PEAK_HOURS):
        assert read.at(hour) == all_read.at(hour)
    store.close()
