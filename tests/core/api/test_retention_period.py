"""IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api_support import ACCOUNT, Raw, create, refused, reply_is, server_here
from headrace.core.client import StreamClient
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock

BOTH = ["IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod"]
HOUR_MS = 3_600_000


def retention(kinesis: Any, name: str) -> int:
    description = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    hours: int = description["RetentionPeriodHours"]
    return hours


# Serialization and validation


@pytest.mark.parametrize("operation", BOTH)
def test_wire_29_wrong_types(raw: Raw, operation: str) -> None:
    reply_is(
        raw.call(operation, {"StreamName": "s", "RetentionPeriodHours": "48"}),
        "SerializationException",
        "class java.lang.String can not be converted to an Integer",
    )


@pytest.mark.parametrize("operation", BOTH)
def test_wire_23_hours_are_missing(raw: Raw, operation: str) -> None:
    reply_is(
        raw.call(operation, {"StreamName": "s"}),
        "ValidationException",
        "1 validation error detected: Value null at 'retentionPeriodHours' failed to satisfy "
        "constraint: Member must not be null",
    )


@pytest.mark.parametrize("operation", BOTH)
def test_wire_27_too_short(raw: Raw, kinesis: Any, name: str, operation: str) -> None:
    create(kinesis, name)
    for hours in (23, 0, -1):
        reply_is(
            raw.call(operation, {"StreamName": name, "RetentionPeriodHours": hours}),
            "InvalidArgumentException",
            f"Minimum allowed retention period is 24 hours. Requested retention period ({hours} "
            "hours) is too short.",
        )


@pytest.mark.parametrize("operation", BOTH)
def test_wire_27_too_long(raw: Raw, kinesis: Any, name: str, operation: str) -> None:
    create(kinesis, name)
    for hours in (8761, 2**31 - 1, 2**40):
        reply = raw.call(operation, {"StreamName": name, "RetentionPeriodHours": hours})
        assert (reply.status, reply.json["__type"]) == (400, "InvalidArgumentException")
    assert retention(kinesis, name) == 24


@pytest.mark.parametrize("operation", BOTH)
def test_wire_1_no_such_stream(raw: Raw, operation: str) -> None:
    reply_is(
        raw.call(operation, {"StreamName": "none", "RetentionPeriodHours": 48}),
        "ResourceNotFoundException",
        f"Stream none under account {ACCOUNT} not found.",
    )


def test_wire_28_the_wrong_direction(kinesis: Any, name: str) -> None:
    create(kinesis, name)
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=30)
    with refused(
        "InvalidArgumentException",
        f"Requested retention period (25 hours) for stream {name} can not be shorter than "
        "existing retention period (30 hours). Use DecreaseRetentionPeriod API.",
    ):
        kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=25)
    with refused(
        "InvalidArgumentException",
        f"Requested retention period (31 hours) for stream {name} can not be longer than "
        "existing retention period (30 hours). Use IncreaseRetentionPeriod API.",
    ):
        kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=31)
    assert retention(kinesis, name) == 30


# Behaviour


def test_up_to_a_year_and_down_again(kinesis: Any, raw: Raw, name: str) -> None:
    create(kinesis, name)
    reply = raw.call(BOTH[0], {"StreamName": name, "RetentionPeriodHours": 8760})
    assert (reply.status, reply.body) == (200, b"")
    assert retention(kinesis, name) == 8760
    kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=24)
    assert retention(kinesis, name) == 24


async def test_what_has_expired_does_not_come_back(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):

        async def set_hours(operation: str, hours: int) -> None:
            await client.call(operation, {"StreamName": "s", "RetentionPeriodHours": hours})

        async def there() -> list[int]:
            token = await client.get_shard_iterator("s", "0", "TRIM_HORIZON")
            return [int(record.data) for record in (await client.get_records(token)).records]

        await client.ensure_stream("s", shards=1)
        await set_hours(BOTH[0], 100)
        for hour in range(0, 60, 10):
            await client.put_records("s", [PutEntry(b"%d" % hour, "k")])
            clock.step_wall(10 * HOUR_MS)
        assert await there() == [0, 10, 20, 30, 40, 50]
        await set_hours(BOTH[1], 35)
        assert await there() == [30, 40, 50]
        await set_hours(BOTH[0], 100)
        clock.step_wall(2000)
        assert await there() == [30, 40, 50]


async def test_expired_segments_leave_the_disk(tmp_path: Path) -> None:
    clock = ManualClock()
    options = StreamLogOptions(segment_bytes=10_000)
    async with (
        server_here(tmp_path / "s", clock, log_options=options) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
        for hour in range(40):
            await client.put_records("s", [PutEntry(bytes(9_000), str(hour))])
            await clock.advance(HOUR_MS)
        segments = list((tmp_path / "s" / "streams").glob("*/*.seg"))
        assert 24 <= len(segments) <= 27
        token = await client.get_shard_iterator("s", "0", "TRIM_HORIZON")
        found = (await client.get_records(token)).records
        assert [int(record.partition_key) for record in found] == list(range(16, 40))
