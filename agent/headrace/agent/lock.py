"""One agent per data folder: two would ship every line twice, under different identities."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from headrace.core.errors import StorageLocked


class FolderLock:
    """Held from creation to `release`; the system releases it when the process dies."""

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises StorageLocked when another process has it."""
        path = folder / "lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StorageLocked(
                f"another agent (process {holder}) works with the data folder {folder}",
                path=str(path),
                hint="stop that one, or give this one another `data` folder",
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let the next agent in."""
        os.close(self._fd)
