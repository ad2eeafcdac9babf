"""Where positions are kept: one SQLite file.

A commit covers every file that has moved since the last one (one fsync for all), and a copy of an
earlier state stands beside it for the day the file is damaged: older offsets only mean that more
is put again, under the same numbers.
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

from headrace.agent.positions import Loss, Position
from headrace.core.errors import StorageError, UnknownFormatVersion

FORMAT_VERSION = 1


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
    """True for no space, no right or no such folder: nothing is wrong with the file's content.

    A used-up quota is an error of writing to SQLite, and a full disk under its shared memory one of
    its own. With other I/O errors the content cannot be read, for whatever reason.
    """
    no_room = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
    return error.sqlite_errorcode in no_room or error.sqlite_errorcode & 0xFF in (
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
