"""When a batch is due: by count, by window, by size."""

from __future__ import annotations

import asyncio
import json

import pytest

from headrace.core.testing.manual_clock import ManualClock
from headrace.triggers.batcher import Batcher
from headrace.triggers.event import MAX_EVENT_BYTES, Batch, EventSource
from headrace.triggers.testing import MemoryLease

SOURCE = EventSource(
    "arn:aws:kinesis:us-east-1:123456789012:stream/s",
    "shardId-000000000000",
    "arn:role",
    "us-east-1",
)


class Batches:
    """A batcher at work: asks for the next batch as soon as `take` has taken the last."""

    def __init__(self, *, size: int = 100, window_ms: int = 0) -> None:
        self.clock = ManualClock()
        self.lease = MemoryLease(clock=self.clock)
        self._batcher = Batcher(
            self.lease,
            SOURCE,
            size=size,
            window_ms=window_ms,
            clock=self.clock,
            on_read=lambda _found: None,
        )
        self._next = asyncio.create_task(self._batcher.next())

    async def ready(self) -> list[bytes] | None:
        """The data of the batch that is due now; None when none is."""
        await self.clock.settle()
        if not self._next.done():
            return None
        batch = self._next.result()
        if batch is None:
            return []
        self._next = asyncio.create_task(self._batcher.next())
        return [entry.record.data for entry in batch.records]

    async def batch(self) -> Batch:
        await self.clock.settle()
        batch = await self._next
        assert batch is not None
        self._next = asyncio.create_task(self._batcher.next())
        return batch

    async def close(self) -> None:
        self.lease.stop()
        await self.clock.settle()
        self._next.cancel()


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"%d" % n for n in range(start, stop)]


async def test_without_a_window_what_is_there_is_sent_at_once() -> None:
    batches = Batches()
    assert await batches.ready() is None
    batches.lease.put(b"a", b"b")
    assert await batches.ready() == [b"a", b"b"]
    assert await batches.ready() is None
    batches.lease.put(b"c")
    assert await batches.ready() == [b"c"]
    await batches.close()


async def test_size_is_a_maximum() -> None:
    batches = Batches(size=10)
    batches.lease.put(*numbered(0, 25))
    assert await batches.ready() == numbered(0, 10)
    assert await batches.ready() == numbered(10, 20)
    assert await batches.ready() == numbered(20, 25)
    await batches.close()


async def test_a_window_gathers_30_records_into_one_batch() -> None:
    """Scenario 2."""
    batches = Batches(window_ms=2_000)
    for n in range(30):
        batches.lease.put(b"%d" % n)
        await batches.clock.advance(60)
    assert await batches.ready() is None
    await batches.clock.advance(200)
    assert await batches.ready() == numbered(0, 30)
    await batches.close()


async def test_the_next_window_begins_when_the_invocation_has_ended() -> None:
    """Scenario 2."""
    batches = Batches(window_ms=2_000)
    batches.lease.put(b"a")
    await batches.clock.advance(2_000)
    batches.lease.put(b"b")  # while a is being worked on
    await batches.clock.advance(5_000)
    assert await batches.ready() == [b"a"]
    await batches.clock.advance(1_999)
    assert await batches.ready() is None
    await batches.clock.advance(1)
    assert await batches.ready() == [b"b"]
    await batches.close()


async def test_a_full_batch_does_not_wait_for_the_window() -> None:
    batches = Batches(size=3, window_ms=60_000)
    batches.lease.put(b"a", b"b")
    assert await batches.ready() is None
    batches.lease.put(b"c", b"d")
    assert await batches.ready() == [b"a", b"b", b"c"]
    assert await batches.ready() is None
    await batches.clock.advance(60_000)
    assert await batches.ready() == [b"d"]
    await batches.close()


async def test_after_a_quiet_time_records_are_gathered_not_sent_one_by_one() -> None:
    batches = Batches(window_ms=2_000)
    await batches.clock.advance(600_000)
    batches.lease.put(b"a")
    await batches.clock.advance(1_000)
    batches.lease.put(b"b")
    assert await batches.ready() is None
    await batches.clock.advance(1_000)
    assert await batches.ready() == [b"a", b"b"]
    await batches.close()


@pytest.mark.parametrize("window_ms", [0, 1, 700, 2_000])
async def test_no_record_waits_longer_than_the_window(window_ms: int) -> None:
    batches = Batches(window_ms=window_ms)
    for pause_ms in (0, 10, 1_999, 2_500, 7_000, 3):
        await batches.clock.advance(pause_ms)
        (record,) = batches.lease.put(b"x")
        await batches.clock.advance(window_ms)
        assert await batches.ready() == [b"x"]
        assert batches.clock.now_ms() - record.approximate_arrival_ms <= window_ms
    await batches.close()


async def test_records_of_900_kb_are_cut_at_6_mb() -> None:
    """Scenario 3."""
    batches = Batches(window_ms=300_000)
    batches.lease.put(*(bytes([n]) * 900_000 for n in range(12)))
    seen = []
    for _ in range(2):
        batch = await batches.batch()
        event = batch.event()
        assert len(event) <= MAX_EVENT_BYTES
        assert len(event) + len(batch.records[0].body) > MAX_EVENT_BYTES  # as full as can be
        assert len(json.loads(event)["Records"]) == len(batch)
        seen += [entry.record.data[0] for entry in batch.records]
    assert await batches.ready() is None  # the rest is not full, and the window not over
    await batches.clock.advance(300_000)
    seen += [entry.record.data[0] for entry in (await batches.batch()).records]
    assert seen == list(range(12))
    await batches.close()


async def test_a_record_too_large_for_any_event_is_a_batch_of_its_own() -> None:
    batches = Batches()
    batches.lease.put(b"a", bytes(5_000_000), b"b")
    assert await batches.ready() == [b"a"]
    oversized = await batches.batch()
    assert len(oversized) == 1
    assert oversized.is_oversized()
    assert await batches.ready() == [b"b"]
    await batches.close()


async def test_the_end_of_the_shard_does_not_wait_for_the_window() -> None:
    batches = Batches(window_ms=300_000)
    batches.lease.put(b"a")
    await batches.clock.settle()
    batches.lease.end()
    assert await batches.ready() == [b"a"]
    assert await batches.ready() == []
    await batches.close()


async def test_stopping_hands_out_nothing_more() -> None:
    batches = Batches(size=1)
    batches.lease.put(b"a", b"b", b"c")
    assert await batches.ready() == [b"a"]
    batches.lease.stopping.set()
    assert await batches.ready() == []
    await batches.close()


async def test_a_clock_set_back_changes_nothing() -> None:
    """Scenario 45."""
    batches = Batches(window_ms=2_000)
    batches.lease.put(b"a")
    batches.clock.step_wall(-3_600_000)
    await batches.clock.advance(2_000)
    assert await batches.ready() == [b"a"]
    await batches.close()
