"""The clock that other tests trust."""

from __future__ import annotations

import asyncio

from headrace.core.testing.manual_clock import ManualClock


async def test_a_sleeper_that_sleeps_again_is_woken_at_each_of_its_times() -> None:
    clock = ManualClock()
    start_ms = clock.monotonic_ms()
    woken: list[int] = []

    async def ticker() -> None:
        while True:
            await clock.sleep_ms(10)
            woken.append(clock.monotonic_ms() - start_ms)

    task = asyncio.create_task(ticker())
    await clock.advance(35)
    assert woken == [10, 20, 30]
    assert clock.sleeping_ms == [5]
    task.cancel()


async def test_no_time_passes_by_itself() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep_ms(1))
    await clock.settle()
    assert not task.done()
    await clock.advance(1)
    assert task.done()


async def test_a_wall_step_wakes_nobody() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep_ms(1_000))
    await clock.settle()
    before_ms = clock.now_ms()
    clock.step_wall(3_600_000)
    await clock.settle()
    assert clock.now_ms() == before_ms + 3_600_000
    assert not task.done()
    task.cancel()
