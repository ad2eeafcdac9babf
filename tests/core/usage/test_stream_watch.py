"""Streams are looked at when there is something to see, and what is kept is as if always."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.errors import ServiceError
from headrace.core.limits import DEFAULT_ACCOUNT, DEFAULT_REGION
from headrace.core.model.records import PutEntry
from headrace.core.model.usage import HOUR_MS, StreamCounts, UsageBatch, merge
from headrace.core.part import StreamTarget
from headrace.core.server import Server
from headrace.core.service.expiry import Expiry
from headrace.core.service.stream_watch import StreamWatch
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from headrace.core.testing.manual_clock import ManualClock

START_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS + 600_000
MARK_BYTES = 64  # a log may get one of these while nobody puts


class Always:
    """Looks at every stream at every tick: slow, and without any state but the last tick."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hours: dict[tuple[str, int], StreamCounts] = {}
        self._catalog = server._catalog
        self._ticked_ms = server._metering._watch._ticked_ms
        tick = StreamWatch.tick

        def both(
            watch: StreamWatch, monotonic_ms: int, wall_ms: int, hour: int, pending: UsageBatch
        ) -> None:
            self._look(monotonic_ms, wall_ms, hour)
            tick(watch, monotonic_ms, wall_ms, hour, pending)

        monkeypatch.setattr(StreamWatch, "tick", both)

    def _look(self, monotonic_ms: int, wall_ms: int, hour: int) -> None:
        elapsed_ms, self._ticked_ms = monotonic_ms - self._ticked_ms, monotonic_ms
        for stream in self._catalog.state.streams.streams.values():
            opened = self._catalog.opened_by_uid(stream.uid)
            if stream.status == "CREATING" or opened is None:
                continue
            shards, consumers = len(opened.routing.shards), len(stream.consumers)
            lived_ms = max(min(elapsed_ms, wall_ms - stream.created_ms), 0)
            seen = StreamCounts(
                shard_seconds=shards * lived_ms / 1000,
                consumer_shard_seconds=shards * consumers * lived_ms / 1000,
                shards=shards,
                consumers=consumers,
                stored_bytes=opened.log.stored_bytes,
                retention_hours=stream.retention_hours,
                mode=stream.mode,
            )
            merge(self.hours.setdefault((stream.uid, hour), StreamCounts()), seen)


async def change_something(client: StreamClient, chance: random.Random, name: str) -> None:
    """One of what changes a stream; some of it is refused, in passing."""
    hours = {"StreamName": name, "RetentionPeriodHours": chance.randrange(24, 48)}
    arn = f"arn:aws:kinesis:{DEFAULT_REGION}:{DEFAULT_ACCOUNT}:stream/{name}"
    consumer = {"StreamARN": arn, "ConsumerName": chance.choice("xyz")}
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("IncreaseStreamRetentionPeriod", hours),
        ("DecreaseStreamRetentionPeriod", hours),
        ("RegisterStreamConsumer", consumer),
        ("DeregisterStreamConsumer", consumer),
        ("UpdateShardCount", {"StreamName": name, "TargetShardCount": chance.randrange(1, 5),
                              "ScalingType": "UNIFORM_SCALING"}),
        ("CreateStream", {"StreamName": name, "ShardCount": 2}),
        ("DeleteStream", {"StreamName": name, "EnforceConsumerDeletion": True}),
        ("UpdateStreamMode", {"StreamARN": arn, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}),
    ]  # fmt: skip
    operation, request = chance.choice(wanted)
    with suppress(ServiceError):
        await client.call(operation, request)


