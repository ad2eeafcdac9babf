"""A log behind group commit, by itself, and where its syncs are done."""

from __future__ import annotations

import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.engine.seam import ShardPut
from headrace.core.log.files import SystemFiles
from headrace.core.log.stream_log import StreamLog, StreamLogOptions
from headrace.core.testing.faulty_files import FaultyFiles
from headrace.core.testing.manual_clock import ManualClock


class WatchedFiles(SystemFiles):
    """Notes which thread each sync of data is done in, and waits there for `may_sync`."""

    def __init__(self) -> None:
        self.syncs: list[int] = []
        self.may_sync = threading.Event()
        self.may_sync.set()

    def sync_data(self, fd: int) -> None:
        self.syncs.append(threading.get_ident())
        assert self.may_sync.wait(30)
        super().sync_data(fd)


def open_log(
    folder: Path,
    files: FaultyFiles,
    segment_bytes: int = 1 << 30,
    in_loop: InLoop | None = None,
) -> EmbeddedShardLog:
    clock = ManualClock()
    stream_log = StreamLog.open(
        folder / "log",
        files,
        now_ms=clock.now_ms(),
        options=StreamLogOptions(segment_bytes=segment_bytes),
    )
    return EmbeddedShardLog(stream_log, ThreadPoolExecutor(1), clock, raise_it, in_loop=in_loop)


def raise_it(error: BaseException) -> None:
    raise error


def put(size: int) -> ShardPut:
    return ShardPut(0, 1, [b64encode(bytes(size)).decode()], ["k"], size + 1)


def watched(files: FaultyFiles) -> WatchedFiles:
    assert isinstance(files.inner, WatchedFiles)
    return files.inner


def syncs(files: FaultyFiles) -> list[str]:
    """Where each sync was done: here, or there in a writer thread."""
    inner = watched(files)
    done, inner.syncs = inner.syncs, []
    return ["here" if ident == threading.get_ident() else "there" for ident in done]
