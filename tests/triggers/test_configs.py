"""The example in configs/ is run as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from headrace.core.client import StreamClient
from headrace.core.model.records import PutEntry
from headrace.core.producer import Producer
from headrace.core.testing.server_process import ServerProcess
from headrace.triggers.config import TriggersConfig
from headrace.triggers.part import TriggersPart
from triggers_support import RunnerProcess, read_all, until, until_async

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_trigger_in_configs_checks_out() -> None:
    for file in CONFIGS.glob("*.yaml"):
        document = yaml.safe_load(file.read_text())
        if "triggers" in document:
            config = TypeAdapter(TriggersConfig).validate_python(document["triggers"])
            assert TriggersPart.check(config, base=CONFIGS, streams=None) == []


async def test_the_example(tmp_path: Path, server: ServerProcess, client: StreamClient) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    for stream in ("orders", "big-orders"):
        await client.ensure_stream(stream, shards=1)
    orders = [b'{"id": 1, "total": 5.0}', b'{"id": 2, "total": 1250.0}', b"no order at all"]
    await Producer(client, "orders").put_batch([PutEntry(order, "k") for order in orders])
    runner = RunnerProcess(
        tmp_path / "configs" / "triggers.yaml", server.endpoint, tmp_path / "data"
    )
    try:

        async def is_passed_on() -> bool:
            return len(await read_all(client, "big-orders")) == 1

        await until_async(is_passed_on)
        (record,) = await read_all(client, "big-orders")
        assert (json.loads(record.data)["id"], record.partition_key) == (2, "2")

        letters = tmp_path / "configs" / "dead-letters" / "big-orders"
        await until(lambda: letters.exists() and [*letters.glob("[!.]*")], timeout_s=30)
        (letter,) = letters.glob("[!.]*")
        assert (
            json.loads((letter / "document.json").read_text())["KinesisBatchInfo"]["batchSize"] == 1
        )
        assert "cannot read order" in (letter / "output.txt").read_text()
        assert await runner.terminate() == 0
    finally:
        runner.kill()
