"""Usage by the hour in SQLite: `usage.sqlite` in the data folder.

A file of its own, so that counting never stands in the way of the control log. Counts are added
up in place (one row an hour, added to as the hour goes on), a whole batch in one transaction
that also notes the batch's number: one whose answer was lost is not added twice. Commits are
not synced one by one (`synchronous=NORMAL`): kill -9 takes nothing that was committed, a power
cut may take the last moments, and neither leaves the file damaged. Nothing but figures rests on
it. A file that is damaged all the same is set aside and a new one begun.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, cast

from headrace.core.engine.embedded.usage_tables import (
    CONSUMERS,
    FORMAT,
    PARTS,
    SHARDS,
    STREAMS,
    TABLES,
    last_batch,
    make_tables,
    note_batch,
    stream_ids,
)
from headrace.core.errors import StorageError
from headrace.core.model.usage import (
    Part,
    PartKey,
    Peak,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
    UsagePage,
)

log = logging.getLogger("headrace.core")

_R = TypeVar("_R")


class SqliteUsageStore:
    """See `engine.seam.UsageStore`. The file is opened when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def last_batch(self) -> int:
        return self._run(last_batch)

    def add(self, batch: UsageBatch) -> None:
        def add(db: sqlite3.Connection) -> None:
            if batch.number <= last_batch(db):
                return
            ids = stream_ids(db, batch.identities.values())
            STREAMS.add(db, (((ids[uid], hour), c) for (hour, uid), c in batch.streams.items()))
            for table, counts in ((SHARDS, batch.shards), (CONSUMERS, batch.consumers)):
                table.add(
                    db, (((ids[uid], hour, key), c) for (hour, uid, key), c in counts.items())
                )
            note_batch(db, batch.number)

        self._run(add)

    def prune(self, hour: int) -> None:
        def prune(db: sqlite3.Connection) -> None:
            ids = [row[0] for row in db.execute("SELECT id FROM streams")]
            for table in TABLES:
                table.prune(db, ids, hour)
            db.execute("DELETE FROM streams WHERE id NOT IN (SELECT stream FROM stream_hours)")

        self._run(prune)

    def identities(self, account: str, region: str, name: str | None) -> list[StreamIdentity]:
        def read(db: sqlite3.Connection) -> list[StreamIdentity]:
            rows = db.execute(
                "SELECT uid, account, region, name, created_ms FROM streams "
                "WHERE account = ? AND region = ? AND name = ifnull(?, name)",
                (account, region, name),
            )
            return [StreamIdentity(*row) for row in rows]

        return self._run(read)

    def totals(self, uids: Sequence[str], since_hour: int) -> tuple[int, dict[str, StreamCounts]]:
        def read(db: sqlite3.Connection) -> tuple[int, dict[str, StreamCounts]]:
            found: dict[str, StreamCounts] = {}
            for uid in uids:
                total = STREAMS.total(db, _id(db, uid), since_hour)
                if total is not None:
                    found[uid] = cast("StreamCounts", total)
            return last_batch(db), found

        return self._run(read)

    def hours(self, uid: str, since_hour: int) -> tuple[int, dict[int, StreamCounts]]:
        return self._run(
            lambda db: (last_batch(db), dict(STREAMS.read(db, _id(db, uid), since_hour)))
        )

    def keys(self, part: Part, uid: str, since_hour: int) -> tuple[int, list[PartKey], int]:
        return self._run(
            lambda db: (last_batch(db), *PARTS[part].keys(db, _id(db, uid), since_hour))
        )

    def page(
        self, part: Part, uid: str, since_hour: int, first: PartKey, last: PartKey
    ) -> tuple[int, UsagePage]:
        def read(db: sqlite3.Connection) -> tuple[int, UsagePage]:
            found = PARTS[part].page(db, _id(db, uid), since_hour, first, last)
            return last_batch(db), UsagePage(*found)

        return self._run(read)

    def stream_peaks(self, since_hour: int) -> dict[str, list[tuple[int, Peak]]]:
        def read(db: sqlite3.Connection) -> dict[str, list[tuple[int, Peak]]]:
            known: dict[str, list[tuple[int, Peak]]] = {}
            for uid, stream in db.execute("SELECT uid, id FROM streams").fetchall():
                rows = db.execute(
                    "SELECT hour, peak_bytes_per_s, peak_records_per_s FROM stream_hours "
                    "WHERE stream = ? AND hour >= ? ORDER BY hour DESC",
                    (stream, since_hour),
                )
                found = _unexceeded(rows)
                if found:
                    known[uid] = found
            return known

        return self._run(read)

    def shard_peaks(self, uid: str, since_hour: int) -> dict[int, Peak]:
        def read(db: sqlite3.Connection) -> dict[int, Peak]:
            rows = db.execute(
                "SELECT shard, max(peak_bytes_per_s), max(peak_records_per_s) FROM shard_hours "
                "JOIN streams ON id = stream WHERE uid = ? AND hour >= ? GROUP BY shard",
                (uid, since_hour),
            )
            return {shard: Peak(size, records) for shard, size, records in rows}

        return self._run(read)

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # -- the file ------------------------------------------------------------------------------

    def _run(self, work: Callable[[sqlite3.Connection], _R]) -> _R:
        """Do it in one transaction. Raises StorageError where SQLite cannot."""
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._connect()
                with _transaction(self._db):
                    return work(self._db)
            except (sqlite3.Error, OSError) as error:
                if type(error) is sqlite3.DatabaseError:  # malformed, or no database at all
                    self._set_aside(error)
                raise StorageError(
                    f"usage cannot be kept in {self._path}: {error}", path=str(self._path)
                ) from error

    def _set_aside(self, error: sqlite3.Error) -> None:
        """What is damaged is kept beside; the next use begins a new file."""
        if self._db is not None:
            self._db.close()
            self._db = None
        aside = self._path.with_name(f"{self._path.name}.damaged")
        self._path.replace(aside)
        for more in ("-wal", "-shm"):
            self._path.with_name(self._path.name + more).unlink(missing_ok=True)
        log.error("usage is counted anew; what was is in %s: %s", aside, error)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            with _transaction(db):
                found = make_tables(db)
            if found != FORMAT:
                raise StorageError(
                    f"{self._path} was written by a newer Headrace",
                    path=str(self._path),
                    hint="run the version that wrote it, or a later one",
                )
        except BaseException:
            db.close()
            raise
        return db


def _unexceeded(rows: Iterable[tuple[int, int, int]]) -> list[tuple[int, Peak]]:
    """Of hours' peaks (hour, bytes, records), the last first: those that no later one reaches, and
    the first hour's; in the order of the hours."""
    found: list[tuple[int, Peak]] = []
    most_bytes = most_records = hour = -1
    for hour, size, records in rows:
        if size > most_bytes or records > most_records:
            found.append((hour, Peak(size, records)))
            most_bytes, most_records = max(most_bytes, size), max(most_records, records)
    if found and found[-1][0] != hour:
        found.append((hour, Peak(size, records)))
    return found[::-1]


def _id(db: sqlite3.Connection, uid: str) -> int:
    """Of a stream; 0, which none has, where nothing of it has been stored yet."""
    found = db.execute("SELECT id FROM streams WHERE uid = ?", (uid,)).fetchone()
    return found[0] if found else 0


class _transaction:
    """All of the block or nothing of it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
