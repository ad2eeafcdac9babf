"""The embedded engine: one data folder, one process.

<data>/LOCK                    held while the process lives
<data>/control.sqlite          the control log
<data>/usage.sqlite            usage by the hour, see `usage_store`
<data>/streams/<uid>/*.seg     a stream's frame log, with an .idx beside each sealed segment,
                               and a .scan beside the one being written
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from headrace.core.clock import Clock
from headrace.core.control.machine import Command, ControlState, apply
from headrace.core.engine.embedded.control_log import SqliteControlLog
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.errors import StorageError
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import Files, FolderLock, mapped
from headrace.core.log.page_cache import CacheBoundFiles
from headrace.core.log.stream_log import StreamLog, StreamLogOptions
from headrace.core.model.hashing import HashKeyRange

log = logging.getLogger("headrace.core")

WRITER_THREADS = 16  # streams that can sync at the same moment
_DELETED = ".deleted"  # ends the name of a folder on its way out
READER_THREADS = 4  # for reads that must be fetched from the disk


class EmbeddedEngine:
    """See `seam.Engine`. Belongs to one event loop."""

    def __init__(
        self,
        data: Path,
        clock: Clock,
        *,
        on_fatal: Callable[[BaseException], None],
        files: Files | None = None,
        options: StreamLogOptions | None = None,
    ) -> None:
        """Open `data`, made if it is not there. Raises StorageLocked if it is in use."""
        self._lock = FolderLock(data)
        self._clock = clock
        self._files = files or CacheBoundFiles()
        self._access = SegmentAccess(self._files)
        self._options = options
        self._on_fatal = on_fatal
        self._control_path = data / "control.sqlite"
        self._streams = data / "streams"
        self._streams.mkdir(exist_ok=True)
        self._files.sync_dir(data)
        if not self._control_path.exists():  # before there is one that looks as if it were it
            self._refuse_others(())
        self._writers = ThreadPoolExecutor(WRITER_THREADS, thread_name_prefix="writer")
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")
        self._in_loop = InLoop()
        self._logs: dict[str, EmbeddedShardLog] = {}
        self.control: SqliteControlLog[ControlState, Command] = SqliteControlLog(
            self._control_path,
            state_type=ControlState,
            command_type=Command,
            apply=apply,
            on_fatal=on_fatal,
            files=self._files,
        )
        self.secret = self.control.secret(lambda: secrets.token_bytes(32))

    def sweep(self, known: Iterable[str]) -> None:
        """Remove what a crash left of a deletion.

        Raises StorageError when there are records of streams that the control log does not know:
        then it is not the one that belongs to them.
        """
        for folder in self._streams.glob(f"*{_DELETED}"):
            log.info("removing the log of a deleted stream: %s", folder.name)
            shutil.rmtree(folder, ignore_errors=True)
        self._refuse_others(frozenset(known))

    def _refuse_others(self, known: Collection[str]) -> None:
        """Raises StorageError when there are records of streams other than these."""
        folders = {path.parent.name for path in self._streams.glob("*/*.seg")}
        others = sorted(name for name in folders.difference(known) if not name.endswith(_DELETED))
        if others:
            count = "a stream" if len(others) == 1 else f"{len(others)} streams"
            raise StorageError(
                f"{self._streams} has records of {count} that {self._control_path} does not know "
                f"({', '.join(others[:5])}{', …' if len(others) > 5 else ''}): it was lost, "
                "damaged or put back from an older copy. No record was touched",
                path=str(self._control_path),
                hint="put back control.sqlite, and its control.sqlite-wal if there is one, as they "
                "were last; to go on without those streams, move their folders elsewhere",
            )

    async def open_log(
        self, uid: str, ranges: Iterable[HashKeyRange], *, is_new: bool
    ) -> EmbeddedShardLog:
        open_here = partial(
            StreamLog.open,
            self._streams / uid,
            self._access,
            now_ms=self._clock.now_ms(),
            ranges=ranges,
            options=self._options,
            is_new=is_new,
        )
        try:
            # among the writers, for which `close` waits before it lets go of the folder
            stream_log = await asyncio.get_running_loop().run_in_executor(self._writers, open_here)
        except OSError as error:
            # A sync for which there was no room, too: to open again reads back what is there, and
            # writes anew what nothing vouches for, exactly as the next start would.
            raise mapped(error) from error
        opened = EmbeddedShardLog(
            stream_log, self._writers, self._clock, self._on_fatal, self._readers, self._in_loop
        )
        self._logs[uid] = opened
        return opened

    async def delete_log(self, uid: str) -> None:
        opened = self._logs.pop(uid, None)
        if opened is not None:
            await opened.close()
        folder = self._streams / uid
        gone = folder.with_name(uid + _DELETED)
        if folder.exists():
            self._files.rename(folder, gone)
        # Also of a try before this one, which a crash or an error ended: once the control log has
        # forgotten the stream, its folder must not come back.
        self._files.sync_dir(self._streams)
        await asyncio.to_thread(shutil.rmtree, gone, True)

    async def close(self) -> None:
        for opened in self._logs.values():
            await opened.close()
        self._logs.clear()
        self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._access.open_files.close()
        await self.control.close()
        self._lock.release()
