"""The document of usage is what is stored, added up; it is made and sent piece by piece."""

from __future__ import annotations

import json
import random
import threading
import urllib.request
from asyncio import to_thread
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.engine.embedded.usage_store import SqliteUsageStore
from headrace.core.limits import DEFAULT_ACCOUNT, DEFAULT_REGION
from headrace.core.model.shards import shard_id
from headrace.core.model.usage import (
    HOUR_MS,
    ConsumerCounts,
    Counts,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
    merge,
)
from headrace.core.part import StreamTarget
from headrace.core.service import usage_report
from headrace.core.service.caller import LocalCaller
from headrace.core.service.usage_document import page_text
from headrace.core.testing.manual_clock import ManualClock

NOW_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS + 600_000
THIS_HOUR = NOW_MS // HOUR_MS


def identity(name: str, region: str = DEFAULT_REGION) -> StreamIdentity:
    return StreamIdentity(f"u-{name}", DEFAULT_ACCOUNT, region, name, NOW_MS - 100 * HOUR_MS)


def random_counts(chance: random.Random, kind: type[msgspec.Struct]) -> Any:
    made = kind(*(chance.randrange(1000) for _ in kind.__struct_fields__))
    if isinstance(made, StreamCounts):
        made.shard_seconds, made.consumer_shard_seconds = chance.randrange(99) / 4, 0.5
        made.mode = chance.choice(["", "PROVISIONED", "ON_DEMAND"])
    return made


def added_up(kind: type[msgspec.Struct], hours: Iterable[msgspec.Struct]) -> dict[str, Any]:
    total = kind()
    for counts in hours:
        merge(total, counts)
    return msgspec.structs.asdict(total)


async def usage_of(client: StreamClient, **request: Any) -> list[Any]:
    answer = await client.call("DescribeUsage", request, extension=True)
    streams: list[Any] = answer["streams"]
    return streams


@pytest.mark.parametrize("run", range(3))
async def test_totals_are_what_the_hours_add_up_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: int
) -> None:
    """Of hours with gaps, some of which nobody looked in, over the borders of pages."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setattr(usage_report, "ROWS_AT_ONCE", chance.randrange(1, 100))
    monkeypatch.setattr(usage_report, "STREAMS_AT_ONCE", 2)
    store = SqliteUsageStore(tmp_path / "usage.sqlite")
    names = ["a", "b", "c", "d", "e"]
    everything = UsageBatch(1, {f"u-{name}": identity(name) for name in names})
    everything.identities["u-z"] = identity("z", "eu-west-1")
    for hour in range(THIS_HOUR - 30, THIS_HOUR + 1):
        for uid in everything.identities:
            if chance.random() < 0.8:
                everything.streams[hour, uid] = random_counts(chance, StreamCounts)
            for number in range(7):
                if chance.random() < 0.5:
                    everything.shards[hour, uid, number] = random_counts(chance, Counts)
            for consumer in ("é:1", "c:2", "c:10"):
                if chance.random() < 0.3:
                    sent = random_counts(chance, ConsumerCounts)
                    everything.consumers[hour, uid, consumer] = sent
    store.add(everything)
    since = THIS_HOUR - 20
    async with (
        server_here(tmp_path / "data", ManualClock(NOW_MS), usage_store=store) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        found = await usage_of(client, Hours=21)
        assert [one["stream"] for one in found] == names
        for one in found:
            uid = f"u-{one['stream']}"
            hours = {
                hour: counts
                for (hour, of), counts in sorted(everything.streams.items())
                if of == uid and hour >= since
            }
            assert one["total"] == added_up(StreamCounts, hours.values())
            (whole,) = await usage_of(client, StreamName=one["stream"], Hours=21)
            assert whole["total"] == one["total"]
            assert [hour["records_in"] for hour in whole["hours"]] == [
                counts.records_in for counts in hours.values()
            ]
            for part, name, kind, counted in (
                ("shards", "shard_id", Counts, everything.shards),
                ("consumers", "consumer", ConsumerCounts, everything.consumers),
            ):
                by_key: dict[Any, list[Any]] = {}
                for (hour, of, key), counts in sorted(counted.items()):
                    if of == uid and hour >= since:
                        by_key.setdefault(key, []).append(counts)
                keys = [shard_id(k) if isinstance(k, int) else k for k in sorted(by_key)]
                assert [member[name] for member in whole[part]] == keys
                for member, (_, of_key) in zip(whole[part], sorted(by_key.items()), strict=True):
                    assert member["total"] == added_up(kind, of_key)
                    for said, counts in zip(member["hours"], of_key, strict=True):
                        assert said | msgspec.structs.asdict(counts) == said


async def test_a_wide_stream_goes_out_in_pieces_made_in_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: set[int] = set()

    def noted(*args: Any) -> bytes:
        makers.add(threading.get_ident())
        return page_text(*args)

    monkeypatch.setattr(usage_report, "page_text", noted)
    store = SqliteUsageStore(tmp_path / "usage.sqlite")
    hours = range(THIS_HOUR - 9, THIS_HOUR + 1)
    store.add(
        UsageBatch(
            1,
            {"u-w": identity("w")},
            {(hour, "u-w"): StreamCounts(mode="ON_DEMAND") for hour in hours},
            {(hour, "u-w", n): Counts(records_in=n) for hour in hours for n in range(1200)},
        )
    )
    clock = ManualClock(NOW_MS)
    async with server_here(tmp_path / "data", clock, usage_store=store) as server:
        caller = LocalCaller(DEFAULT_ACCOUNT, DEFAULT_REGION)
        pieces = [piece async for piece in await server._metered.describe(caller, "w", 24)]
        (whole,) = json.loads(b"".join(pieces))["streams"]
        url = f"{server.endpoint}/usage?stream=w"
        over_http = await to_thread(lambda: urllib.request.urlopen(url).read())
    assert len(whole["shards"]) == 1200
    assert sum(len(shard["hours"]) for shard in whole["shards"]) == 12_000
    assert len(pieces) >= 6
    assert max(map(len, pieces)) < 1_500_000 < sum(map(len, pieces))
    assert makers and threading.get_ident() not in makers
    assert json.loads(over_http)["streams"] == [whole]
