"""A real agent process against a real server: killed, cut off, refused, and nothing is missing.

The oracle reads the log files themselves and the stream through a plain client.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from agent_support import AgentProcess, BusyLogs, Log, lines_of, reckon
from client_support import read_all, until
from headrace.core.client import StreamClient
from headrace.core.testing.faulty_proxy import (
    CUT_REPLY,
    DROP_REPLY,
    ERROR_500,
    RESET,
    THROTTLE_SOME,
    FaultyProxy,
)
from headrace.core.testing.server_process import ServerProcess

SEED = int(os.environ.get("HEADRACE_SEED", str(time.time_ns() % 1_000_000)))
KILLS = int(os.environ.get("HEADRACE_AGENT_KILLS", "8"))


@pytest.fixture
async def stream(client: StreamClient) -> AsyncIterator[StreamClient]:
    """The stream `lines`, of four shards."""
    await client.ensure_stream("lines", shards=4)
    print(f"HEADRACE_SEED={SEED}")
    yield client


async def stored(client: StreamClient) -> Counter[bytes]:
    return Counter(record.data for shard in await read_all(client, "lines") for record in shard)


async def until_all_is_shipped(
    client: StreamClient, written: Counter[bytes], *, within_s: float = 60
) -> None:
    deadline = time.monotonic() + within_s
    while (  # noqa: ASYNC110 - the agent is another process
        (await stored(client)).total() < written.total() and time.monotonic() < deadline
    ):
        await asyncio.sleep(0.3)
    assert reckon(written, await stored(client)) == "", f"HEADRACE_SEED={SEED}"


def _has_shipped_more(agent: AgentProcess, than_bytes: int) -> bool:
    return agent.shipped_bytes() > than_bytes


@pytest.mark.crash
async def test_killed_at_random_points_while_logs_rotate(
    tmp_path: Path, stream: StreamClient, server: ServerProcess
) -> None:
    chance = random.Random(SEED)
    agent = AgentProcess(tmp_path, server.endpoint, rotation_wait="1s", scan_interval="100ms")
    with BusyLogs(agent.logs, names=4, seed=SEED, lines_per_second=4000) as logs:
        for _ in range(KILLS):
            with agent:
                await asyncio.sleep(0.5 + chance.random() * 1.5)
            await asyncio.sleep(chance.random() * 0.5)
        logs.finish()
        assert logs.rotations > 0
    with agent:
        await until_all_is_shipped(stream, lines_of(agent.logs))
        assert agent.stop() == 0


async def test_answers_lost_connections_broken_records_refused(
    tmp_path: Path, stream: StreamClient, server: ServerProcess
) -> None:
    async with FaultyProxy(server.endpoint) as proxy:
        proxy.plan_random(
            [DROP_REPLY, CUT_REPLY, RESET, ERROR_500, THROTTLE_SOME(0.3, SEED)], 0.3, SEED
        )
        with AgentProcess(tmp_path, proxy.endpoint, rotation_wait="1s") as agent:
            with BusyLogs(agent.logs, names=3, seed=SEED, lines_per_second=2000):
                await asyncio.sleep(5)
                # a slow machine has made few requests by then
                await until(lambda: proxy.injected.total() > 10, within_s=60)
            await until_all_is_shipped(stream, lines_of(agent.logs))


async def test_order_within_a_file_survives_refused_records(
    tmp_path: Path, stream: StreamClient, server: ServerProcess
) -> None:
    log = Log(tmp_path / "logs" / "a.log")
    log.write_numbered(5000)
    async with FaultyProxy(server.endpoint) as proxy:
        proxy.plan_random([THROTTLE_SOME(0.1, SEED)], 0.5, SEED)
        with AgentProcess(tmp_path, proxy.endpoint, partition_by="file"):
            await until_all_is_shipped(stream, Counter(log.written))
    (records,) = [shard for shard in await read_all(stream, "lines") if shard]
    assert [record.data for record in records] == log.written


async def test_the_server_is_killed_and_comes_back(
    tmp_path: Path, stream: StreamClient, server: ServerProcess
) -> None:
    with AgentProcess(tmp_path, server.endpoint, rotation_wait="1s") as agent:
        with BusyLogs(agent.logs, names=3, seed=SEED, lines_per_second=2000):
            for _ in range(2):
                await asyncio.sleep(1.5)
                server.kill()
                await asyncio.sleep(1)
                server.start()
            await asyncio.sleep(1)
        await until_all_is_shipped(stream, lines_of(agent.logs))


async def test_an_orderly_end_under_load(
    tmp_path: Path, stream: StreamClient, server: ServerProcess
) -> None:
    agent = AgentProcess(tmp_path, server.endpoint)
    with BusyLogs(agent.logs, names=2, seed=SEED, lines_per_second=4000):
        for _ in range(3):
            with agent:
                before = agent.shipped_bytes()
                await until(partial(_has_shipped_more, agent, before))
                began = time.monotonic()
                assert agent.stop() == 0, agent.output
                assert time.monotonic() - began < 20
            assert "Traceback" not in agent.output
    stored_bytes = sum(len(line) + 1 for line in (await stored(stream)).elements())
    assert agent.shipped_bytes() == stored_bytes, "what was acknowledged is stored as that"
    with agent:
        await until_all_is_shipped(stream, lines_of(agent.logs))


async def test_a_stream_that_is_made_later(tmp_path: Path, client: StreamClient) -> None:
    log = Log(tmp_path / "logs" / "a.log")
    log.write_numbered(100)
    with AgentProcess(tmp_path, client.endpoint) as agent:
        async with asyncio.timeout(20):
            while "headrace streams create lines" not in agent.output:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await client.ensure_stream("lines", shards=1)
        await until_all_is_shipped(client, Counter(log.written))


async def test_two_agents_on_one_data_folder(
    tmp_path: Path, stream: StreamClient, server: ServerProcess
) -> None:
    log = Log(tmp_path / "logs" / "a.log")
    log.write_numbered(10)
    with AgentProcess(tmp_path, server.endpoint):
        await until_all_is_shipped(stream, Counter(log.written))
        second = AgentProcess(tmp_path, server.endpoint)
        second.start()
        assert second.process.wait(20) == 1
        assert "process" in second.output
