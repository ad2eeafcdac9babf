"""ControlLog in SQLite: commands are rows, a snapshot now and then, FULL synchronous commits.

Commands that come while one commit runs share the next (group commit). A command is applied after
its commit, in the order of its row; what the state machine refuses is refused again, the same
way, on every replay.

A commit for which there is no room is refused and the log goes on; any other that fails stops the
process. The line between them is drawn where it is certain that nothing of the commit is stored:
SQLite writes all of it to its log before the sync that makes it durable, so an error of *writing*
(`SQLITE_FULL`; `SQLITE_IOERR_WRITE`, which is what it makes of a used-up quota) came before the
last of its pages was there, and without that one the next start passes over the rest. Of an
error of the sync nobody can tell, even where its cause is a lack of room, as on filesystems that
find a place only then. After the sync nothing can run out of room: the index of SQLite's log is
kept in memory, not in a `-shm` file that would have to grow (`locking_mode=EXCLUSIVE`: nobody else
can open the database meanwhile).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from headrace.core.engine.embedded.control_rows import (
    Row,
    add_checksums,
    damaged,
    make_row,
    read_row,
)
from headrace.core.errors import (
    HeadraceError,
    InternalFailure,
    StorageError,
    StorageFull,
    StorageLocked,
    UnknownFormatVersion,
)
from headrace.core.log.files import Files, SystemFiles, is_full

log = logging.getLogger("headrace.core")

SNAPSHOT_EVERY = 2000  # commands; bounds both the file and the replay at start
_FORMAT = "2"

S = TypeVar("S", bound=msgspec.Struct)
C = TypeVar("C", bound=msgspec.Struct)


class SqliteControlLog(Generic[S, C]):
    """See `seam.ControlLog`. Belongs to one event loop."""

    def __init__(
        self,
        path: Path,
        *,
        state_type: type[S],
        command_type: object,
        apply: Callable[[S, C], object],
        on_fatal: Callable[[BaseException], None],
        files: Files | None = None,
    ) -> None:
        """Open the database and replay it. Raises StorageError: UnknownFormatVersion for a newer
        one's, StorageFull where there is no room to make it, StorageLocked where it is in use."""
        self._apply = apply
        self.watchers: list[Callable[[C], None]] = []
        self._on_fatal = on_fatal
        self._state_type = state_type
        self._decoder: msgspec.msgpack.Decoder[C] = msgspec.msgpack.Decoder(command_type)
        self._files = files or SystemFiles()
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control-log")
        self._pending: list[tuple[C, asyncio.Future[object]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._failed = False
        try:
            self._db = self._files.connect(path)
        except sqlite3.Error as error:
            raise self._not_opened(error) from error
        try:
            self._prepare(path)
            self.state, self._next = self._replay()
        except (sqlite3.Error, StorageError) as error:
            self._db.close()
            if isinstance(error, StorageError):
                raise
            raise self._not_opened(error) from error
        self._snapshot_at = self._next + SNAPSHOT_EVERY

    def _prepare(self, path: Path) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # before anything is read
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS commands (n INTEGER PRIMARY KEY, body BLOB, crc INTEGER)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS snapshot (one INTEGER PRIMARY KEY CHECK (one = 1), "
            "n INTEGER, body BLOB, crc INTEGER)"
        )
        found = self._db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        if found is not None and found[0] not in ("1", _FORMAT):
            raise UnknownFormatVersion(
                f"{path} was written by a newer Headrace",
                path=str(path),
                hint="run the version that wrote it, or a later one",
            )
        if found is None or found[0] != _FORMAT:
            self._db.execute("BEGIN IMMEDIATE")
            add_checksums(self._db, path)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (_FORMAT,))
            self._db.execute("COMMIT")
        # What a sync that failed has left may be in memory only, and taken for written. Before
        # anything is committed behind it, it is written anew: from SQLite's log to its file.
        with contextlib.suppress(sqlite3.OperationalError):  # no room: as it was
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def secret(self, make: Callable[[], bytes]) -> bytes:
        """The store's secret, made by `make` the first time. Raises StorageError."""
        try:
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (make(),))
            row = self._db.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
        except sqlite3.Error as error:
            raise self._not_opened(error) from error
        return bytes(row[0])

    def _not_opened(self, error: sqlite3.Error) -> StorageError:
        """What to raise when the database cannot be opened, or not made."""
        code = getattr(error, "sqlite_errorcode", 0)
        message = f"the control log {self._path} cannot be opened: {error}"
        if self._is_no_room(error):
            return StorageFull(message, path=str(self._path), hint="free some space there")
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            hint = "another program has it open: end that one, then start again"
            return StorageLocked(message, path=str(self._path), hint=hint)
        hint = "look at the rights and the health of the disk, or restore the file from a copy"
        return StorageError(message, path=str(self._path), hint=hint)

    def _replay(self) -> tuple[S, int]:
        row = self._db.execute("SELECT n, body, crc FROM snapshot").fetchone()
        if row is None:
            upto, state = 0, self._state_type()
        else:
            upto = row[0]
            decoder = msgspec.msgpack.Decoder(self._state_type)
            state = read_row(row, decoder, "the snapshot", self._path)
        for row in self._db.execute(
            "SELECT n, body, crc FROM commands WHERE n > ? ORDER BY n", (upto,)
        ):
            n = row[0]
            if n != upto + 1:
                raise damaged(self._path, f"command {upto + 1} is missing")
            command = read_row(row, self._decoder, f"command {n}", self._path)
            try:
                self._apply(state, command)
            except HeadraceError:
                pass  # refused then, refused now
            except Exception:  # as in `_answer`
                log.exception("a command could not be applied: %r", command)
            upto = n
        return state, upto + 1

    async def submit(self, command: C) -> object:
        if self._failed:
            raise InternalFailure("The control log has failed and the process is stopping.")
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._pending.append((command, future))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await future

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                rows = [
                    make_row(self._next + i, msgspec.msgpack.encode(command))
                    for i, (command, _) in enumerate(batch)
                ]
                try:
                    await loop.run_in_executor(self._thread, self._insert, rows)
                except StorageFull as error:
                    # it passes: nothing of the batch is stored, and whoever asks later finds out
                    _refuse(batch, error)
                    continue
                except sqlite3.Error as error:
                    self._fail(batch + self._pending, error)
                    return
                self._next += len(rows)
                for command, future in batch:
                    self._answer(command, future)
                if self._next >= self._snapshot_at:
                    await self._snapshot()
        finally:
            self._committing = None

    def _answer(self, command: C, future: asyncio.Future[object]) -> None:
        try:
            result = self._apply(self.state, command)
        except HeadraceError as error:
            if not future.done():
                future.set_exception(error)
        except Exception:
            # A fault of the state machine, not of the request. It is the same on every replay,
            # so going on is as deterministic as the rest; nobody may wait for ever.
            log.exception("a command could not be applied: %r", command)
            if not future.done():
                future.set_exception(InternalFailure("The command could not be applied."))
        else:
            for tell in self.watchers:
                tell(command)
            if not future.done():
                future.set_result(result)

    def _fail(self, left: list[tuple[C, asyncio.Future[object]]], error: sqlite3.Error) -> None:
        """Whether the last commit is on the disk nobody can tell: the process stops."""
        self._failed = True
        self._pending = []
        _refuse(left, InternalFailure("The control log could not be written."))
        self._on_fatal(error)

    def _insert(self, rows: list[Row]) -> None:
        """Raises StorageFull with nothing stored; of what any other error left nobody can tell."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO commands VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if self._is_no_room(error):
                raise _no_room() from error
            raise

    def _is_no_room(self, error: sqlite3.Error) -> bool:
        """Whether that is why nothing could be written; False also where it is not certain."""
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_IOERR_WRITE:
            # SQLite does not tell a used-up quota from a disk that fails. That nothing is stored
            # is certain with either, so if there is room again by now, or if it is both, no harm
            # is done: the process stops as for the second, or goes on as for the first.
            return is_full(self._files, self._path.parent)
        return code == sqlite3.SQLITE_FULL

    async def _snapshot(self) -> None:
        upto, body = self._next - 1, msgspec.msgpack.encode(self.state)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._write_snapshot, upto, body)
        except sqlite3.Error:
            return  # the commands are all there; the next snapshot will do
        self._snapshot_at = self._next + SNAPSHOT_EVERY

    def _write_snapshot(self, upto: int, body: bytes) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            row = make_row(upto, body)
            self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?, ?)", row)
            self._db.execute("DELETE FROM commands WHERE n <= ?", (upto,))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    async def close(self) -> None:
        """Wait for what was submitted, then close the file."""
        if self._committing is not None:
            await self._committing
        self._thread.shutdown(wait=True)
        self._db.close()


def _refuse(batch: Sequence[tuple[object, asyncio.Future[object]]], error: HeadraceError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _no_room() -> StorageFull:
    return StorageFull(
        "no space left on the device of the data folder: nothing was changed",
        hint="free some space there; operations work again by themselves",
    )
