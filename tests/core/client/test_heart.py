"""When a worker stops relying on its leases: by its own clock, before anybody else's says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from headrace.core.errors import EndpointUnreachable, UnknownOperation
from headrace.core.heart import Heart
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.troubles import Troubles

DURATION_MS = 9_000


class Bench:
    """A heart on a bench. `behave` is what a beat does; None succeeds at once."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.behave: Callable[[], Awaitable[None]] | None = None
        self.beats: list[int] = []
        self.died_at: list[int] = []
        self.troubles = Troubles(logging.getLogger("headrace.core"), self.clock)
        self._start_ms = self.clock.monotonic_ms()
        self.heart = Heart(
            self._beat,
            lease_duration_ms=DURATION_MS,
            clock=self.clock,
            troubles=self.troubles,
            on_death=lambda: self.died_at.append(self.now_ms),
        )

    @property
    def now_ms(self) -> int:
        return self.clock.monotonic_ms() - self._start_ms

    async def _beat(self) -> None:
        self.beats.append(self.now_ms)
        if self.behave is not None:
            await self.behave()


@asynccontextmanager
async def beating() -> AsyncIterator[Bench]:
    bench = Bench()
    task = asyncio.create_task(bench.heart.run())
    await bench.clock.settle()
    yield bench
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def refuse() -> None:
    raise EndpointUnreachable("gone", endpoint="there")


async def hang() -> None:
    await asyncio.Event().wait()


async def test_it_beats_at_once_and_then_every_third_of_the_duration() -> None:
    async with beating() as bench:
        assert bench.heart.is_beating.is_set()
        await bench.clock.advance(9_000)
        assert bench.beats == [0, 3_000, 6_000, 9_000]
        assert bench.died_at == []


@pytest.mark.parametrize("trouble", [refuse, hang])
async def test_it_dies_before_the_duration_is_over_however_it_fails(
    trouble: Callable[[], Awaitable[None]],
) -> None:
    async with beating() as bench:
        await bench.clock.advance(3_000)  # the last good beat
        bench.behave = trouble
        await bench.clock.advance(8_099)
        assert bench.died_at == [] and bench.heart.is_beating.is_set()
        await bench.clock.advance(1)
        assert bench.died_at == [3_000 + 8_100] and not bench.heart.is_beating.is_set()
        assert "no heartbeat gets through" in bench.troubles.current()[0]
        await bench.clock.advance(60_000)
        assert len(bench.died_at) == 1
        bench.behave = None
        await bench.clock.advance(9_000)
        assert bench.heart.is_beating.is_set() and bench.troubles.current() == ()


async def test_a_short_outage_is_survived() -> None:
    async with beating() as bench:
        bench.behave = refuse
        await bench.clock.advance(7_400)
        bench.behave = None
        await bench.clock.advance(9_000)
        assert bench.died_at == []


async def test_time_counts_from_sending_the_beat_not_from_its_answer() -> None:
    """Others saw the beat before its answer was back here."""
    async with beating() as bench:

        async def slow() -> None:
            await bench.clock.sleep_ms(5_000)

        bench.behave = slow
        await bench.clock.advance(8_000)  # sent at 3 s, answered at 8 s
        bench.behave = hang
        await bench.clock.advance(3_099)
        assert bench.died_at == []
        await bench.clock.advance(1)
        assert bench.died_at == [3_000 + 8_100]


async def test_a_process_that_was_stopped_gives_up_as_soon_as_it_runs_again() -> None:
    async with beating() as bench:
        await bench.clock.advance(1_000)
        bench.clock._move_to(bench.clock.monotonic_ms() + 60_000)  # nobody was there to see it
        await bench.clock.advance(0)
        assert len(bench.died_at) == 1


async def test_what_cannot_pass_is_raised() -> None:
    bench = Bench()

    async def unknown() -> None:
        raise UnknownOperation("Heartbeat")

    bench.behave = unknown
    with pytest.raises(UnknownOperation):
        await bench.heart.run()