@pytest.mark.parametrize("delay_ms", [0, 15_000])
async def test_as_if_every_stream_were_looked_at_with_every_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay_ms: int
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    clock = ManualClock(START_MS)
    async with (
        server_here(tmp_path / "data", clock, state_delay_ms=delay_ms) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await server._metering.peaks_known.wait()
        always = Always(server, monkeypatch)
        for name in "abcdef":
            await client.call("CreateStream", {"StreamName": name, "ShardCount": 2})
        for _ in range(150):
            name = chance.choice("abcdef")
            match chance.randrange(4):
                case 0:
                    with suppress(ServiceError):
                        await client.put_records(name, [PutEntry(b"x" * 100, "k")])
                case 1 | 2:
                    await change_something(client, chance, name)
                case 3:
                    await clock.advance(chance.choice([1, 7_000, 60_000, 1_000_000]))
        await clock.advance(20_000)
        here = DEFAULT_ACCOUNT, DEFAULT_REGION
        known = {one.uid for one in await server._metering.identities(*here, None)}
        found: dict[tuple[str, int], StreamCounts] = {}
        server._metering.look_at(known)
        last_hour = clock.now_ms() // HOUR_MS
        for uid in known:
            hours = await server._metering.keeper.hours(uid, 0)
            found |= {(uid, hour): counts for hour, counts in hours.items()}
        assert len(found) >= 6
        assert found.keys() >= always.hours.keys()
        for key, counts in found.items():
            # a minute's peaks may be those of a stream that is gone
            expected = always.hours.get(key, StreamCounts())
            for name in ("shard_seconds", "consumer_shard_seconds"):
                assert getattr(counts, name) == pytest.approx(getattr(expected, name), abs=0.01)
            for name in ("shards", "consumers", "retention_hours", "mode"):
                assert getattr(counts, name) == getattr(expected, name), (key, name)
            slack = 0 if key[1] == last_hour else MARK_BYTES
            assert abs(counts.stored_bytes - expected.stored_bytes) <= slack


@contextmanager
def looks(monkeypatch: pytest.MonkeyPatch, server: Server) -> Iterator[list[str]]:
    """The names of the streams that are looked at meanwhile."""
    looked: list[str] = []
    look_at = StreamWatch._look_at

    def noted(watch: StreamWatch, uid: str, pending: UsageBatch) -> None:
        opened = server._catalog.opened_by_uid(uid)
        looked.extend([] if opened is None else [opened.stream.name])
        look_at(watch, uid, pending)

    with monkeypatch.context() as patch:
        patch.setattr(StreamWatch, "_look_at", noted)
        yield looked


async def test_quiet_streams_are_left_alone_for_five_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(START_MS)
    async with (
        server_here(tmp_path / "data", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await server._metering.peaks_known.wait()
        for name in "abcd":
            await client.ensure_stream(name, shards=1)
            await client.put_records(name, [PutEntry(b"x", "k")])
        for _ in range(3):
            await clock.advance(10_000)
        with looks(monkeypatch, server) as looked:
            await client.put_records("d", [PutEntry(b"x", "k")])
            for _ in range(3):
                await clock.advance(10_000)
            assert looked == ["d", "d"]  # once more: the log's mark comes a moment later
            looked.clear()
            for _ in range(20):
                await client.put_records("a", [PutEntry(b"x", "k")])
                await clock.advance(10_000)
            assert set(looked) == {"a"}
            await client.call("DeleteStream", {"StreamName": "b"})
            assert set(looked) == {"a", "b"}
            for _ in range(12):
                await client.put_records("a", [PutEntry(b"x", "k")])
                await clock.advance(10_000)
            assert (looked.count("c"), looked.count("d")) == (1, 1)


async def test_a_stream_that_was_trimmed_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(START_MS)
    async with (
        server_here(tmp_path / "data", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await server._metering.peaks_known.wait()
        for name in "ab":
            await client.ensure_stream(name, shards=1)
        await client.put_records("a", [PutEntry(b"x", "k")])
        clock.step_wall(10 * HOUR_MS)
        await client.put_records("a", [PutEntry(b"x", "k")])  # the last of its segment
        clock.step_wall(30 * HOUR_MS)
        for _ in range(3):
            server._metering.tick()
        with looks(monkeypatch, server) as looked:
            server._metering.tick()
            assert looked == []
            await Expiry(server._catalog).run()
            server._metering.tick()
            assert looked == ["a"]


async def test_a_stream_that_had_to_wait_for_room_counts_from_then_on(tmp_path: Path) -> None:
    """Without anybody putting to it, reading it, changing it or asking."""
    clock, files = ManualClock(START_MS), FaultyFiles()
    async with (
        server_here(tmp_path / "data", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        await client.ensure_stream("s", shards=1)
    files.fail_always("open_append", no_space)
    async with server_here(tmp_path / "data", clock, files=files) as server:
        await server._metering.peaks_known.wait()
        await clock.advance(600_000)
        assert server._catalog.refused().keys() == {"s"}
        files.heal()
        async with asyncio.timeout(20):
            while server._catalog.refused():
                await clock.advance(1000)
        (uid,) = server._catalog._open
        served_ms = clock.now_ms()
        await clock.advance(600_000)
        assert uid in server._metering._watch._looks
        server._metering.look_at([uid])
        hours = await server._metering.keeper.hours(uid, 0)
        seconds = sum(counts.shard_seconds for counts in hours.values())
        # from the tick before, which in a quiet server is five minutes ago at most
        assert 0 <= seconds - (clock.now_ms() - served_ms) / 1000 <= 300
