"""SubscribeToShard by the clock and byte by byte: idle events, lifetime, takeover, encodings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import cbor2
import pytest
from botocore.eventstream import EventStreamBuffer, EventStreamMessage
from hypothesis import given
from hypothesis import strategies as st

from api_support import ACCOUNT, CBOR, JSON, SIGNED, server_here
from headrace.core.client import StreamClient
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.model.records import PutEntry
from headrace.core.part import StreamTarget
from headrace.core.server import Server
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.wire.codec import decode_cbor
from headrace.core.wire.event_stream import message

ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/s"
SHARD = "shardId-000000000000"


@dataclass
class Here:
    """A server on a clock of the test's own, with stream `s` of one shard and consumer `c`."""

    server: Server
    client: StreamClient
    clock: ManualClock
    consumer: str
    session: aiohttp.ClientSession

    async def subscribe(self, kind: str = "LATEST", content_type: str = JSON) -> Reader:
        request = {
            "ConsumerARN": self.consumer,
            "ShardId": SHARD,
            "StartingPosition": {"Type": kind},
        }
        body = cbor2.dumps(request) if content_type == CBOR else json.dumps(request).encode()
        headers = {
            **SIGNED,
            "Content-Type": content_type,
            "X-Amz-Target": "Kinesis_20131202.SubscribeToShard",
        }
        response = await self.session.post(self.server.endpoint, data=body, headers=headers)
        return Reader(response, self.clock)

    async def put(self, data: bytes) -> None:
        await self.client.put_records("s", [PutEntry(data, "k")])


