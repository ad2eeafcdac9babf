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
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from headrace.core.model.usage import (
    LATEST,
    MAXED,
    SEEN,
    ConsumerCounts,
    Counts,
    Part,
    StreamCounts,
    StreamIdentity,
)

STREAM_HOURS_KEPT = 400 * 24  # 13 months: the same month of the year before, whole
SHARD_HOURS_KEPT = 90 * 24  # of shards and consumers: a stream can have thousands

FORMAT = "1"
_SQL_TYPES = {int: "INTEGER NOT NULL DEFAULT 0", float: "REAL NOT NULL DEFAULT 0"}
_TEXT = "TEXT NOT NULL DEFAULT ''"
_HOURS = (
    "WITH RECURSIVE hours(hour) AS (SELECT ? UNION ALL SELECT hour + 1 FROM hours WHERE hour < ?)"
)


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
        self._since = f"FROM {name} WHERE stream = ? AND hour >= ?"
        self._read = f"SELECT {', '.join(columns[1:])} {self._since} ORDER BY hour"
        self._summed = [column for column in self._columns if column not in LATEST]
        self._latest = [column for column in self._columns if column in LATEST]
        sums = ", ".join(f"{'max' if c in MAXED else 'sum'}({c})" for c in self._summed)
        self._total = f"SELECT {sums}, count(*) {self._since}"
        self._last_seen = (
            f"SELECT {', '.join(self._latest)} {self._since} AND {SEEN} != '' "
            "ORDER BY hour DESC LIMIT 1"
        )
        # by hour, then by key, as the rows lie: few keys of a large table are found at once
        some = (
            f"FROM hours CROSS JOIN {name} USING (hour) "
            f"WHERE {name}.stream = ? AND {self._keys[-1]} BETWEEN ? AND ?"
        )
        self._read_some = f"{_HOURS} SELECT {', '.join(columns[1:])} {some}"
        self._total_some = (
            f"{_HOURS} SELECT {self._keys[-1]}, {sums} {some} GROUP BY {self._keys[-1]}"
        )

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

    def total(self, db: sqlite3.Connection, stream: int, since_hour: int) -> msgspec.Struct | None:
        """A stream's hours from one on, added up; None when there are none."""
        *sums, rows = db.execute(self._total, (stream, since_hour)).fetchone()
        if not rows:
            return None
        total = dict(zip(self._summed, sums, strict=True))
        if self._latest:
            seen = db.execute(self._last_seen, (stream, since_hour)).fetchone()
            total |= zip(self._latest, seen or (), strict=False)
        return self._kind(**total)

    def read(
        self, db: sqlite3.Connection, stream: int, since_hour: int
    ) -> Iterator[tuple[int, Any]]:
        """(hour, counts) of a stream from an hour on, of a table without a further key."""
        for hour, *counts in db.execute(self._read, (stream, since_hour)):
            yield hour, self._kind(*counts)

    def keys(self, db: sqlite3.Connection, stream: int, since_hour: int) -> tuple[list[Any], int]:
        """The further keys that a stream has rows of, in order, and the first hour it has any."""
        key = self._keys[-1]
        found = db.execute(
            f"SELECT DISTINCT {key} {self._since} ORDER BY {key}", (stream, since_hour)
        ).fetchall()
        (first,) = db.execute(f"SELECT min(hour) {self._since}", (stream, since_hour)).fetchone()
        return [key for (key,) in found], first or since_hour

    def page(
        self, db: sqlite3.Connection, stream: int, since_hour: int, first: object, last: object
    ) -> tuple[dict[Any, Any], dict[tuple[int, Any], Any]]:
        """Of the keys from `first` to `last`: total by key, and counts by hour and key."""
        extent = f"SELECT min(hour), (SELECT max(hour) {self._since}) {self._since}"
        hours = db.execute(extent, (stream, since_hour) * 2).fetchone()
        where = (*hours, stream, first, last)
        rows = db.execute(self._total_some, where)
        totals = {key: self._kind(*sums) for key, *sums in rows}  # none of LATEST here
        found = db.execute(self._read_some, where)
        return totals, {(hour, key): self._kind(*counts) for hour, key, *counts in found}

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
PARTS: dict[Part, HourTable] = {"shards": SHARDS, "consumers": CONSUMERS}


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
