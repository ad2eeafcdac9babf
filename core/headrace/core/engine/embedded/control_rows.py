"""The rows of the control log's database: what is stored in one, and whether it still is.

SQLite checks what is in its write-ahead log, and nothing of what has gone from there to the file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TypeVar

import msgspec
from crc32c import crc32c

from headrace.core.errors import StorageError

T = TypeVar("T")

Row = tuple[int, bytes, int]
"""A number, what is stored under it, and the CRC32C of both."""


def make_row(n: int, body: bytes) -> Row:
    return n, body, crc32c(body, crc32c(b"%d" % n))


def read_row(row: Row, decoder: msgspec.msgpack.Decoder[T], what: str, path: Path) -> T:
    """The value in a row. Raises StorageError unless it is what was written."""
    n, body, _ = row
    if not isinstance(body, bytes) or row != make_row(n, body):
        raise damaged(path, f"{what} is not what was written")
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:  # it is whole, so another version's
        raise damaged(path, f"{what} cannot be understood: {error}") from error


def damaged(path: Path, what: str) -> StorageError:
    return StorageError(
        f"the control log {path} is damaged: {what}",
        path=str(path),
        hint="put it back from a copy, with its -wal beside it; nothing was changed",
    )


def add_checksums(db: sqlite3.Connection, path: Path) -> None:
    """To the tables of the first format, which had none: what they have is taken as it is."""
    for table in ("commands", "snapshot"):
        if any(name == "crc" for _, name, *_ in db.execute(f"PRAGMA table_info({table})")):
            continue
        db.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
        for n, body in db.execute(f"SELECT n, body FROM {table}").fetchall():
            if not isinstance(body, bytes):
                raise damaged(path, f"row {n} of {table} is not what was written")
            crc = make_row(n, body)[2]
            db.execute(f"UPDATE {table} SET crc = ? WHERE n = ?", (crc, n))
