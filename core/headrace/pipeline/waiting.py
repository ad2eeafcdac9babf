"""Waiting for whichever comes first."""

from __future__ import annotations

import asyncio
from typing import Any


async def first_of(*waits: asyncio.Event | asyncio.Future[Any]) -> None:
    """Return when one of some events is set or one of some tasks is done.

    The waits made for events are cleaned up; the tasks given are left running.
    """
    own = [asyncio.create_task(wait.wait()) for wait in waits if isinstance(wait, asyncio.Event)]
    given = [wait for wait in waits if not isinstance(wait, asyncio.Event)]
    try:
        await asyncio.wait([*own, *given], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in own:
            task.cancel()
