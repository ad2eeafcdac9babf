"""What several of the triggers' tests use."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import yaml

from headrace.core.client import StreamClient
from headrace.core.model.records import PutEntry, Record
from headrace.core.producer import Producer
from headrace.core.testing.server_process import ServerProcess
from headrace.triggers.function import FunctionError
from headrace.triggers.protocol import Emit, Invoke
from headrace.triggers.testing import FAULT_VARIABLE
from headrace.triggers.worker_pool import WorkerPool

WriteFunction = Callable[..., Path]
MakePool = Callable[..., WorkerPool]


async def until(condition: Callable[[], object], *, timeout_s: float = 40) -> None:
    """Wait for something another process or thread does."""

    async def is_so() -> object:
        return condition()

    await until_async(is_so, timeout_s=timeout_s)


async def until_async(condition: Callable[[], Awaitable[object]], *, timeout_s: float = 40) -> None:
    """The same for a condition that has to ask."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - nobody can set an Event from over there
            await asyncio.sleep(0.02)


def content(file: Path) -> str:
    """Of a file that may not be there yet."""
    return file.read_text() if file.exists() else ""


def whole_lines(file: Path) -> list[str]:
    """Of a file that another process may be writing a line to."""
    return content(file).split("\n")[:-1]


def exists(pid: int) -> bool:
    """Whether a process runs. A zombie nobody has looked at yet does nothing any more."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def read_all(client: StreamClient, stream: str) -> list[Record]:
    """Every record a stream holds now: shard by shard, parents first, each shard in order."""
    found: list[Record] = []
    for shard in sorted(await client.list_shards(stream), key=lambda shard: shard.shard_id):
        iterator: str | None = await client.get_shard_iterator(
            stream, shard.shard_id, "TRIM_HORIZON"
        )
        while iterator is not None:
            result = await client.get_records(iterator)
            found += result.records
            iterator = result.next_iterator if result.millis_behind_latest else None
    return found


async def put_numbers(
    client: StreamClient, stream: str, start: int, stop: int, *, keys: int = 8
) -> None:
    """Records `start`..`stop` - 1 as text, spread over `keys` partition keys."""
    producer = Producer(client, stream)
    async with asyncio.timeout(60):  # it would try for ever
        await producer.put_batch(
            [PutEntry(b"%d" % n, f"key-{n % keys}") for n in range(start, stop)]
        )


def assert_each_once_in_order(records: Sequence[Record], count: int) -> None:
    """The numbers below `count`, each once, rising within every partition key."""
    numbers = [int(record.data) for record in records]
    assert sorted(numbers) == list(range(count))
    last: dict[str, int] = {}
    for record in records:
        number = int(record.data)
        assert number > last.get(record.partition_key, -1), "out of order within a key"
        last[record.partition_key] = number


class RunnerProcess:
    """The triggers of a YAML file in a process of their own, to be killed at any moment."""

    def __init__(self, file: Path, endpoint: str, data: Path, *, fault: str | None = None) -> None:
        self._log = data.parent / f"{data.name}.log"
        environment = {**os.environ, **({FAULT_VARIABLE: fault} if fault else {})}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "headrace.triggers.testing", str(file)),
                    *("--endpoint", endpoint, "--data", str(data)),
                ],
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def log_text(self) -> str:
        return self._log.read_text()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_stopped(self) -> bool:
        """By SIGSTOP."""
        return ") T " in Path(f"/proc/{self._process.pid}/stat").read_text()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def wait(self, *, timeout_s: float = 60) -> int:
        """Its exit status."""
        await until(lambda: self.has_ended, timeout_s=timeout_s)
        return self._process.wait()

    async def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.wait()

    def kill(self) -> None:
        if not self.has_ended:
            self._process.kill()
        self._process.wait()


#: Emits every record it gets to the stream `out`, and notes what it got.
COPY = """
import base64, json, os
def handler(event, context):
    numbers = []
    for record in event["Records"]:
        data = base64.b64decode(record["kinesis"]["data"])
        numbers.append(int(data))
        context.emit("out", data, record["kinesis"]["partitionKey"])
    with open(os.path.dirname(__file__) + "/calls", "a") as file:
        file.write(json.dumps([event["Records"][0]["eventID"][:20], numbers]) + "\\n")
"""


class Pipeline:
    """A folder with a YAML file and a function, and the runners started on it."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self.folder = folder
        self._server = server
        self._runners: list[RunnerProcess] = []
        folder.mkdir(exist_ok=True)

    def write(self, source: str = COPY, **trigger: object) -> None:
        (self.folder / "copier.py").write_text(textwrap.dedent(source))
        entry = {"function": "copier.py:handler", "stream": "in", **trigger}
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump({"triggers": [entry]}))

    def start(self, *, data: str = "data", fault: str | None = None) -> RunnerProcess:
        self._runners.append(
            RunnerProcess(
                self.folder / "pipeline.yaml",
                self._server.endpoint,
                self.folder / data,
                fault=fault,
            )
        )
        return self._runners[-1]

    @property
    def calls(self) -> list[tuple[str, list[int]]]:
        """Shard and numbers of every invocation that came to its end."""
        return [tuple(json.loads(line)) for line in whole_lines(self.folder / "calls")]

    @property
    def seen(self) -> list[int]:
        return [number for _, numbers in self.calls for number in numbers]

    @property
    def letters(self) -> list[Path]:
        return sorted(self.folder.glob("data/dead-letters/*/[!.]*"))

    def close(self) -> None:
        for runner in self._runners:
            runner.kill()


async def until_emitted(client: StreamClient, count: int, *, timeout_s: float = 80) -> None:
    async def is_emitted() -> bool:
        return len(await read_all(client, "out")) >= count

    await until_async(is_emitted, timeout_s=timeout_s)


async def until_held(client: StreamClient, count: int) -> None:
    """Until so many shards have an owner."""

    async def is_held() -> bool:
        return sum(bool(lease.get("Owner")) for lease in await leases(client)) >= count

    await until_async(is_held)


async def leases(client: StreamClient) -> list[dict[str, str]]:
    answer = await client.call(
        "ListLeases",
        {"ApplicationName": "trigger-copier-handler", "StreamName": "in"},
        extension=True,
    )
    return list(answer["Leases"])


async def checkpoints(client: StreamClient) -> dict[str, str]:
    return {lease["ShardId"]: lease.get("Checkpoint") or "" for lease in await leases(client)}


async def call(pool: WorkerPool, event: object = None, *, timeout_ms: int = 20_000) -> object:
    """Invoke with an event document, return what the handler returned."""
    request = Invoke("request-1", json.dumps(event).encode(), timeout_ms)
    answer, _ = await pool.invoke(request, on_start=lambda _version: None)
    return json.loads(answer.payload)


async def emits(pool: WorkerPool, event: object = None) -> list[Emit]:
    request = Invoke("request-1", json.dumps(event).encode(), 20_000)
    answer, _ = await pool.invoke(request, on_start=lambda _version: None)
    return answer.emits


async def failure(
    pool: WorkerPool, event: object = None, *, timeout_ms: int = 20_000
) -> FunctionError:
    with pytest.raises(FunctionError) as caught:
        await call(pool, event, timeout_ms=timeout_ms)
    return caught.value
