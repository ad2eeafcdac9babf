"""Trouble is said once, then rarely, with a count."""

from __future__ import annotations

import asyncio
import logging

import pytest

from client_support import QUICK, through, until
from headrace.core.model.records import PutEntry
from headrace.core.producer import Producer
from headrace.core.testing.faulty_proxy import ERROR_500, FaultyProxy
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.troubles import Troubles


async def test_the_same_trouble_is_logged_every_half_minute_with_a_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    troubles = Troubles(logging.getLogger("headrace.core"), clock)
    for second in range(61):
        troubles.report("disk", f"full for {second} s")
        await clock.advance(1000)
    assert caplog.messages == [
        "full for 0 s",
        "full for 30 s (30 more times)",
        "full for 60 s (30 more times)",
    ]
    assert troubles.current() == ("full for 60 s",)
    troubles.clear("disk")
    assert troubles.current() == ()
    troubles.report("disk", "full again")
    assert caplog.messages[-1] == "full again"


async def test_a_producer_nobody_listens_to_says_why_it_waits(
    proxy: FaultyProxy, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.plan(ERROR_500, None)
    async with through(proxy.endpoint) as client:
        put = asyncio.create_task(
            Producer(client, stream, backoff=QUICK).put_batch([PutEntry(b"x", "k")])
        )
        await until(lambda: proxy.requests["PutRecords"] > 5)
        assert len(caplog.messages) == 1 and "tried again: injected" in caplog.messages[0]
        proxy.clear()
        await put
