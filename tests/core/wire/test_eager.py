"""What is started before the loop turns goes on as a task would."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.core.listener import eager


async def ended(tasks: set[Any]) -> None:
    while tasks:  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0)


async def test_what_does_not_wait_has_ended_at_once() -> None:
    seen: list[str] = []

    async def answer() -> None:
        seen.append("answered")

    tasks: set[Any] = set()
    eager.start(answer(), asyncio.get_running_loop(), tasks)
    assert seen == ["answered"]
    assert not tasks


async def test_what_waits_goes_on() -> None:
    seen: list[Any] = []
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()

    async def answer() -> None:
        seen.append(await first)
        await asyncio.sleep(0)
        seen.append(await asyncio.shield(asyncio.to_thread(str, "from a thread")))
        done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0, "in a task"))])
        seen.append(done.pop().result())
        try:
            await second
        except ValueError as error:
            seen.append(str(error))

    tasks: set[Any] = set()
    eager.start(answer(), loop, tasks)
    assert len(tasks) == 1
    first.set_result("first")
    loop.call_later(0.01, second.set_exception, ValueError("second"))
    await ended(tasks)
    assert seen == ["first", "from a thread", "in a task", "second"]


async def _forever() -> None:
    await asyncio.Event().wait()


async def _often() -> None:
    while True:  # noqa: ASYNC110 - turns are what it waits for
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize("wait", [_forever, _often])
async def test_it_is_cancelled_where_it_waits(wait: Any, turns: int) -> None:
    seen: list[str] = []

    async def answer() -> None:
        try:
            await wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.001)  # what has to be ended may take its time
            seen.append("ended")
            raise

    tasks: set[Any] = set()
    eager.start(answer(), asyncio.get_running_loop(), tasks)
    for _ in range(turns):
        await asyncio.sleep(0)
    (rest,) = tasks
    rest.cancel(msg="the server ends")
    await ended(tasks)
    assert seen == ["cancelled", "ended"]


async def test_it_is_cancelled_when_what_it_waits_for_has_just_come() -> None:
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def answer() -> None:
        try:
            await future
        except asyncio.CancelledError:
            seen.append("cancelled")

    tasks: set[Any] = set()
    eager.start(answer(), loop, tasks)
    future.set_result(None)
    tasks.copy().pop().cancel()
    await ended(tasks)
    assert seen == ["cancelled"]


async def test_it_may_cancel_itself_as_a_task_may() -> None:
    seen: list[str] = []
    tasks: set[Any] = set()

    async def answer() -> None:
        await asyncio.sleep(0)
        for rest in tasks:
            rest.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")

    eager.start(answer(), asyncio.get_running_loop(), tasks)
    await ended(tasks)
    assert seen == ["cancelled"]


async def test_what_it_raises_is_raised() -> None:
    async def at_once() -> None:
        raise ValueError("at once")

    async def later() -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    tasks: set[Any] = set()
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    with pytest.raises(ValueError, match="at once"):
        eager.start(at_once(), loop, tasks)
    assert not tasks
    eager.start(later(), loop, tasks)
    await ended(tasks)
    assert [str(context["exception"]) for context in reported] == ["later"]
