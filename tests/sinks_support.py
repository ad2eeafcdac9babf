"""What the sinks' tests share: a bucket on a real HTTP server, ways to read what was written."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config
from pydantic import SecretStr

from headrace.core.clock import Clock, SystemClock
from headrace.core.model.records import Record
from headrace.core.troubles import Troubles
from headrace.sinks.config import S3Config, SinkConfig
from headrace.sinks.context import SinkContext
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.plan_log import PlanLog
from headrace.sinks.sink import open_store
from headrace.sinks.source import ShardSource
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.testing import ScriptedShard, make_records

LOG = logging.getLogger("headrace.sinks")
SHARD = "shardId-000000000000"


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own on a server that speaks S3."""

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}/lake/"

    @property
    def config(self) -> S3Config:
        return S3Config(
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id="test",
            secret_access_key=SecretStr("test"),
            session_token=None,
        )

    def boto3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(s3={"addressing_style": "path"}),
        )

    def object_keys(self) -> list[str]:
        client = self.boto3()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        client.close()
        return found


def sink_config(to: str, *, s3: S3Config | None = None, **values: Any) -> SinkConfig:
    """A sink that makes a file of every few records."""
    section = {"stream": "access", "to": to, "name": "access", "buffer": {"size": 2000}, **values}
    return SinkConfig.model_validate({**section, "s3": s3})


async def open_context(
    config: SinkConfig, base: Path, *, clock: Clock | None = None
) -> SinkContext:
    """What a sink's shards share, on an open store, without a stream."""
    used = clock or SystemClock()
    store = open_store(config, base)
    await store.open()
    context = SinkContext(config, store, clock=used, troubles=Troubles(LOG, used))
    await context.schemas.open()
    return context


async def deliver(config: SinkConfig, base: Path, shard: ShardSource) -> SinkContext:
    """Deliver all of a shard, as one life of a worker."""
    context = await open_context(config, base)
    try:
        await ShardDelivery(context, shard).run()
    finally:
        await context.store.close()
    return context


@dataclass
class Lake:
    """A target of either kind, with a handle of the test's own to look at it."""

    config: SinkConfig
    base: Path
    store: ObjectStore

    async def deliver(self, shard: ScriptedShard) -> None:
        await deliver(self.config, self.base, shard)

    def log(self) -> PlanLog:
        return PlanLog(self.store, self.config.sink_name, SHARD)


def records(count: int, first_index: int = 1) -> list[Record]:
    """Small JSON objects; their numbers in the shard begin with `first_index`."""
    data = [json.dumps({"id": i, "path": f"/{i}"}).encode() for i in range(count)]
    return make_records(data, first_index=first_index)


async def read_tables(store: ObjectStore) -> dict[str, pa.Table]:
    """Every Parquet file below the target, by key. Fails on one that cannot be read."""
    found = {}
    async for key in store.list_from(""):
        if key.endswith(".parquet"):
            data = await store.get(key)
            assert data is not None
            found[key] = pq.read_table(io.BytesIO(data))
    return found


async def assert_exactly(store: ObjectStore, expected: Mapping[str, Sequence[Record]]) -> None:
    """The oracle: each shard's sequence numbers are there, once each, and no others."""
    holders: dict[tuple[str, str], list[str]] = {}
    for key, table in (await read_tables(store)).items():
        shards = table.column("_shard_id").to_pylist()
        for row in zip(shards, table.column("_sequence_number").to_pylist(), strict=True):
            holders.setdefault(row, []).append(key)
    wanted = {(s, r.sequence_number) for s, records in expected.items() for r in records}
    missing, strange = sorted(wanted - holders.keys()), sorted(holders.keys() - wanted)
    twice = {row: keys for row, keys in holders.items() if len(keys) > 1}
    if missing or strange or twice:
        raise AssertionError(
            f"{len(missing)} missing: {missing[:3]}...{missing[-1:]}; {len(strange)} not of the "
            f"stream: {strange[:3]}; {len(twice)} more than once: {list(twice.items())[:3]}\n"
            + await _log_text(store)
        )


async def _log_text(store: ObjectStore) -> str:
    """The plan log in short, for whoever has to find out what went wrong."""
    lines = []
    async for key in store.list_from("_sink/"):
        if key.endswith((".plan", ".done")):
            entry = json.loads(await store.get(key) or b"{}")
            names = ("id", "plan", "state", "after", "first", "last", "records", "rows")
            said = {name: entry[name] for name in names if name in entry}
            lines.append(f"{key}: {said} {[file['key'] for file in entry.get('files', ())]}")
    return "\n".join(lines)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something another task does; fails after a while."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
