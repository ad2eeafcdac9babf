"""What several of the triggers' tests use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from headrace.triggers.worker_pool import WorkerPool

WriteFunction = Callable[..., Path]
MakePool = Callable[..., WorkerPool]


async def until(condition: Callable[[], object], *, timeout_s: float = 20) -> None:
    """Wait for something another process or thread does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nobody can set an Event from over there
            await asyncio.sleep(0.01)


def content(file: Path) -> str:
    """Of a file that may not be there yet."""
    return file.read_text() if file.exists() else ""


def exists(pid: int) -> bool:
    """Whether a process runs. A zombie nobody has looked at yet does nothing any more."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
