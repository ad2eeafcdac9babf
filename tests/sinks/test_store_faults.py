"""The store misbehaves while a worker runs: it waits, says so, loses nothing and goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from headrace.core.model.records import Record
from headrace.core.retry import Backoff
from headrace.sinks.context import SinkContext
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.stores import s3
from headrace.sinks.stores.probe import require_put_if_absent
from headrace.sinks.stores.s3 import S3Store
from headrace.sinks.testing import Fault, FaultProxy, ScriptedShard, make_records
from headrace.sinks.testing.fault_proxy import s3_error
from sinks_support import Bucket, assert_exactly, open_context, read_tables, sink_config, until

SHARD = "shardId-000000000000"


def records(count: int, first_index: int = 1) -> list[Record]:
    data = [json.dumps({"id": i, "path": f"/{i}"}).encode() for i in range(count)]
    return make_records(data, first_index=first_index)


@dataclass
class Bad:
    """A worker whose way to the bucket leads through a proxy."""

    proxy: FaultProxy
    context: SinkContext
    clean: S3Store

    async def deliver(self, shard: ScriptedShard) -> None:
        await ShardDelivery(self.context, shard).run()

    async def assert_once(self, shard: ScriptedShard) -> None:
        await assert_exactly(self.clean, {SHARD: shard.records})
        assert self.context.troubles.current() == ()


@pytest.fixture
async def bad(bucket: Bucket, tmp_path: Path) -> AsyncIterator[Bad]:
    async with FaultProxy(bucket.endpoint) as proxy:
        config = bucket.config.model_copy(update={"endpoint": proxy.endpoint})
        context = await open_context(sink_config(bucket.url, s3=config), tmp_path)
        context.backoff = Backoff(initial_ms=10, max_ms=50)
        clean = S3Store(bucket.url, bucket.config)
        await clean.open()
        yield Bad(proxy, context, clean)
        await clean.close()
        await context.store.close()


def _is_put(*parts: str) -> Any:
    return lambda method, path: method in ("PUT", "POST") and all(part in path for part in parts)


@pytest.mark.parametrize("what", [".plan", ".parquet", ".done", "schema"])
async def test_a_put_whose_answer_is_lost_is_found_to_be_there(what: str, bad: Bad) -> None:
    fault = bad.proxy.add(Fault("lose-reply", _is_put(what), times=3))
    shard = ScriptedShard(records(300), batch_records=50)
    await bad.deliver(shard)
    assert fault.hits >= 1
    await bad.assert_once(shard)
    assert bad.context.figures.rows == 300, "what was put unheard is counted once"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (500, "InternalError"),
        (409, "ConditionalRequestConflict"),
        (403, "ExpiredToken"),
        (403, "InvalidAccessKeyId"),
        (403, "AccessDenied"),
        (400, "RequestTimeout"),
        (404, "NoSuchBucket"),
    ],
)
async def test_an_error_of_the_store_is_waited_out(status: int, code: str, bad: Bad) -> None:
    fault = bad.proxy.add(
        Fault("answer", _is_put("lake/"), times=None, status=status, body=s3_error(code))
    )
    shard = ScriptedShard(records(300), batch_records=50)
    running = asyncio.create_task(bad.deliver(shard))
    await until(lambda: fault.hits >= 3)
    (problem,) = bad.context.troubles.current()
    assert code in problem and "wait in the stream" in problem
    assert not running.done() and shard.saved == []
    fault.times = 0
    await running
    await bad.assert_once(shard)


async def test_the_connection_is_cut_in_the_middle_of_an_upload(bad: Bad) -> None:
    faults = [
        bad.proxy.add(Fault("reset", _is_put(".parquet"), after_bytes=n)) for n in (0, 100, 3000)
    ]
    shard = ScriptedShard(records(300), batch_records=50)
    await bad.deliver(shard)
    assert [fault.hits for fault in faults] == [1, 1, 1]
    await bad.assert_once(shard)


async def test_while_the_store_is_away_reading_stops_at_the_buffer(bad: Bad) -> None:
    away = bad.proxy.add(Fault("answer", times=None, status=503, body=s3_error("SlowDown")))
    shard = ScriptedShard(records(5000), batch_records=50)
    running = asyncio.create_task(bad.deliver(shard))
    await until(lambda: away.hits >= 5)
    reads = shard.read_count
    await until(lambda: away.hits >= 15)
    # one file being put, one buffer full, nothing more: 2,000 bytes each by this configuration
    assert shard.read_count == reads <= 8
    assert bad.context.budget.used_bytes < 1_000_000
    away.times = 0
    await running
    await bad.assert_once(shard)


async def test_half_of_all_requests_fail_in_every_way(bad: Bad) -> None:
    count = 0

    def every_second(method: str, path: str) -> bool:
        nonlocal count
        count += 1
        return count % 2 == 0

    kinds: list[Any] = ["lose-reply", "reset", "answer"] * 40
    for kind in kinds:
        bad.proxy.add(Fault(kind, every_second, body=s3_error("InternalError"), status=500))
    shard = ScriptedShard(records(400), batch_records=50)
    await bad.deliver(shard)
    await bad.assert_once(shard)


async def test_completing_a_multipart_upload_fails_in_every_way(
    bucket: Bucket, tmp_path: Path
) -> None:
    """500; 200 with an error inside; done but unheard: the object is there once and whole."""
    async with FaultProxy(bucket.endpoint) as proxy:
        config = bucket.config.model_copy(update={"endpoint": proxy.endpoint})
        store = S3Store(bucket.url, config, part_bytes=5 * 1024 * 1024)
        await store.open()
        data = os.urandom(11 * 1024 * 1024)
        when = lambda method, path: method == "POST" and "uploadId=" in path  # noqa: E731
        body = s3_error("InternalError")
        faults = [
            proxy.add(Fault("answer", when, status=500, body=body)),
            proxy.add(Fault("answer", when, status=200, body=body)),
            proxy.add(Fault("answer", when, status=503, body=s3_error("SlowDown"))),
            proxy.add(Fault("lose-reply", when)),
        ]
        outcomes: list[bool] = []
        for _ in range(6):
            try:
                outcomes.append(await store.put_if_absent("big", data, {}))
            except Exception as error:
                assert getattr(error, "retryable", False), error
        assert [fault.hits for fault in faults] == [1, 1, 1, 1]
        assert outcomes == [False, False], "made by the one whose answer was lost"
        assert await store.get("big") == data
        await store.discard_partial("big")
        client = bucket.boto3()
        assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket.name)
        client.close()
        await store.close()


async def test_renewed_credentials_are_taken_up_without_a_restart(
    bad: Bad, monkeypatch: pytest.MonkeyPatch, bucket: Bucket, tmp_path: Path
) -> None:
    """The default chain is asked again after the store has refused the old ones."""
    monkeypatch.setattr(s3, "RENEW_PAUSE_S", 0)
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id=OLD\naws_secret_access_key=x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    config = bucket.config.model_copy(
        update={
            "endpoint": bad.proxy.endpoint,
            "access_key_id": None,
            "secret_access_key": None,
        }
    )
    store = S3Store(bucket.url, config)
    await store.open()
    fault = bad.proxy.add(Fault("answer", times=None, status=403, body=s3_error("ExpiredToken")))
    with pytest.raises(Exception, match="renew the credentials"):
        await store.put_if_absent("x", b"1", {})
    credentials.write_text("[default]\naws_access_key_id=NEW\naws_secret_access_key=y\n")
    with pytest.raises(Exception, match="renew the credentials"):
        await store.put_if_absent("x", b"1", {})
    fault.times = 0
    assert await store.put_if_absent("x", b"1", {})
    assert "Credential=NEW/" in bad.proxy.last_headers["Authorization"]
    await store.close()


# -- stores that cannot keep the promise -----------------------------------------------------------


async def test_a_store_that_overwrites_is_refused(bucket: Bucket) -> None:
    """The proxy takes If-None-Match away, as servers that do not know it do."""

    class Forgetful(FaultProxy):
        async def _forward(self, request: Any, path: str) -> Any:
            headers = request.headers.copy()
            headers.popall("If-None-Match", None)
            return await super()._forward(request.clone(headers=headers), path)

    async with Forgetful(bucket.endpoint) as proxy:
        config = bucket.config.model_copy(update={"endpoint": proxy.endpoint})
        store = S3Store(bucket.url, config)
        await store.open()
        with pytest.raises(Exception, match=r"replaced an object.*If-None-Match") as error:
            await require_put_if_absent(store, "_sink/x/probe")
        assert not getattr(error.value, "retryable", True)
        assert [key async for key in store.list_from("")] == []
        await store.close()


async def test_a_store_that_loses_the_race_is_refused(bucket: Bucket) -> None:
    """It looks, waits, and then writes: one after the other it seems to keep the promise."""

    class Racy(S3Store):
        async def put_if_absent(self, key: str, data: bytes, metadata: Any) -> bool:
            if await self.head(key) is not None:
                return False
            await asyncio.sleep(0.2)
            await self._call("put_object", Bucket=self._bucket, Key=self._prefix + key, Body=data)
            return True

    store = Racy(bucket.url, bucket.config)
    await store.open()
    with pytest.raises(Exception, match="let 8 of 8 writers win"):
        await require_put_if_absent(store, "_sink/x/probe")
    await store.close()


async def test_a_store_that_does_not_know_the_condition_is_refused(bad: Bad) -> None:
    bad.proxy.add(
        Fault("answer", _is_put("probe"), times=None, status=501, body=s3_error("NotImplemented"))
    )
    with pytest.raises(Exception, match="NotImplemented") as error:
        await require_put_if_absent(bad.context.store, "_sink/x/probe")
    assert not getattr(error.value, "retryable", True)


# -- folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_a_folder_that_takes_no_more_is_waited_for(
    number: int, words: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the second plan on, at a write or only at the fsync."""
    context = await open_context(sink_config("lake"), tmp_path)
    context.backoff = Backoff(initial_ms=10, max_ms=50)
    shard = ScriptedShard(records(300), batch_records=50)
    original = getattr(os, call)
    failures = 0

    def full(descriptor: int, *rest: Any) -> Any:
        nonlocal failures
        if shard.saved and failures < 20:
            failures += 1
            raise OSError(number, os.strerror(number))
        return original(descriptor, *rest)

    monkeypatch.setattr(os, call, full)
    running = asyncio.create_task(ShardDelivery(context, shard).run())
    await until(lambda: failures >= 3)
    (problem,) = context.troubles.current()
    assert words in problem
    await running
    assert failures == 20
    await assert_exactly(context.store, {SHARD: shard.records})
    assert not list(tmp_path.rglob("*.tmp"))
    assert context.troubles.current() == ()


