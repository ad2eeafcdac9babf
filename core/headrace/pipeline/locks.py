"""One process at a time on a folder, held by the kernel: nothing to clean up after a kill -9."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.core.errors import StorageLocked

_POLL_S = 0.05


@contextmanager
def exclusive(path: Path, *, purpose: str, wait_ms: int = 0) -> Iterator[None]:
    """Hold the lock file at `path` for the length of the block.

    Args:
        path: the lock file; it is created and stays (removing it would let two in).
        purpose: what holds it, for the message of whoever comes second.
        wait_ms: how long to wait for a holder that is on its way out.

    Raises:
        StorageLocked: another process holds it; the message names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, path, purpose, time.monotonic() + wait_ms / 1000)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, purpose: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                raise StorageLocked(
                    f"{purpose} is already running on {path.parent}"
                    + (f" (process {holder})" if holder else ""),
                    path=str(path),
                    hint="stop it first, or use another data folder",
                ) from None
            time.sleep(_POLL_S)
