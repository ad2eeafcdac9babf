"""Positions: how far each file has been shipped, kept so that no crash repeats or loses a line.

A `Position` is one producer to the stream: its `identity` is the producer id, its `generation`
the epoch, and the sequence of a record is the byte offset its line starts at. It is stored before
the first put it is named in, and again after puts are acknowledged. Whatever is put again after
a crash carries the numbers it carried before, so the stream stores it once.

`PositionStore` keeps them in one SQLite file. A commit covers every file that has moved since the
last one (one fsync for all), and a copy of an earlier state stands beside it for the day the file
is damaged: older offsets only mean that more is put again, under the same numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from headrace.agent.identity import FileKey, Head, Mark
from headrace.core.errors import StorageError, UnknownFormatVersion

#: All of the newest marks are kept, of older ones fewer the older they are.
NEWEST_MARKS = 4
FORMAT_VERSION = 1


class Position(msgspec.Struct, kw_only=True):
    """How far one file has been shipped to one stream. All offsets are bytes from its start."""

    identity: str
    stream: str
    home: str  # the path it was found at; a rotated file has moved away from it
    path: str  # where it was last seen
    device: int
    inode: int
    inode_generation: int | None = None
    generation: int = 0
    offset: int = 0  # everything before it is acknowledged
    size: int = 0  # bytes known to belong to this generation
    mtime_ns: int = 0
    head: Head = Head()
    marks: tuple[Mark, ...] = ()  # of the last acknowledged offsets, oldest first
    sent: Mark | None = None  # of the end of what is being put, while little is acknowledged
    cut: int = 0  # a line ends here though no newline stands here; 0 is none
    line_start: int | None = None  # where the over-long line began that `offset` lies inside
    framing: int = 0  # max_line that decided where over-long lines are cut
    lost_to: int = 0  # bytes before this one that nobody can read any more have been reported
    is_rotated: bool = False
    is_compressed: bool = False
    seen_ms: int = 0  # wall time

    @property
    def key(self) -> FileKey:
        return FileKey(self.device, self.inode)

    @property
    def mark(self) -> Mark | None:
        """What must stand before `offset`, or None at the start of a generation."""
        return self.marks[-1] if self.marks else None

    def advance(self, offset: int, mark: Mark, *, line_start: int | None) -> None:
        """Everything before `offset` is acknowledged."""
        self.offset = offset
        self.line_start = line_start
        self.marks = _thin((*self.marks, mark))
        if self.cut <= offset:
            self.cut = 0
        if self.sent is not None and self.sent.offset <= offset:
            self.sent = None

    def start_over(self) -> None:
        """A new generation: the file's content has been replaced, offsets begin at 0."""
        self.generation += 1
        self.offset = self.size = self.cut = self.lost_to = 0
        self.is_rotated = False
        self.line_start = self.sent = None
        self.head = Head()
        self.marks = ()


