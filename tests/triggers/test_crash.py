"""Runners killed and stopped at every step: what they emit is there once, in order.

The oracle reads the output stream. Which invocations came to their end is told by the handler
itself, in a file.
"""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from headrace.core.client import StreamClient
from headrace.core.testing.server_process import ServerProcess
from headrace.triggers.testing import STEPS
from triggers_support import (
    COPY,
    Pipeline,
    assert_each_once_in_order,
    checkpoints,
    put_numbers,
    read_all,
    until,
    until_async,
)

pytestmark = pytest.mark.crash

#: From here on a batch is never invoked again.
SETTLED_STEPS = STEPS[STEPS.index("after_prepare") :]


async def until_drained(client: StreamClient, *, timeout_s: float = 60) -> None:
    """Until every record of `in` is behind a checkpoint."""
    last: dict[str, str] = {}
    for shard in await client.list_shards("in"):
        iterator = await client.get_shard_iterator("in", shard.shard_id, "TRIM_HORIZON")
        records = (await client.get_records(iterator)).records
        last[shard.shard_id] = records[-1].sequence_number

    async def is_drained() -> bool:
        return await checkpoints(client) == last

    await until_async(is_drained, timeout_s=timeout_s)


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step(
    pipeline: Pipeline, streams: StreamClient, step: str, nth: int
) -> None:
    """Scenario 34."""
    pipeline.write(batch={"size": 7})
    await put_numbers(streams, "in", 0, 60)
    runner = pipeline.start(fault=f"{step}:{nth}:KILL")
    assert await runner.wait() == -signal.SIGKILL
    pipeline.start()
    await until_drained(streams)
    assert_each_once_in_order(await read_all(streams, "out"), 60)
    again = len(pipeline.seen) - 60
    # The other shard may have had a batch in hand as well.
    assert 0 <= again <= (14 if step not in SETTLED_STEPS else 7)


@pytest.mark.parametrize("step", SETTLED_STEPS)
async def test_a_batch_killed_after_it_was_prepared_is_not_run_again(
    pipeline: Pipeline, client: StreamClient, step: str
) -> None:
    await client.ensure_stream("in", shards=1)
    await client.ensure_stream("out", shards=2)
    pipeline.write(batch={"size": 7})
    await put_numbers(client, "in", 0, 60)
    for nth in (2, 1, 3):
        runner = pipeline.start(fault=f"{step}:{nth}:KILL")
        assert await runner.wait() == -signal.SIGKILL
    pipeline.start()
    await until_drained(client)
    assert_each_once_in_order(await read_all(client, "out"), 60)
    assert pipeline.seen == list(range(60))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))]
)
async def test_killed_at_any_time(
    pipeline: Pipeline, streams: StreamClient, server: ServerProcess, seed: int
) -> None:
    """Scenario 34: twelve lives of random length while records arrive; now and then the handler
    takes its process down, or the stream is killed as well."""
    chance = random.Random(seed)
    crashing = COPY.replace("numbers = []", "import random; numbers = []").replace(
        "    with open", "    if random.random() < 0.1: os._exit(1)\n    with open"
    )
    pipeline.write(crashing, batch={"size": 5}, retries="forever")
    count = 0
    for _ in range(12):
        runner = pipeline.start()
        for _ in range(3):
            await put_numbers(streams, "in", count, count + 10)
            count += 10
            await asyncio.sleep(chance.uniform(0.0, 0.5))
        if chance.random() < 0.25:
            server.kill()
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            runner.kill()
            server.start()
        else:
            runner.kill()
    pipeline.start()
    await until_drained(streams)
    assert_each_once_in_order(await read_all(streams, "out"), count)
    assert set(pipeline.seen) == set(range(count))


@pytest.mark.parametrize("step", SETTLED_STEPS)
async def test_a_dead_letter_is_written_once_and_its_batch_not_run_again(
    pipeline: Pipeline, client: StreamClient, step: str
) -> None:
    await client.ensure_stream("in", shards=1)
    await client.ensure_stream("out", shards=1)
    source = COPY + "    if numbers[0] % 4 == 1:\n        raise ValueError(numbers)\n"
    pipeline.write(source, batch={"size": 1}, retries=0)
    await put_numbers(client, "in", 0, 12)
    for nth in (2, 2):
        runner = pipeline.start(fault=f"{step}:{nth}:KILL")
        assert await runner.wait() == -signal.SIGKILL
    pipeline.start()
    await until_drained(client)
    good = sorted(int(record.data) for record in await read_all(client, "out"))
    assert good == [n for n in range(12) if n % 4 != 1]
    assert len(pipeline.letters) == 3
    assert pipeline.seen == list(range(12))


@pytest.mark.parametrize("step", ["after_invoke", "after_prepare", "after_send"])
async def test_a_runner_stopped_past_its_lease_is_fenced(
    pipeline: Pipeline, client: StreamClient, step: str
) -> None:
    """Scenario 36: it wakes up with a batch in hand that somebody else has done."""
    await client.ensure_stream("in", shards=1)
    await client.ensure_stream("out", shards=2)
    pipeline.write(batch={"size": 7})
    await put_numbers(client, "in", 0, 60)
    stopped = pipeline.start(data="first", fault=f"{step}:3:STOP")
    await until(lambda: stopped.is_stopped)
    pipeline.start(data="second")
    await until_drained(client)
    done = await checkpoints(client)
    stopped.signal(signal.SIGCONT)
    await until(lambda: "stopped working on in/" in stopped.log_text)
    await stopped.terminate()
    assert_each_once_in_order(await read_all(client, "out"), 60)
    assert await checkpoints(client) == done
    again = len(pipeline.seen) - 60
    assert again == (7 if step == "after_invoke" else 0)
