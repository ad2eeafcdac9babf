"""`verify` says what is there, and finds whatever is done to it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace.core.errors import DeliveryError
from headrace.sinks.commands import app
from headrace.sinks.stores.local import LocalStore
from headrace.sinks.testing import ScriptedShard, make_records
from headrace.sinks.verify import Report, verify
from sinks_support import Bucket, deliver, sink_config

SHARD = "shardId-000000000000"


@pytest.fixture
async def lake(tmp_path: Path) -> Path:
    """Two shards, several plans each."""
    for number in range(2):
        data = [json.dumps({"id": i}).encode() for i in range(400)]
        shard = ScriptedShard(
            make_records(data, shard=number), shard_id=f"shardId-{number:012d}", batch_records=50
        )
        await deliver(sink_config("lake", buffer={"size": 1000}), tmp_path, shard)
    return tmp_path / "lake"


async def look(lake: Path) -> Report:
    return await verify(LocalStore(lake))


def files(lake: Path, pattern: str = "*.parquet") -> list[Path]:
    return sorted(lake.rglob(pattern))


async def test_all_is_proven(lake: Path) -> None:
    progress: list[tuple[int, int]] = []
    report = await verify(LocalStore(lake), progress=lambda *at: progress.append(at))
    assert report.is_proven
    assert (report.rows, len(report.shards)) == (800, 2)
    assert report.files == len(files(lake)) > 4
    assert progress[-1] == (report.files, report.files)
    assert report.shards[0].stream == "access"


async def test_a_missing_file_is_found(lake: Path) -> None:
    files(lake)[1].unlink()
    report = await look(lake)
    assert not report.is_proven and "is missing" in report.shards[0].problems[0]


async def test_a_changed_byte_is_found(lake: Path) -> None:
    data = bytearray(files(lake)[0].read_bytes())
    data[100] ^= 1
    files(lake)[0].write_bytes(data)
    report = await look(lake)
    assert "bytes have changed" in report.shards[0].problems[0]


async def test_a_file_copied_beside_is_found(lake: Path) -> None:
    shutil.copy(files(lake)[0], lake / "copy.parquet")
    report = await look(lake)
    assert report.foreign == ["copy.parquet"] and not report.is_proven


async def test_a_file_of_somebody_else_is_found(lake: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), lake / "other.parquet")
    assert (await look(lake)).foreign == ["other.parquet"]
    only = await verify(LocalStore(lake), sink="access")
    assert only.is_proven, "files of others are not this sink's business"


async def test_a_removed_plan_is_found(lake: Path) -> None:
    files(lake, "000000000002.plan")[0].unlink()
    report = await look(lake)
    assert any("plan 2 is missing" in text for text in report.shards[0].problems)
    assert report.foreign, "its file is now nobody's"


async def test_a_removed_done_entry_is_found(lake: Path) -> None:
    files(lake, "000000000002.done")[0].unlink()
    report = await look(lake)
    assert any("no done entry" in text for text in report.shards[0].problems)


async def test_a_plan_under_way_is_no_problem(lake: Path) -> None:
    files(lake / "_sink" / "access" / SHARD, "*.done")[-1].unlink()
    report = await look(lake)
    assert report.is_proven and report.shards[0].unfinished == 1


async def test_a_loss_is_told(tmp_path: Path) -> None:
    shard = ScriptedShard(make_records([b"{}"] * 20))
    await deliver(sink_config("lake"), tmp_path, shard)
    later = ScriptedShard(shard.records + make_records([b"{}"] * 20, first_index=21))
    later.checkpoint = shard.records[-1].sequence_number
    later = later.restart()
    later.expire(30)
    await deliver(sink_config("lake"), tmp_path, later)
    report = await look(tmp_path / "lake")
    assert not report.is_proven and report.shards[0].problems == []
    (text,) = report.shards[0].lost
    assert shard.records[-1].sequence_number in text


async def test_a_target_without_a_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="no plan log"):
        await look(tmp_path)


def test_the_command_prints_for_people_and_for_programs(lake: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, [str(lake)])
    assert result.exit_code == 0 and "800 rows: every record once" in result.stdout
    result = runner.invoke(app, [str(lake), "--json"])
    assert json.loads(result.stdout)["proven"] is True
    files(lake)[0].unlink()
    result = runner.invoke(app, [str(lake)])
    assert result.exit_code == 1 and "NOT every record once" in result.stdout
    result = runner.invoke(app, [str(lake / "nowhere")])
    assert result.exit_code == 2 and result.stdout == ""


async def test_a_bucket_is_verified_with_keys_of_the_environment(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ScriptedShard(make_records([b"{}"] * 50))
    await deliver(sink_config(bucket.url, s3=bucket.config), tmp_path, shard)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    arguments = [bucket.url, "--endpoint", bucket.endpoint, "--region", "us-east-1"]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0, result.output
    assert "50 rows: every record once" in result.stdout
