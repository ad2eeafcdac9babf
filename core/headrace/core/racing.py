"""Waiting for one thing or another, without leaving either behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from headrace.core.clock import Clock

T = TypeVar("T")


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if `event` is set before; `work` is cancelled then.

    `work` has ended in any case when this returns or raises. A result that comes at the moment
    this is cancelled is dropped, so `work` must not change what its caller relies on.
    """
    if event.is_set():
        work.close()
        return None
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await _end(task, waiter)


async def within(clock: Clock, duration_ms: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; TimeoutError (with `work` cancelled) once `duration_ms` are over."""
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep_ms(duration_ms))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError(f"not done within {duration_ms:.0f} ms")
        return task.result()
    finally:
        await _end(task, timer)


async def pause(clock: Clock, duration_ms: float, event: asyncio.Event) -> None:
    """Wait `duration_ms`, or until `event` is set."""
    await unless(event, clock.sleep_ms(duration_ms))


async def _end(*tasks: asyncio.Future[Any]) -> None:
    open_tasks = [task for task in tasks if not task.done()]
    for task in open_tasks:
        task.cancel()
    if open_tasks:
        await asyncio.wait(open_tasks)
    for task in open_tasks:
        if not task.cancelled():
            task.exception()  # it failed while being cancelled; nobody waits for it any more
