"""The part: configuration, what `check` finds, refusal, and an end that takes bounded time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from headrace.core.client import StreamClient
from headrace.core.errors import DeliveryError
from headrace.core.model.records import PutEntry
from headrace.core.part import PartContext, StreamTarget
from headrace.core.producer import Producer
from headrace.core.testing.server_process import ServerProcess
from headrace.sinks import sink as sink_module
from headrace.sinks.config import SinkConfig
from headrace.sinks.part import SinksPart
from headrace.sinks.sink import application_name
from headrace.sinks.testing import Fault, FaultProxy
from headrace.sinks.testing.fault_proxy import s3_error
from sinks_support import Bucket, until

SECTION = TypeAdapter(list[SinkConfig])


def config(**values: Any) -> SinkConfig:
    return SinkConfig.model_validate({"stream": "access", "to": "./lake/access/", **values})


def make_part(sinks: list[SinkConfig], base: Path, target: StreamTarget) -> SinksPart:
    return SinksPart(sinks, PartContext(data=base / "data", base=base, target=target))


def test_defaults_are_those_of_the_documentation() -> None:
    made = config()
    assert made.buffer.size == 64 * 1024 * 1024 and made.buffer.interval == 60_000
    assert made.compression == "zstd" and made.format == "parquet"
    assert made.partition_by == ["!{timestamp:yyyy/MM/dd/HH}"]


def test_a_derived_name_is_stable_and_differs_by_stream_and_target() -> None:
    assert config().sink_name == config(to="lake/access").sink_name == "access-5157f503"
    names = {config(stream=s, to=t).sink_name for s in ("a", "b") for t in ("x", "y", "s3://xyz/")}
    assert len(names) == 6
    assert config(stream="s" * 128).sink_name.startswith("s" * 48 + "-")
    assert config(name="mine").sink_name == "mine"
    assert application_name(config(name="mine")) != application_name(config(name="mine", to="x"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"to": "s3://B/x"}, "s3://bucket/prefix/"),
        ({"to": "ftp://x/"}, "a folder or s3://"),
        ({"s3": {"region": "x"}}, "target is a folder"),
        ({"to": "s3://bucket/", "s3": {"access_key_id": "x"}}, "give both"),
        ({"to": "s3://bucket/", "s3": {"endpoint": "localhost:9000"}}, "endpoint"),
        ({"name": "a/b"}, "name"),
        ({"compression": "lzo"}, "zstd"),
        ({"format": "orc"}, "parquet"),
        ({"buffer": {"size": 0}}, "size"),
        ({"buffer": {"interval": "0s"}}, "interval"),
        ({"buffer": {"interval": 60}}, "a duration with its unit"),
        ({"partition_by": ["!{timestamp:YYYY}"]}, "write yyyy"),
        ({"columns": {"x": "timestamp"}}, "int64"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_section_that_cannot_be_used_says_why(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**values)


def test_check_finds_sinks_in_each_others_way(tmp_path: Path) -> None:
    sinks = [
        config(),
        config(to="lake/../lake/access"),
        config(name="one", to="elsewhere"),
        config(name="one", to="elsewhere", stream="other"),
        config(to="fine"),
    ]
    findings = SinksPart.check(sinks, base=tmp_path, streams=["access"])
    assert [(f.loc, f.is_error) for f in findings] == [
        ((1, "to"), True),
        ((3, "stream"), False),
        ((3, "to"), True),
    ]
    assert "same target and stream" in findings[0].message
    assert SinksPart.check([config()], base=tmp_path, streams=None) == []


def test_the_part_brings_the_verb_verify() -> None:
    app = SinksPart.commands()
    assert app is not None and [c.name for c in app.registered_commands] == ["verify"]


async def test_when_no_sink_can_run_the_part_fails_with_the_reason(
    bucket: Bucket, tmp_path: Path
) -> None:
    async with FaultProxy(bucket.endpoint) as proxy:
        body = s3_error("NotImplemented")
        proxy.add(Fault("answer", lambda m, p: "probe" in p, None, status=501, body=body))
        s3 = {"endpoint": proxy.endpoint, "access_key_id": "x", "secret_access_key": "x"}
        part = make_part([config(to=bucket.url, s3=s3)], tmp_path, StreamTarget())
        with pytest.raises(DeliveryError, match="NotImplemented"):
            await asyncio.wait_for(part.run(), 20)
        assert any("does not run" in problem for problem in part.health().problems)


async def test_a_declared_column_that_files_have_otherwise_is_refused(
    server: ServerProcess, client: StreamClient, tmp_path: Path
) -> None:
    await client.ensure_stream("access", shards=1)
    first = make_part(
        [config(columns={"ms": "double"}, buffer={"interval": "200ms"})], tmp_path, server.target
    )
    running = asyncio.create_task(first.run())
    await Producer(client, "access").put_batch([PutEntry(b'{"ms":1}', "k")])
    await until(lambda: first.health().figures["rows"] == 1)
    await first.stop()
    await running
    second = make_part([config(columns={"ms": "string"})], tmp_path, server.target)
    with pytest.raises(DeliveryError, match="ms is to be string"):
        await asyncio.wait_for(second.run(), 20)


async def test_stopping_while_the_store_is_away_takes_bounded_time(
    server: ServerProcess,
    client: StreamClient,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_module, "DRAIN_MS", 1500)
    await client.ensure_stream("access", shards=2)
    async with FaultProxy(bucket.endpoint) as proxy:
        s3 = {"endpoint": proxy.endpoint, "access_key_id": "x", "secret_access_key": "x"}
        sinks = [config(to=bucket.url, s3=s3, buffer={"interval": "200ms"})]
        part = make_part(sinks, tmp_path, server.target)
        running = asyncio.create_task(part.run())
        await Producer(client, "access").put_batch([PutEntry(b"{}", str(i)) for i in range(50)])
        await until(lambda: part.health().figures["rows"] == 50)
        fault = proxy.add(Fault("answer", times=None, status=503, body=s3_error("SlowDown")))
        await Producer(client, "access").put_batch([PutEntry(b"{}", str(i)) for i in range(50)])
        await until(lambda: fault.hits > 2 and part.health().problems)
        started = time.monotonic()
        await part.stop()
        await running
        assert time.monotonic() - started < 15  # not DRAIN_MS as it is, 20 s
        fault.times = 0
        again = make_part(sinks, tmp_path, server.target)
        running = asyncio.create_task(again.run())
        await until(lambda: again.health().figures["rows"] == 50)
        await again.stop()
        await running


async def test_a_part_stopped_before_its_store_answered_ends(tmp_path: Path) -> None:
    s3 = {"endpoint": "http://127.0.0.1:9", "access_key_id": "x", "secret_access_key": "x"}
    part = make_part([config(to="s3://bucket/", s3=s3)], tmp_path, StreamTarget())
    running = asyncio.create_task(part.run())
    await until(lambda: part.health().problems)
    await asyncio.wait_for(part.stop(), 20)
    await asyncio.wait_for(running, 20)
