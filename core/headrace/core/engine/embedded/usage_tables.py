"""The tables of `usage.sqlite`, made from the fields of the counts they hold.

| table          | a row is                                           | kept      |
|----------------|----------------------------------------------------|-----------|
| streams        | a stream; one made again under its name is another | with rows |
| stream_hours   | `StreamCounts` of one stream and hour              | 13 months |
| shard_hours    | `Counts` of one shard and hour                     | 90 days   |
| consumer_hours | `ConsumerCounts` of one consumer and hour          | 90 days   |

Hours are Unix hours. A field that is added to the counts later becomes a column when the file is
next opened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.core.model.usage import (
    LATEST,
    MAXED,
    SEEN,
    ConsumerCounts,
    Counts,
    StreamCounts,
    StreamIdentity,
)

STREAM_HOURS_KEPT = 400 * 24  # 13 months: the same month of the year before, whole
SHARD_HOURS_KEPT = 90 * 24  # of shards and consumers: a stream can have thousands

FORMAT = "1"
_SQL_TYPES = {int: "INTEGER NOT NULL DEFAULT 0", float: "REAL NOT NULL DEFAULT 0"}
_TEXT = "TEXT NOT NULL DEFAULT ''"


class HourTable:
    """One table of counts by stream, hour and maybe one thing more."""

    def __init__(self, name: str, kind: type[msgspec.Struct], key: str | None, kept: int) -> None:
        """`key` is an SQL column of the primary key; `kept` is in hours."""
        self.name = name
        self.kept_hours = kept
        self._kind = kind
        self._key = key
        self._columns = [field.name for field in msgspec.structs.fields(kind)]
        self._keys = ["stream", "hour", *([key.split()[0]] if key else [])]
        columns = self._keys + self._columns
        self._upsert = (
            f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
            f"ON CONFLICT DO UPDATE SET {', '.join(map(_joined, self._columns))}"
        )
        self._select = f"SELECT {', '.join(columns[1:])} FROM {name} WHERE stream = ? AND hour >= ?"

    def make(self, db: sqlite3.Connection) -> None:
        """Create the table, or give it the columns it lacks."""
        types = {f.name: _SQL_TYPES.get(f.type, _TEXT) for f in msgspec.structs.fields(self._kind)}
        definitions = ["stream INTEGER", "hour INTEGER", *([self._key] if self._key else [])]
        definitions += [f"{name} {kind}" for name, kind in types.items()]
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {self.name} ({', '.join(definitions)}, "
            f"PRIMARY KEY ({', '.join(self._keys)})) WITHOUT ROWID"
        )
        there = {row[1] for row in db.execute(f"PRAGMA table_info({self.name})")}
        for name in types.keys() - there:
            db.execute(f"ALTER TABLE {self.name} ADD COLUMN {name} {types[name]}")

    def add(
        self, db: sqlite3.Connection, rows: Iterable[tuple[tuple[Any, ...], msgspec.Struct]]
    ) -> None:
        """Add counts up with what is there. A row's first part is stream, hour and the key."""
        db.executemany(
            self._upsert, ((*keys, *msgspec.structs.astuple(counts)) for keys, counts in rows)
        )

    def read(
        self, db: sqlite3.Connection, stream: int, since_hour: int
    ) -> Iterable[tuple[Any, Any]]:
        """(hour or (hour, key), counts) of a stream from an hour on."""
        width = len(self._keys) - 1
        for row in db.execute(self._select, (stream, since_hour)):
            yield row[:width] if width > 1 else row[0], self._kind(*row[width:])

    def prune(self, db: sqlite3.Connection, streams: Iterable[int], hour: int) -> None:
        """Forget what at that hour is too old to be kept."""
        before = hour - self.kept_hours
        for stream in streams:  # by stream: a range of the primary key, not the whole table
            db.execute(f"DELETE FROM {self.name} WHERE stream = ? AND hour < ?", (stream, before))


def _joined(column: str) -> str:
    if column in MAXED:
        return f"{column} = max({column}, excluded.{column})"
    if column in LATEST:
        return f"{column} = iif(excluded.{SEEN} = '', {column}, excluded.{column})"
    return f"{column} = {column} + excluded.{column}"


STREAMS = HourTable("stream_hours", StreamCounts, None, STREAM_HOURS_KEPT)
SHARDS = HourTable("shard_hours", Counts, "shard INTEGER", SHARD_HOURS_KEPT)
CONSUMERS = HourTable("consumer_hours", ConsumerCounts, "consumer TEXT", SHARD_HOURS_KEPT)
TABLES = (STREAMS, SHARDS, CONSUMERS)


def make_tables(db: sqlite3.Connection) -> str:
    """Make what is not there; returns the format of the file. Call it in a transaction."""
    db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
    db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?), ('batch', '0')", (FORMAT,))
    found = str(db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0])
    if found == FORMAT:
        db.execute(
            "CREATE TABLE IF NOT EXISTS streams (id INTEGER PRIMARY KEY, uid TEXT UNIQUE, "
            "account TEXT, region TEXT, name TEXT, created_ms INTEGER)"
        )
        for table in TABLES:
            table.make(db)
    return found


def last_batch(db: sqlite3.Connection) -> int:
    """The number of the last batch that was added; 0 before the first."""
    return int(db.execute("SELECT value FROM meta WHERE key = 'batch'").fetchone()[0])


def note_batch(db: sqlite3.Connection, number: int) -> None:
    db.execute("UPDATE meta SET value = ? WHERE key = 'batch'", (str(number),))


def stream_ids(db: sqlite3.Connection, identities: Iterable[StreamIdentity]) -> dict[str, int]:
    """uid -> id of streams; those that are new get one."""
    db.executemany(
        "INSERT OR IGNORE INTO streams (uid, account, region, name, created_ms) "
        "VALUES (?, ?, ?, ?, ?)",
        (msgspec.structs.astuple(identity) for identity in identities),
    )
    return dict(db.execute("SELECT uid, id FROM streams"))