async def test_no_plan_is_left_when_the_disk_is_full_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = await open_context(sink_config("lake"), tmp_path)
    context.backoff = Backoff(initial_ms=10, max_ms=50)
    failures = 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal failures
        failures += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    shard = ScriptedShard(records(300), batch_records=50)
    running = asyncio.create_task(ShardDelivery(context, shard).run())
    await until(lambda: failures >= 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [path for path in (tmp_path / "lake").rglob("*") if path.is_file()] == []
    assert context.budget.used_bytes == 0


async def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = await open_context(sink_config("lake"), tmp_path)

    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    with pytest.raises(Exception, match=r"no hard links.*choose a folder") as error:
        await require_put_if_absent(context.store, "_sink/x/probe")
    assert not getattr(error.value, "retryable", True)
    assert not list(tmp_path.rglob("*.tmp"))


async def test_a_mount_that_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    context = await open_context(sink_config("lake"), tmp_path)
    context.backoff = Backoff(initial_ms=10, max_ms=50)
    shard = ScriptedShard(records(100), is_closed=False, batch_records=50)
    running = asyncio.create_task(ShardDelivery(context, shard).run())
    await until(lambda: shard.saved)
    (tmp_path / "lake").rename(tmp_path / "unmounted")
    shard.put(records(100, 101))
    shard.close()
    await until(lambda: context.troubles.current())
    (problem,) = context.troubles.current()
    assert "mount" in problem and not (tmp_path / "lake").exists()
    (tmp_path / "unmounted").rename(tmp_path / "lake")
    await running
    await assert_exactly(context.store, {SHARD: shard.records})
    assert len(await read_tables(context.store)) >= 2


def test_a_secret_does_not_print() -> None:
    config = sink_config(
        "s3://bucket/x/",
        s3={"access_key_id": "AKIA", "secret_access_key": SecretStr("hush-hush")},  # type: ignore[arg-type]
    )
    assert "hush" not in repr(config) and "hush" not in str(config.model_dump())
