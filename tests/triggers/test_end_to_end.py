"""Triggers on a real stream: what is emitted, where it resumes, what it waits for."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

from headrace.core.client import StreamClient
from headrace.core.model.records import PutEntry
from headrace.core.part import PartContext
from headrace.core.producer import Producer
from headrace.core.testing.server_process import ServerProcess
from headrace.triggers.config import TriggerConfig
from headrace.triggers.part import TriggersPart
from triggers_support import (
    COPY,
    Pipeline,
    assert_each_once_in_order,
    checkpoints,
    put_numbers,
    read_all,
    until,
    until_emitted,
    until_held,
)


class TestJourney:
    async def test_two_shards_are_copied_each_record_once_in_order(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 1."""
        pipeline.write(batch={"size": 10})
        await put_numbers(streams, "in", 0, 300)
        runner = pipeline.start()
        await until_emitted(streams, 300)
        assert await runner.terminate() == 0
        assert_each_once_in_order(await read_all(streams, "out"), 300)
        assert sorted(pipeline.seen) == list(range(300))
        assert max(len(numbers) for _, numbers in pipeline.calls) == 10
        last = {r.sequence_number for r in await read_all(streams, "in")}
        assert set((await checkpoints(streams)).values()) <= last

    async def test_after_a_restart_it_goes_on_from_its_checkpoint(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 38: also with `latest`, which says where to begin and not where to resume."""
        pipeline.write(start="latest")
        await put_numbers(streams, "in", 1000, 1010)  # before it began: not for it
        runner = pipeline.start()
        await until_held(streams, 2)
        await put_numbers(streams, "in", 0, 20)
        await until_emitted(streams, 20)
        assert await runner.terminate() == 0
        await put_numbers(streams, "in", 20, 40)
        runner = pipeline.start()
        await until_emitted(streams, 40)
        assert await runner.terminate() == 0
        assert_each_once_in_order(await read_all(streams, "out"), 40)
        assert len(pipeline.seen) == 40

    async def test_from_a_time_on(self, pipeline: Pipeline, streams: StreamClient) -> None:
        await put_numbers(streams, "in", 1000, 1010)
        await asyncio.sleep(1.1)
        pipeline.write(start=datetime.now(UTC).isoformat())
        await asyncio.sleep(0.1)
        await put_numbers(streams, "in", 0, 20)
        pipeline.start()
        await until_emitted(streams, 20)
        assert_each_once_in_order(await read_all(streams, "out"), 20)

    async def test_a_window_makes_one_batch(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 2: it ends when it is full, and when the window is over."""
        pipeline.write(batch={"size": 30, "window": "4s"})
        pipeline.start()
        await until_held(streams, 2)
        for start in range(0, 30, 10):
            await put_numbers(streams, "in", start, start + 10, keys=1)
            await asyncio.sleep(0.2)
        await until_emitted(streams, 30)
        await put_numbers(streams, "in", 30, 35, keys=1)
        await until_emitted(streams, 35)
        batches = [numbers for _, numbers in pipeline.calls]
        assert batches == [list(range(30)), list(range(30, 35))]

    async def test_new_code_takes_over_at_the_next_batch(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 24, for a file that is written over."""
        pipeline.write()
        pipeline.start()
        await put_numbers(streams, "in", 0, 10)
        await until_emitted(streams, 10)
        pipeline.write(COPY.replace("int(data)", "-int(data)"))
        await put_numbers(streams, "in", 10, 20)
        await until_emitted(streams, 20)
        assert_each_once_in_order(await read_all(streams, "out"), 20)
        assert {n for n in pipeline.seen if n < 0} == {-n for n in range(10, 20)}

    async def test_a_shard_that_fails_for_ever_holds_up_no_other(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 6."""
        failing = (await streams.list_shards("in"))[0].shard_id
        source = COPY.replace(
            "numbers = []",
            f"numbers = []; assert {failing!r} not in event['Records'][0]['eventID']",
        )
        pipeline.write(source, retries="forever")
        await put_numbers(streams, "in", 0, 100)
        runner = pipeline.start()
        others = [
            number
            for number in range(100)
            if int.from_bytes(md5(f"key-{number % 8}".encode()).digest(), "big") >= 2**127
        ]
        await until_emitted(streams, len(others))
        assert sorted(pipeline.seen) == others
        await until(lambda: "failed and will be repeated" in runner.log_text)
        assert (await checkpoints(streams))[failing] == ""

    async def test_sigterm_finishes_the_batch_in_hand(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 35."""
        slow = pipeline.folder / "slow"
        slow.touch()
        pipeline.write(
            COPY.replace(
                "numbers = []",
                "numbers = []; import time; time.sleep(0.5 * os.path.exists('slow'))",
            ).replace("'slow'", repr(str(slow))),
            batch={"size": 5},
        )
        await put_numbers(streams, "in", 0, 200)  # ten seconds and more of it
        runner = pipeline.start()
        await until(lambda: pipeline.calls)
        assert await runner.terminate() == 0
        done = len(pipeline.seen)
        assert done < 200
        assert len(await read_all(streams, "out")) == done
        slow.unlink()
        pipeline.start()
        await until_emitted(streams, 200)
        assert len(pipeline.seen) == 200  # nothing ran twice
        assert_each_once_in_order(await read_all(streams, "out"), 200)


class TestItemFailures:
    async def test_what_stems_from_records_not_done_is_dropped_with_them(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """The handler goes on after a failure, as many do, and emits for later records too."""
        source = """
            import base64, os
            def handler(event, context):
                failures = []
                for record in event["Records"]:
                    number = record["kinesis"]["sequenceNumber"]
                    data = base64.b64decode(record["kinesis"]["data"])
                    key = record["kinesis"]["partitionKey"]
                    flag = os.path.dirname(__file__) + "/tried-" + data.decode()
                    if int(data) % 7 == 3 and not os.path.exists(flag):
                        open(flag, "w").close()
                        failures.append({"itemIdentifier": number})
                        continue
                    context.emit("out", data, key, sequence_number=number)
                return {"batchItemFailures": failures}
            """
        pipeline.write(source, batch={"size": 20}, report_batch_item_failures=True)
        await put_numbers(streams, "in", 0, 60)
        pipeline.start()
        await until_emitted(streams, 60)
        await asyncio.sleep(0.3)
        assert_each_once_in_order(await read_all(streams, "out"), 60)
        assert pipeline.letters == []


class TestTargets:
    async def test_an_unknown_stream_is_waited_for(
        self, pipeline: Pipeline, client: StreamClient
    ) -> None:
        await client.ensure_stream("in", shards=1)
        pipeline.write()
        await put_numbers(client, "in", 0, 10)
        runner = pipeline.start()
        await until(lambda: pipeline.calls)
        await until(lambda: "cannot put what was emitted" in runner.log_text)
        await client.ensure_stream("out", shards=1)
        await until_emitted(client, 10)
        assert_each_once_in_order(await read_all(client, "out"), 10)
        assert len(pipeline.seen) == 10  # it was not run again for that

    async def test_an_unknown_source_is_waited_for(
        self, pipeline: Pipeline, client: StreamClient
    ) -> None:
        pipeline.write()
        runner = pipeline.start()
        await until(lambda: "create it with: headrace streams create in" in runner.log_text)
        await client.ensure_stream("out", shards=1)
        await client.ensure_stream("in", shards=1)
        await put_numbers(client, "in", 0, 10)
        await until_emitted(client, 10)

    async def test_a_record_its_target_never_takes_is_a_failed_attempt(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        pipeline.write(COPY.replace("data, record", "bytes(1048576), record"), retries=0)
        await put_numbers(streams, "in", 0, 1)
        pipeline.start()
        await until(lambda: pipeline.letters)
        history = json.loads((pipeline.letters[0] / "attempts.json").read_text())
        assert "1048581 bytes to 'out', which takes 1048576" in history["reason"]
        assert await read_all(streams, "out") == []

    async def test_its_own_source_is_refused(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 44."""
        pipeline.write(COPY.replace('"out"', '"in"'), retries=0)
        await put_numbers(streams, "in", 0, 1)
        pipeline.start()
        await until(lambda: pipeline.letters)
        assert (
            "the stream this trigger reads" in (pipeline.letters[0] / "traceback.txt").read_text()
        )
        assert len(await read_all(streams, "in")) == 1


class TestResharding:
    async def test_split_and_merge_while_consuming(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenarios 29 and 30: parents are done before children begin, per key in order."""
        pipeline.write(batch={"size": 5})
        await put_numbers(streams, "in", 0, 100, keys=20)
        pipeline.start()
        first, second = await streams.list_shards("in")
        await streams.call(
            "SplitShard",
            {
                "StreamName": "in",
                "ShardToSplit": first.shard_id,
                "NewStartingHashKey": str(first.hash_key_range.end // 2),
            },
        )
        await streams.wait_active("in")
        await put_numbers(streams, "in", 100, 200, keys=20)
        left = [shard for shard in await streams.list_shards("in") if shard.is_open]
        adjacent = sorted(left, key=lambda shard: shard.hash_key_range.start)[1:]
        assert second.shard_id == adjacent[-1].shard_id
        await streams.call(
            "MergeShards",
            {
                "StreamName": "in",
                "ShardToMerge": adjacent[0].shard_id,
                "AdjacentShardToMerge": adjacent[1].shard_id,
            },
        )
        await streams.wait_active("in")
        await put_numbers(streams, "in", 200, 300, keys=20)
        await until_emitted(streams, 300)
        records = await read_all(streams, "in")
        assert_each_once_in_order(records, 300)
        last: dict[int, int] = {}
        for number in pipeline.seen:  # one process, so the file tells the order of invocations
            assert number > last.get(number % 20, -1)
            last[number % 20] = number
        assert len(pipeline.seen) == 300

    async def test_a_closed_parent_that_was_never_read_is_read_first(
        self, pipeline: Pipeline, streams: StreamClient
    ) -> None:
        """Scenario 31."""
        await put_numbers(streams, "in", 0, 50)
        first = (await streams.list_shards("in"))[0]
        await streams.call(
            "SplitShard",
            {
                "StreamName": "in",
                "ShardToSplit": first.shard_id,
                "NewStartingHashKey": str(first.hash_key_range.end // 2),
            },
        )
        await streams.wait_active("in")
        await put_numbers(streams, "in", 50, 100)
        pipeline.write()
        pipeline.start()
        await until_emitted(streams, 100)
        assert len(pipeline.seen) == 100
        assert (await checkpoints(streams))[first.shard_id] == "SHARD_END"


class TestOutages:
    async def test_the_stream_is_killed_and_comes_back(
        self, pipeline: Pipeline, streams: StreamClient, server: ServerProcess
    ) -> None:
        pipeline.write(batch={"size": 5})
        runner = pipeline.start()
        for round_ in range(3):
            await put_numbers(streams, "in", round_ * 60, round_ * 60 + 60)
            await until(lambda: len(pipeline.seen) > 60 * round_ + 10)  # noqa: B023
            server.kill()
            await asyncio.sleep(0.3)
            server.start()
        await until_emitted(streams, 180)
        assert_each_once_in_order(await read_all(streams, "out"), 180)
        assert await runner.terminate() == 0

    async def test_sigterm_during_an_outage_ends_it_and_loses_nothing(
        self, pipeline: Pipeline, streams: StreamClient, server: ServerProcess
    ) -> None:
        pipeline.write(batch={"size": 5})
        runner = pipeline.start()
        await put_numbers(streams, "in", 0, 100)
        await until(lambda: len(pipeline.seen) > 20)
        server.kill()
        await asyncio.sleep(0.2)
        runner.signal(signal.SIGTERM)
        await runner.wait(timeout_s=30)
        server.start()
        pipeline.start()
        await until_emitted(streams, 100)
        assert_each_once_in_order(await read_all(streams, "out"), 100)


class TestHealth:
    async def test_figures_and_problems(
        self, tmp_path: Path, streams: StreamClient, server: ServerProcess
    ) -> None:
        (tmp_path / "copier.py").write_text(COPY)
        (tmp_path / "broken.py").write_text("def handler(event, context) pass\n")
        config = [
            TriggerConfig.model_validate({"function": f"{name}.py:handler", "stream": "in"})
            for name in ("copier", "broken")
        ]
        context = PartContext(data=tmp_path / "part", base=tmp_path, target=server.target)
        part = TriggersPart(config, context)
        running = asyncio.create_task(part.run())
        producer = Producer(streams, "in")
        await producer.put_batch([PutEntry(b"1", "k")])
        await until(lambda: part.health().figures["copier-handler.records"] == 1)
        paused = "broken-handler: paused: cannot load"
        await until(lambda: any(paused in text for text in part.health().problems))
        health = part.health()
        assert not health.ok
        assert health.figures["copier-handler.invocations"] == 1
        assert health.figures["copier-handler.emitted"] == 1
        assert health.figures["broken-handler.invocations"] == 0
        age_ms = health.figures["broken-handler.iterator_age_ms"]
        await until(lambda: part.health().figures["broken-handler.iterator_age_ms"] != age_ms)

        (tmp_path / "broken.py").write_text("def handler(event, context): pass\n")
        await until(lambda: part.health().ok)
        await part.stop()
        await asyncio.wait_for(running, 20)
