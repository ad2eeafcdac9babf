"""Every store keeps the same contract; what each does beyond it."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from headrace.core.errors import DeliveryError
from headrace.sinks.stores.local import LocalStore
from headrace.sinks.stores.probe import require_put_if_absent
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.stores.s3 import S3Store
from headrace.sinks.testing import check_object_store
from sinks_support import Bucket

MIB = 1024 * 1024


async def test_a_folder_keeps_the_contract(tmp_path: Path) -> None:
    async def make() -> ObjectStore:
        store = LocalStore(tmp_path / "not" / "there" / "yet")
        await store.open()
        return store

    await check_object_store(make)
    assert not list(tmp_path.rglob("*.tmp"))


async def test_a_folder_that_was_cleared_away_is_made_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await store.open()
    assert await store.put_if_absent("a/b/x", b"1", {})
    shutil.rmtree(tmp_path / "a")
    assert await store.put_if_absent("a/b/x", b"2", {})
    assert await store.get("a/b/x") == b"2"


async def test_a_bucket_keeps_the_contract(bucket: Bucket) -> None:
    async def make() -> ObjectStore:
        store = S3Store(bucket.url, bucket.config)
        await store.open()
        return store

    await check_object_store(make)
    assert all(key.startswith("lake/") for key in bucket.object_keys())


async def test_an_object_of_several_parts_is_put_only_if_absent(bucket: Bucket) -> None:
    store = S3Store(bucket.url, bucket.config, part_bytes=5 * MIB)
    await store.open()
    first, second = secrets.token_bytes(11 * MIB), secrets.token_bytes(11 * MIB)
    assert await store.put_if_absent("big", first, {"sha256": "one"})
    assert not await store.put_if_absent("big", second, {"sha256": "two"})
    assert await store.get("big") == first
    head = await store.head("big")
    assert head is not None and head.metadata["sha256"] == "one"
    client = bucket.boto3()
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket.name)
    client.close()
    await store.close()


async def test_uploads_that_were_cut_off_are_aborted(bucket: Bucket) -> None:
    client = bucket.boto3()
    for key in ("lake/a.parquet", "lake/a.parquet.other"):
        client.create_multipart_upload(Bucket=bucket.name, Key=key)
    store = S3Store(bucket.url, bucket.config)
    await store.open()
    await store.discard_partial("a.parquet")
    left = client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [upload["Key"] for upload in left] == ["lake/a.parquet.other"]
    client.close()
    await store.close()


@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_the_probe_passes_and_leaves_nothing(
    kind: str, tmp_path: Path, bucket: Bucket
) -> None:
    store: ObjectStore = (
        LocalStore(tmp_path / "lake") if kind == "folder" else S3Store(bucket.url, bucket.config)
    )
    await store.open()
    await require_put_if_absent(store, "_sink/x/probe")
    assert [key async for key in store.list_from("")] == []
    await store.close()


async def test_what_is_wrong_with_a_bucket_is_said_with_what_to_do(bucket: Bucket) -> None:
    store = S3Store("s3://no-such-bucket-here/x/", bucket.config)
    with pytest.raises(DeliveryError, match="create the bucket") as missing:
        await store.open()
    assert missing.value.retryable
    await store.close()
    away = bucket.config.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    store = S3Store(bucket.url, away)
    with pytest.raises(DeliveryError, match="wait in the stream") as unreachable:
        await store.open()
    assert unreachable.value.retryable
    await store.close()


async def test_a_secret_is_never_in_a_message(bucket: Bucket) -> None:
    config = bucket.config.model_copy(
        update={"endpoint": "http://127.0.0.1:9", "secret_access_key": SecretStr("hush-hush")}
    )
    store = S3Store(bucket.url, config)
    with pytest.raises(DeliveryError) as error:
        await store.open()
    assert "hush" not in str(error.value) and "hush" not in repr(config)
    await store.close()


async def test_a_folder_that_goes_away_is_not_made_again(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    store = LocalStore(root)
    await store.open()
    root.rmdir()
    with pytest.raises(DeliveryError, match="mount what it is on") as error:
        await store.put_if_absent("a/b", b"x", {})
    assert error.value.retryable
    with pytest.raises(DeliveryError):
        await store.get("a/b")
    assert not root.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_read_only_folder_is_waited_for(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DeliveryError, match="write permission") as error:
            await store.put_if_absent("a/b", b"x", {})
    finally:
        tmp_path.chmod(0o700)
    assert error.value.retryable
    assert await store.put_if_absent("a/b", b"x", {})


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/..", "a/./b", "a/"])
async def test_a_key_cannot_leave_the_root(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no object key"):
        await LocalStore(tmp_path).put_if_absent(key, b"x", {})
