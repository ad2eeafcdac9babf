"""The part in a pipeline's hands, and the example in configs/ as it is."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from client_support import read_all, until
from headrace.agent.config import AgentConfig
from headrace.agent.part import AgentPart
from headrace.core.client import StreamClient
from headrace.core.part import PartContext
from headrace.core.testing.server_process import ServerProcess

CONFIGS = Path(__file__).parents[2] / "configs"


def part(folder: Path, server: ServerProcess) -> AgentPart:
    config = AgentConfig.model_validate({"flows": [{"files": "a.log", "stream": "lines"}]})
    return AgentPart(config, PartContext(data=folder / "data", base=folder, target=server.target))


def start_agent(file: Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.pipeline", "agent", str(file)],
        env={**os.environ, **environment},
    )


async def test_health_tells_what_is_shipped_and_what_is_not(
    tmp_path: Path, server: ServerProcess, client: StreamClient
) -> None:
    agent = part(tmp_path, server)
    assert not agent.health().ok
    (tmp_path / "a.log").write_bytes(b"one\ntwo\nunfin")
    running = asyncio.create_task(agent.run())
    await until(lambda: any("no stream" in p or "lines" in p for p in agent.health().problems))
    assert agent.health().figures["lag_bytes"] == 13
    await client.ensure_stream("lines", shards=1)
    await until(lambda: agent.health().figures.get("lines_shipped") == 2)
    await until(lambda: agent.health().ok)
    figures = agent.health().figures
    assert (figures["bytes_shipped"], figures["lag_bytes"], figures["files_open"]) == (8, 5, 1)
    await agent.stop()
    await running


async def test_stopped_before_it_has_started(tmp_path: Path, server: ServerProcess) -> None:
    agent = part(tmp_path, server)
    await agent.stop()
    async with asyncio.timeout(10):
        await agent.run()


async def test_the_example_in_configs_runs_as_it_is(
    tmp_path: Path, server: ServerProcess, client: StreamClient
) -> None:
    for stream in ("access", "app", "app-odd-lines"):
        await client.ensure_stream(stream, shards=1)
    shutil.copy(CONFIGS / "agent.yaml", tmp_path)
    logs = tmp_path / "logs"
    (logs / "app" / "noisy").mkdir(parents=True)
    (logs / "access.log").write_text(
        '::1 - - [22/Nov/2026:15:30:25 +0000] "GET / HTTP/1.1" 200 5 "-" "curl/8"\n'
    )
    (logs / "app" / "one.json").write_text('{"n": 1}\nodd\n')
    (logs / "app" / "noisy" / "two.json").write_text('{"n": 2}\n')
    (logs / "app" / "three.tmp.json").write_text('{"n": 3}\n')
    process = start_agent(
        tmp_path / "agent.yaml",
        HEADRACE_ENDPOINT=server.endpoint,
        HEADRACE_DATA=str(tmp_path / "data"),
    )
    try:
        async with asyncio.timeout(30):
            while not all(  # noqa: ASYNC110 - another process
                [(await read_all(client, name))[0] for name in ("access", "app", "app-odd-lines")]
            ):
                await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    (access,) = (await read_all(client, "access"))[0]
    assert json.loads(access.data)["host"] == "::1"
    assert [record.data for record in (await read_all(client, "app"))[0]] == [b'{"n": 1}']
    (odd,) = (await read_all(client, "app-odd-lines"))[0]
    assert json.loads(odd.data)["raw"] == "odd"
