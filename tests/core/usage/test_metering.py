"""Counts by the hour, kept: over restarts, streams that come and go, disks that fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.engine.embedded.usage_store import SqliteUsageStore
from headrace.core.errors import ResourceNotFound, ValidationError
from headrace.core.model.records import PutEntry
from headrace.core.model.usage import (
    HOUR_MS,
)
from headrace.core.part import StreamTarget
from headrace.core.testing.faulty_usage_store import FaultyUsageStore
from headrace.core.testing.manual_clock import ManualClock

START_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS + 600_000  # ten minutes past the hour


@asynccontextmanager
async def client_here(data: Path, clock: ManualClock, **config: Any) -> AsyncIterator[StreamClient]:
    async with (
        server_here(data, clock, **config) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await server._metering.peaks_known.wait()  # minutes begin after it
        await clock.settle()
        yield client


async def put(client: StreamClient, count: int, stream: str = "s") -> None:
    await client.put_records(stream, [PutEntry(b"123456789", "k")] * count)


async def usage_of(client: StreamClient, stream: str = "s", hours: int = 48) -> list[Any]:
    request = {"StreamName": stream, "Hours": hours}
    answer = await client.call("DescribeUsage", request, extension=True)
    streams: list[Any] = answer["streams"]
    return streams


def records_by_hour(one: dict[str, Any]) -> dict[str, int]:
    """`hh:mm` of the hours of one stream -> records in."""
    return {hour["hour"][11:16]: hour["records_in"] for hour in one["hours"]}


async def until(condition: Callable[[], bool], clock: ManualClock) -> None:
    """Let what was handed to a thread come back, and what failed be tried again."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
            await clock.advance(100)


