"""The stream as a part: declared streams are made true, and what is refused is said."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from headrace.core.access_key import AccessKey
from headrace.core.client import StreamClient
from headrace.core.errors import HeadraceError
from headrace.core.part import PartContext
from headrace.core.stream_part import StreamPart, ensure_declared
from headrace.core.stream_section import StreamSection, StreamSpec
from headrace.core.testing.ports import free_port


def spec(**fields: Any) -> StreamSpec:
    return StreamSpec.model_validate(fields)


async def summary(client: StreamClient, name: str) -> dict[str, Any]:
    answer = await client.call("DescribeStreamSummary", {"StreamName": name})
    found: dict[str, Any] = answer["StreamDescriptionSummary"]
    return found


async def test_creates_what_is_missing(client: StreamClient) -> None:
    await ensure_declared(client, "web", spec(mode="provisioned", shards=3, retention="7d"))
    found = await summary(client, "web")
    assert found["OpenShardCount"] == 3
    assert found["RetentionPeriodHours"] == 168
    assert found["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}


async def test_changes_what_differs_and_nothing_else(client: StreamClient) -> None:
    await ensure_declared(client, "web", spec(mode="provisioned", shards=2))
    before = await client.list_shards("web")

    await ensure_declared(client, "web", spec(mode="provisioned", shards=2, retention="48h"))
    assert (await summary(client, "web"))["RetentionPeriodHours"] == 48
    assert await client.list_shards("web") == before

    await ensure_declared(client, "web", spec(mode="provisioned", shards=2, retention="24h"))
    assert (await summary(client, "web"))["RetentionPeriodHours"] == 24


async def test_changes_shard_count_and_mode(client: StreamClient) -> None:
    await ensure_declared(client, "web", spec(mode="provisioned", shards=2))
    await ensure_declared(client, "web", spec(mode="provisioned", shards=4))
    assert (await summary(client, "web"))["OpenShardCount"] == 4

    await ensure_declared(client, "web", spec(mode="on-demand"))
    assert (await summary(client, "web"))["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}

    await ensure_declared(client, "web", spec(mode="provisioned", shards=2))
    found = await summary(client, "web")
    assert found["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert found["OpenShardCount"] == 2


def make_part(folder: Path, **fields: Any) -> StreamPart:
    section = StreamSection.model_validate({"listen": f"127.0.0.1:{free_port()}", **fields})
    return StreamPart(section, PartContext(data=folder, base=folder, target=section.target()))


async def until_ready(part: StreamPart, running: asyncio.Task[None]) -> None:
    async with asyncio.timeout(20):
        while not part.health().ok and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    if running.done():
        running.result()


async def test_the_part_serves_the_declared_streams_with_its_keys(tmp_path: Path) -> None:
    streams = {"access": None, "alerts": {"mode": "provisioned", "shards": 1}}
    part = make_part(tmp_path, streams=streams, keys={"AKID": "hunter2"})
    running = asyncio.create_task(part.run())
    await until_ready(part, running)

    async with StreamClient(part.context.target) as client:
        answer = await client.call("ListStreams", {})
        assert answer["StreamNames"] == ["access", "alerts"]
    await part.stop()
    await running
    assert not part.health().ok


def test_keys_with_an_account_and_without() -> None:
    section = StreamSection.model_validate(
        {"keys": {"A": {"secret": "hunter2", "account": 111122223333}, "B": "two"}}
    )
    assert section.access_keys() == {
        "A": AccessKey("hunter2", "111122223333"),
        "B": AccessKey("two", "123456789012"),
    }
    assert section.target().secret_access_key == "hunter2"
    assert "hunter2" not in repr(section)


async def test_what_is_refused_is_reported_and_the_rest_is_done(tmp_path: Path) -> None:
    part = make_part(tmp_path, streams={"web": {"mode": "provisioned", "shards": 1}})
    running = asyncio.create_task(part.run())
    await until_ready(part, running)
    await part.stop()
    await running

    # Ten times the shards at once is more than the service does, within its limits.
    wanted = {"web": {"mode": "provisioned", "shards": 10, "retention": "48h"}, "more": None}
    part = make_part(tmp_path, limits="aws", streams=wanted)
    running = asyncio.create_task(part.run())
    await until_ready(part, running)
    problems = part.health().problems
    async with StreamClient(part.context.target) as client:
        assert len(await client.list_shards("more")) > 0
        assert len(await client.list_shards("web")) == 1
        assert (await summary(client, "web"))["RetentionPeriodHours"] == 48
    await part.stop()
    await running
    assert len(problems) == 1
    assert "the stream web is not as declared: UpdateShardCount was refused" in problems[0]


async def test_an_address_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        part = make_part(tmp_path, listen=f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(HeadraceError, match="cannot listen on 127"):
            await part.run()