def _thin(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Some of the marks: the newest, the first, and between them ever wider apart.

    Whatever length a copy has, one of its marks is not far below; 16 are enough for a terabyte.
    """
    newest = marks[-1].offset
    kept = list(marks[-NEWEST_MARKS:])
    for mark in reversed(marks[1:-NEWEST_MARKS]):
        if newest - mark.offset >= 4 * (newest - kept[0].offset):
            kept.insert(0, mark)
    if len(marks) > NEWEST_MARKS:
        kept.insert(0, marks[0])
    return tuple(kept)


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes `start`..`end` (exclusive) of a file that were gone before they could be read."""

    at_ms: int
    path: str
    identity: str
    generation: int
    start: int
    end: int
    reason: str


class PositionStore:
    """Positions on disk. Create with `open`; use from one event loop; close at the end.

    Changes are collected by `put` and `forget` and made durable by `commit`. When the disk
    refuses, `commit` raises StorageError, the changes stay collected, and the next commit tries
    them again.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, notice: str | None) -> None:
        self.path = path
        #: What went wrong with the file when it was opened, in words, or None.
        self.notice = notice
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="positions")
        self._changed: dict[str, Position | None] = {}
        self._losses: list[Loss] = []
        self._notes: dict[str, str] = {}
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, path: Path) -> PositionStore:
        """Open or create the store at `path` (blocking).

        A file that is damaged, or empty where a copy says it was not, is set aside as
        `NAME.broken` and the copy is used; `notice` says so.

        Raises:
            UnknownFormatVersion: it was written by a newer Headrace.
            StorageError: neither the file nor its copy can be used.
        """
        previous, notice = _previous(path), None
        try:
            if previous.exists() and (not path.exists() or path.stat().st_size == 0):
                raise sqlite3.DatabaseError("it is missing or empty, and was not before")
            connection = _connect(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and _is_about_the_disk(error):
                raise StorageError(
                    f"cannot use the positions in {path}: {error}",
                    path=str(path),
                    hint="free space or make the folder writable, then start again",
                ) from error
            notice = _set_aside(path, error)
            if previous.exists():
                path.write_bytes(previous.read_bytes())
                notice += f"; going on from the copy {previous.name}, what it lacks is put again"
            else:
                notice += "; there is no copy: files count as new and start as configured"
            connection = _connect(path)
        except OSError as error:
            raise StorageError(
                f"cannot use the positions in {path}: {error}",
                path=str(path),
                hint="make the folder writable for this user, then start again",
            ) from error
        store = cls(path, connection, notice)
        try:
            store.copy()
        except (sqlite3.Error, OSError) as error:  # the file itself works, so go on
            store.notice = f"{notice or ''} cannot copy the positions aside: {error}".strip()
        return store

    def load(self) -> list[Position]:
        """Every stored position (blocking)."""
        rows = self._connection.execute("SELECT state FROM positions ORDER BY identity").fetchall()
        return [msgspec.json.decode(state, type=Position) for (state,) in rows]

    def losses(self) -> list[Loss]:
        """Every loss recorded, oldest first (blocking)."""
        rows = self._connection.execute("SELECT state FROM losses ORDER BY rowid").fetchall()
        return [msgspec.json.decode(state, type=Loss) for (state,) in rows]

    def note(self, key: str) -> str | None:
        """A small fact stored by `put_note`, or None (blocking)."""
        row = self._connection.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, position: Position) -> None:
        """Store this position with the next commit, as it is when that commit starts."""
        self._changed[position.identity] = position

    def forget(self, identity: str) -> None:
        """Drop the position with the next commit."""
        self._changed[identity] = None

    def put_note(self, key: str, value: str) -> None:
        """Store a small fact with the next commit."""
        self._notes[key] = value

    def put_loss(self, loss: Loss) -> None:
        """Record a loss with the next commit."""
        self._losses.append(loss)

    @property
    def has_changes(self) -> bool:
        return bool(self._changed or self._losses or self._notes)

    async def commit(self) -> None:
        """Make everything collected so far durable. Callers that come together share one commit.

        Raises:
            StorageError: the disk refused; everything stays collected for the next commit.
        """
        if not self.has_changes and (self._running is None or self._running.done()):
            return
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._write())
            await asyncio.shield(self._running)
            return
        # What was collected after the running commit took its snapshot goes with the next one.
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._write_after(self._running))
        await asyncio.shield(self._next)

    async def _write_after(self, running: asyncio.Task[None]) -> None:
        with contextlib.suppress(StorageError):
            await asyncio.shield(running)
        self._running = asyncio.current_task()
        self._next = None
        await self._write()

    async def _write(self) -> None:
        changed, self._changed = self._changed, {}
        losses, self._losses = self._losses, []
        notes, self._notes = self._notes, {}
        rows = [
            (identity, None if position is None else msgspec.json.encode(position))
            for identity, position in changed.items()
        ]
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._store, rows, losses, notes)
        except (sqlite3.Error, OSError) as error:
            self._changed = {**changed, **self._changed}
            self._losses = [*losses, *self._losses]
            self._notes = {**notes, **self._notes}
            raise StorageError(
                f"cannot store positions in {self.path}: {error}",
                path=str(self.path),
                hint="free space or make the folder writable; shipping goes on meanwhile, but a"
                " crash before that would ship again what is not stored",
            ) from error

    def _store(
        self,
        rows: Iterable[tuple[str, bytes | None]],
        losses: Iterable[Loss],
        notes: dict[str, str],
    ) -> None:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "DELETE FROM positions WHERE identity = ?",
                [(identity,) for identity, state in rows if state is None],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO positions (identity, state) VALUES (?, ?)",
                [(identity, state.decode()) for identity, state in rows if state is not None],
            )
            connection.executemany(
                "INSERT INTO losses (state) VALUES (?)",
                [(msgspec.json.encode(loss).decode(),) for loss in losses],
            )
            connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items())

    async def copy_aside(self) -> None:
        """Refresh the copy that a damaged file is replaced from. Raises StorageError."""
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self.copy)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"cannot copy the positions beside {self.path}: {error}", path=str(self.path)
            ) from error

    def copy(self) -> None:
        """The same, blocking: write beside, sync, then rename over the old copy."""
        previous = _previous(self.path)
        fresh = previous.with_suffix(".fresh")
        fresh.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(fresh)) as target:
            self._connection.backup(target)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(previous)

    async def close(self) -> None:
        """Commit what is collected, then close. Raises StorageError, closed all the same."""
        try:
            if self.has_changes or (self._running and not self._running.done()):
                await self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without committing, as a crash would."""
        self._thread.shutdown(wait=True)
        self._connection.close()


def _previous(path: Path) -> Path:
    return path.with_suffix(".previous.db")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(str(found))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise UnknownFormatVersion(
                f"{path} has format {version}, this Headrace knows {FORMAT_VERSION}",
                path=str(path),
                hint="start the newer version again",
            )
        if version == 0:
            connection.executescript(
                f"""
                BEGIN;
                CREATE TABLE positions (identity TEXT PRIMARY KEY, state TEXT NOT NULL);
                CREATE TABLE losses (state TEXT NOT NULL);
                CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL);
                PRAGMA user_version = {FORMAT_VERSION};
                COMMIT;
                """
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _is_about_the_disk(error: sqlite3.OperationalError) -> bool:
    """True for no space, no right or no such folder: nothing is wrong with the file's content."""
    return error.sqlite_errorcode & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PERM,
    )


def _set_aside(path: Path, error: sqlite3.Error) -> str:
    """Move a damaged store out of the way; returns what was done, in words."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(path.name + ".broken" + suffix))
    return f"the positions in {path} cannot be read ({error}); set aside as {path.name}.broken"