class Reader:
    """The messages of one event stream, parsed by botocore."""

    def __init__(self, response: aiohttp.ClientResponse, clock: ManualClock) -> None:
        self.response = response
        self._clock = clock
        self._buffer = EventStreamBuffer()

    async def next(self) -> EventStreamMessage | None:
        """The next message; None at the end."""
        async with asyncio.timeout(30):
            while True:
                for found in self._buffer:
                    return found
                chunk = await self.response.content.readany()
                if not chunk:
                    return None
                self._buffer.add_data(chunk)

    async def event(self) -> dict[str, Any]:
        found = await self.next()
        assert found is not None
        assert found.headers[":event-type"] == "SubscribeToShardEvent", found.payload
        event: dict[str, Any] = json.loads(found.payload)
        return event

    async def nothing_yet(self) -> None:
        """Nothing has come and nothing is on its way."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                self._buffer.add_data(await self.response.content.readany())

    def close(self) -> None:
        self.response.close()


@asynccontextmanager
async def made_here(data: Path, **config: Any) -> AsyncIterator[Here]:
    clock = ManualClock()
    async with (
        server_here(data, clock, **config) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
        aiohttp.ClientSession() as session,
    ):
        await client.call("CreateStream", {"StreamName": "s", "ShardCount": 1})
        answer = await client.call(
            "RegisterStreamConsumer", {"StreamARN": ARN, "ConsumerName": "c"}
        )
        yield Here(server, client, clock, answer["Consumer"]["ConsumerARN"], session)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with made_here(tmp_path / "data") as made:
        yield made


async def test_the_first_message_is_the_initial_response(here: Here) -> None:
    reader = await here.subscribe()
    assert reader.response.status == 200
    assert reader.response.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert reader.response.headers["x-amzn-requestid"]
    first = await reader.next()
    assert first is not None
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "initial-response",
        ":content-type": "application/json",
    }
    assert first.payload == b"{}"
    event = await reader.next()
    assert event is not None
    assert event.headers[":event-type"] == "SubscribeToShardEvent"
    reader.close()


async def test_empty_events_while_idle(here: Here) -> None:
    reader = await here.subscribe()
    await reader.next()
    first = await reader.event()
    assert first["Records"] == []
    await here.clock.advance(4_999)
    await reader.nothing_yet()
    await here.clock.advance(1)
    again = await reader.event()
    assert again["Records"] == []
    assert again["ContinuationSequenceNumber"] == first["ContinuationSequenceNumber"]
    # a record starts the wait over
    await here.clock.advance(3_000)
    await here.put(b"x")
    event = await reader.event()
    assert len(event["Records"]) == 1
    await here.clock.advance(4_999)
    await reader.nothing_yet()
    await here.clock.advance(1)
    after = await reader.event()
    assert after["ContinuationSequenceNumber"] == event["Records"][0]["SequenceNumber"]
    reader.close()


async def test_it_ends_after_five_minutes(here: Here) -> None:
    reader = await here.subscribe()
    await reader.next()
    count = 0
    for _ in range(59):
        await reader.event()
        await here.clock.advance(5_000)
        count += 1
    await reader.event()
    await here.clock.advance(4_999)
    await reader.nothing_yet()
    await here.clock.advance(1)
    last = await reader.event()  # where to go on from
    assert last["ContinuationSequenceNumber"]
    assert await reader.next() is None
    assert count == 59


async def test_after_five_seconds_another_takes_over(here: Here) -> None:
    old = await here.subscribe()
    await old.next()
    await old.event()
    await here.clock.advance(4_999)
    refused = await here.subscribe()
    assert refused.response.status == 400
    answer = await refused.response.json(content_type=None)
    assert answer["__type"] == "ResourceInUseException"
    await here.clock.advance(1)
    new = await here.subscribe()
    assert new.response.status == 200
    await new.next()
    await new.event()
    await old.event()  # that of five seconds
    end = await old.next()
    assert end is not None
    assert end.headers == {
        ":message-type": "exception",
        ":exception-type": "ResourceInUseException",
        ":content-type": "application/json",
    }
    assert json.loads(end.payload)["message"].startswith("Another active subscription exists")
    assert await old.next() is None
    await here.put(b"x")
    assert len((await new.event())["Records"]) == 1
    new.close()


async def test_a_subscriber_is_sent_two_mebibytes_a_second_where_limits_are_on(
    tmp_path: Path,
) -> None:
    async with made_here(tmp_path / "data", limits="aws") as here:
        clock = here.clock
        for _ in range(6):
            await here.put(b"x" * 1_000_000)
            await clock.advance(1000)
        reader = await here.subscribe("TRIM_HORIZON")
        await reader.next()
        for _ in range(3):  # a second's worth at once, and what was begun
            assert len((await reader.event())["Records"]) == 1
        await reader.nothing_yet()
        started_ms = clock.monotonic_ms()
        for _ in range(3):
            waiting = asyncio.create_task(reader.event())
            while not waiting.done():
                await asyncio.wait([waiting], timeout=0.02)
                if not waiting.done():
                    await clock.advance(20)
            assert len((await waiting)["Records"]) == 1
        took_ms = clock.monotonic_ms() - started_ms
        assert took_ms >= 1300, took_ms  # three events later 2.9 MB more are paid for
        # another consumer's pace is its own
        answer = await here.client.call(
            "RegisterStreamConsumer", {"StreamARN": ARN, "ConsumerName": "d"}
        )
        here.consumer = answer["Consumer"]["ConsumerARN"]
        other = await here.subscribe("TRIM_HORIZON")
        await other.next()
        for _ in range(3):
            assert len((await other.event())["Records"]) == 1
        other.close()
        reader.close()


async def test_cbor_payloads(here: Here) -> None:
    await here.put(b"\x00\xff")
    reader = await here.subscribe("TRIM_HORIZON", CBOR)
    first = await reader.next()
    assert first is not None
    assert first.headers[":content-type"] == CBOR
    assert cbor2.loads(first.payload) == {}
    event = await reader.next()
    assert event is not None
    payload = decode_cbor(event.payload)  # timestamps are milliseconds, as the Java SDKs want
    (record,) = payload["Records"]
    assert record["Data"] == b"\x00\xff"
    assert payload["ContinuationSequenceNumber"] == record["SequenceNumber"]
    assert record["ApproximateArrivalTimestamp"] == here.clock.now_ms()
    assert payload["MillisBehindLatest"] == 0
    await here.client.call(
        "SplitShard", {"StreamName": "s", "ShardToSplit": SHARD, "NewStartingHashKey": "100"}
    )
    last = await reader.next()
    assert last is not None
    end = cbor2.loads(last.payload)
    assert "ContinuationSequenceNumber" not in end
    assert [child["ParentShards"] for child in end["ChildShards"]] == [[SHARD], [SHARD]]
    assert await reader.next() is None


async def test_a_client_that_went_away_leaves_nothing_behind(here: Here) -> None:
    before = len(asyncio.all_tasks())
    for i in range(19):
        answer = await here.client.call(
            "RegisterStreamConsumer", {"StreamARN": ARN, "ConsumerName": f"n{i}"}
        )
        here.consumer = answer["Consumer"]["ConsumerARN"]
        reader = await here.subscribe()
        await reader.next()
        reader.close()
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > before + 2:
            await here.clock.settle()
    (opened,) = here.server._catalog._open.values()
    assert isinstance(opened.log, EmbeddedShardLog)
    assert not opened.log._arrivals


async def test_stopping_the_server_ends_subscriptions_at_once(here: Here) -> None:
    reader = await here.subscribe()
    await reader.next()
    await reader.event()
    started = time.monotonic()
    stopping = asyncio.ensure_future(here.server.stop())
    with contextlib.suppress(aiohttp.ClientError):
        while await reader.next() is not None:
            pass
    assert time.monotonic() - started < 10
    await stopping


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(st.dictionaries(names, st.text(max_size=100), max_size=6), st.binary(max_size=3000))
def test_messages_are_read_as_written(headers: dict[str, str], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(message(headers, payload) * 2)
    for found in (buffer.next(), buffer.next()):
        assert (found.headers, found.payload) == (headers, payload)
