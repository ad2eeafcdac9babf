"""Running a coroutine as far as it goes before it is made a task.

A task's first step waits for the loop's next turn. Most requests have all they need when the last
of their bytes is there, and some (a poll that finds nothing) never wait for anything: their
answer can be on its way before the loop turns, and no task is made for it.

What is started so must not ask for its task in what it does before it first waits
(`asyncio.timeout`, `TaskGroup` and AnyIO do): there is none yet.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


def start(
    coroutine: Coroutine[Any, Any, None],
    loop: asyncio.AbstractEventLoop,
    tasks: set[asyncio.Task[None]],
) -> None:
    """Run `coroutine` until it waits; what is left of it becomes a task, in `tasks` till it ends."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return
    task = loop.create_task(_rest(coroutine, waits_for))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Goes on with a coroutine that has been started, and has said what it waits for."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:
            step, value = coroutine.throw, error
        else:
            step = coroutine.send
        try:
            waits_for = step(value)
        except StopIteration:
            return