async def test_hours_roll_by_the_clock_and_survive_a_restart(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    hours = [
        datetime.fromtimestamp((START_MS + i * HOUR_MS) / 1000, UTC).strftime("%H:00")
        for i in range(4)
    ]
    async with client_here(tmp_path / "data", clock) as client:
        await client.ensure_stream("s", shards=2)
        await put(client, 3)
        await clock.advance(20_000)
        await put(client, 4)
        await clock.advance(HOUR_MS - 620_000 - 1)  # the last millisecond of the hour
        await put(client, 5)
        await clock.advance(1)
        await put(client, 1)
        (one,) = await usage_of(client)
        assert records_by_hour(one) == {hours[0]: 12, hours[1]: 1}
        await clock.advance(HOUR_MS)
        await put(client, 2)
    async with client_here(tmp_path / "data", clock) as client:
        (one,) = await usage_of(client)
        assert records_by_hour(one) == dict(zip(hours, (12, 1, 2), strict=False))
        await put(client, 7)
        await clock.advance(HOUR_MS)
        (one,) = await usage_of(client)
        assert records_by_hour(one) == dict(zip(hours, (12, 1, 9, 0), strict=True))
        total = one["total"]
        assert (total["records_in"], total["bytes_in"]) == (22, 220)
        # two shards, for the whole time
        elapsed_s = (clock.now_ms() - START_MS) / 1000
        assert total["shard_seconds"] == pytest.approx(2 * elapsed_s, abs=0.01)
        full_hour = one["hours"][1]
        assert full_hour["shard_seconds"] == pytest.approx(7200, abs=0.01)
        (last,) = await usage_of(client, hours=2)
        assert records_by_hour(last) == {hours[2]: 9, hours[3]: 0}


async def test_the_busiest_minute_is_kept(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    async with client_here(tmp_path / "data", clock) as client:
        await client.ensure_stream("s", shards=1)
        for count in (60, 500, 120):
            for _ in range(6):
                await put(client, count)
                await clock.advance(10_000)
        (one,) = await usage_of(client)
        assert one["total"]["peak_records_per_s"] == 50
        assert one["total"]["peak_bytes_per_s"] == 500
        assert one["shards"][0]["total"]["peak_records_per_s"] == 50


async def test_iterator_age_is_the_greatest_that_was_answered(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    async with client_here(tmp_path / "data", clock) as client:
        await client.ensure_stream("s", shards=1)
        await put(client, 2)
        iterator = await client.get_shard_iterator("s", "shardId-000000000000", "TRIM_HORIZON")
        await clock.advance(5_000)
        first = await client.get_records(iterator, limit=1)
        assert first.millis_behind_latest == 5_000
        await clock.advance(60_000)
        assert first.next_iterator is not None
        await client.get_records(first.next_iterator)
        (one,) = await usage_of(client)
        assert one["total"]["iterator_age_ms"] == 5_000
        assert one["total"]["records_out"] == 2


async def test_a_stream_made_again_is_another(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    async with client_here(tmp_path / "data", clock) as client:
        await client.ensure_stream("s", shards=1)
        await put(client, 3)
        await clock.advance(120_000)
        await client.call("DeleteStream", {"StreamName": "s"})
        await clock.advance(60_000)
        await client.ensure_stream("s", shards=1)
        await put(client, 5)
        old, new = await usage_of(client)
        assert (old["is_deleted"], old["total"]["records_in"]) == (True, 3)
        assert old["total"]["shard_seconds"] == pytest.approx(120, abs=0.01)
        assert old["total"]["mode"] == "PROVISIONED"
        assert (new["is_deleted"], new["total"]["records_in"]) == (False, 5)
        with pytest.raises(ResourceNotFound, match="Stream t under account"):
            await usage_of(client, "t")
        with pytest.raises(ValidationError):
            await usage_of(client, hours=0)
        everything = await client.call("DescribeUsage", {}, extension=True)
        assert [one["total"]["records_in"] for one in everything["streams"]] == [3, 5]
        assert "shards" not in everything["streams"][0]


async def test_streams_of_others_are_not_told_of(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    async with server_here(tmp_path / "data", clock) as server:
        here = StreamTarget(endpoint=server.endpoint)
        there = StreamTarget(endpoint=server.endpoint, region="eu-west-1")
        async with StreamClient(here) as client, StreamClient(there) as other:
            await client.ensure_stream("s", shards=1)
            assert len(await usage_of(client)) == 1
            with pytest.raises(ResourceNotFound):
                await usage_of(other)
            assert (await other.call("DescribeUsage", {}, extension=True))["streams"] == []


async def test_a_full_disk_stops_nobody_and_the_counts_follow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(START_MS)
    path = tmp_path / "usage.sqlite"
    store = FaultyUsageStore(SqliteUsageStore(path))
    async with client_here(tmp_path / "data", clock, usage_store=store) as client:
        await client.ensure_stream("s", shards=1)
        await put(client, 1)
        await clock.advance(10_000)
        await until(lambda: stored_records(path) == 1, clock)
        store.is_full = True
        for _ in range(5):
            await put(client, 10)
            tried = store.attempts
            await clock.advance(10_000)
            await until(lambda tried=tried: store.attempts > tried, clock)  # type: ignore[misc]
        assert stored_records(path) == 1
        (one,) = await usage_of(client)  # also what is not stored yet
        assert one["total"]["records_in"] == 51
        (shard,) = one["shards"]
        assert (shard["total"]["records_in"], shard["hours"][0]["records_in"]) == (51, 51)
        store.is_full = False
        await clock.advance(20_000)
        await until(lambda: stored_records(path) == 51, clock)
    said = [r.getMessage() for r in caplog.records if r.name == "headrace.core"]
    assert said[:2] == [  # once, however often it was tried
        "database or disk is full; counting goes on in memory",
        "usage can be kept again",
    ]


def stored_records(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute(
            "SELECT (SELECT sum(records_in) FROM stream_hours), "
            "(SELECT sum(records_in) FROM shard_hours)"
        ).fetchall()
    assert found[0] == found[1]
    return int(found[0] or 0)


async def test_a_batch_whose_answer_was_lost_is_not_added_twice(tmp_path: Path) -> None:
    clock = ManualClock(START_MS)
    path = tmp_path / "usage.sqlite"
    store = FaultyUsageStore(SqliteUsageStore(path))
    async with client_here(tmp_path / "data", clock, usage_store=store) as client:
        await client.ensure_stream("s", shards=1)
        store.loses_answers = True
        for i in range(4):
            await put(client, 10)
            tried = store.attempts
            await clock.advance(10_000)
            await until(lambda tried=tried: store.attempts > tried, clock)  # type: ignore[misc]
            (one,) = await usage_of(client)
            assert one["total"]["records_in"] == 10 * (i + 1)
        store.loses_answers = False
        await clock.advance(20_000)
        await until(lambda: stored_records(path) == 40, clock)
        await clock.advance(60_000)
        (one,) = await usage_of(client)
        assert one["total"]["records_in"] == 40
    assert stored_records(path) == 40
