"""One shard through the runner: retries, dead letters, pauses, the order of steps.

Real workers, a shard in memory, and a clock moved by hand. What needs a stream to emit to is in
test_end_to_end.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.triggers.retry import FOREVER
from shard_support import MakeShard, document
from triggers_support import until


class TestSuccess:
    async def test_in_order_and_saved_batch_by_batch(self, make_shard: MakeShard) -> None:
        """Scenario 1, for one shard."""
        shard = make_shard(size=2)
        records = shard.lease.put(b"a", b"b", b"c")
        await shard.until_saved(records[2].sequence_number)
        assert shard.calls == [["a", "b"], ["c"]]
        assert shard.lease.saved == [records[1].sequence_number, records[2].sequence_number]
        assert shard.lease.prepared == []
        assert shard.tools.stats.figures(shard.clock.now_ms()) == {
            "invocations": 2,
            "errors": 0,
            "records": 3,
            "emitted": 0,
            "dead_letters": 0,
            "iterator_age_ms": 0,
        }

    async def test_the_end_of_the_shard_is_finished_after_its_last_batch(
        self, make_shard: MakeShard
    ) -> None:
        shard = make_shard()
        (record,) = shard.lease.put(b"a")
        shard.lease.end()
        await shard.task
        assert shard.lease.saved == [record.sequence_number]
        assert shard.lease.is_finished

    async def test_response_types_off(self, make_shard: MakeShard) -> None:
        """Scenario 12: what it returns is ignored."""
        act = 'return {{"batchItemFailures": [{{"itemIdentifier": numbers["a"]}}]}}'
        shard = make_shard(act.replace("{{", "{").replace("}}", "}"))
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        assert shard.calls == [["a"]]
        assert shard.tools.stats.errors == 0


class TestRetries:
    async def test_an_exception_with_one_retry(self, make_shard: MakeShard) -> None:
        """Scenario 5."""
        shard = make_shard('print("so far"); raise ValueError("bad")', size=1, retries=1)
        first, second = shard.lease.put(b"a", b"b")
        await shard.until_saved(second.sequence_number)
        assert shard.calls == [["a"], ["a"], ["b"], ["b"]]
        ids = shard.request_ids
        assert ids[0] == ids[1] != ids[2] == ids[3]
        assert shard.lease.saved == [first.sequence_number, second.sequence_number]

        letter = shard.letters[0]
        assert document(letter)["requestContext"] == {
            "requestId": ids[0],
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:function-handler",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 2,
        }
        assert document(letter)["responseContext"]["functionError"] == "Unhandled"
        assert document(letter)["KinesisBatchInfo"]["batchSize"] == 1
        event = json.loads((letter / "event.json").read_text())
        assert event["Records"][0]["kinesis"]["data"] == "YQ=="
        assert 'raise ValueError("bad")' in (letter / "traceback.txt").read_text()
        assert (letter / "output.txt").read_text() == "so far\n"
        history = json.loads((letter / "attempts.json").read_text())
        assert [attempt["message"] for attempt in history["attempts"]] == ["bad", "bad"]
        assert len(history["attempts"][0]["code"]) == 64
        stats = shard.tools.stats
        assert (stats.invocations, stats.errors, stats.dead_letters) == (4, 4, 2)

    async def test_a_retry_waits_1_s_doubling_to_60_s(self, make_shard: MakeShard) -> None:
        shard = make_shard("raise ValueError", retries=FOREVER)
        shard.lease.put(b"a")
        waits = []
        for _ in range(8):
            waits.append(await shard.until_waiting())
            await shard.clock.advance(int(waits[-1]))
        assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]

    async def test_for_ever_is_for_ever_and_shows(self, make_shard: MakeShard) -> None:
        """Scenario 6, for one shard: the age grows and the health says why."""
        shard = make_shard("raise ValueError('again')", retries=FOREVER)
        shard.lease.put(b"a")
        for _ in range(6):
            wait_ms = await shard.until_waiting()
            await shard.clock.advance(int(wait_ms))
        assert shard.tools.stats.iterator_age_ms(shard.clock.now_ms()) > 60_000
        assert shard.lease.saved == []
        (trouble,) = shard.tools.troubles.current()
        assert "failed and will be repeated: again" in trouble

    async def test_recovery_clears_the_trouble(self, make_shard: MakeShard, tmp_path: Path) -> None:
        flag = tmp_path / "flag"
        shard = make_shard(f"import os; assert os.path.exists({str(flag)!r})", retries=FOREVER)
        (record,) = shard.lease.put(b"a")
        await shard.until_waiting()
        flag.touch()
        await shard.until_saved(record.sequence_number)
        assert shard.tools.troubles.current() == ()
        assert len(set(shard.request_ids)) == 1

    async def test_stopping_ends_a_wait_and_keeps_the_batch(self, make_shard: MakeShard) -> None:
        """Scenario 35: nothing is saved that was not done."""
        shard = make_shard("raise ValueError", retries=FOREVER)
        shard.lease.put(b"a")
        await shard.until_waiting()
        shard.lease.stop()
        await shard.task
        assert shard.lease.saved == []
        assert not shard.lease.is_finished

    async def test_stopping_lets_the_invocation_end_and_saves_it(
        self, make_shard: MakeShard
    ) -> None:
        """Scenario 35."""
        shard = make_shard("import time; time.sleep(0.3)", size=1)
        first, _second = shard.lease.put(b"a", b"b")
        await until(lambda: shard.calls)
        shard.lease.stop()
        await shard.task
        assert shard.lease.saved == [first.sequence_number]
        assert shard.calls == [["a"]]

    async def test_a_timeout_is_a_failed_attempt(self, make_shard: MakeShard) -> None:
        shard = make_shard("while True: pass", retries=0, timeout_ms=300)
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        history = json.loads((shard.letters[0] / "attempts.json").read_text())
        assert history["attempts"][0]["message"] == "Task timed out after 0.30 seconds"

    async def test_a_crash_is_a_failed_attempt(self, make_shard: MakeShard) -> None:
        """Scenario 17: the batch is retried in a new process."""
        shard = make_shard("import os; os._exit(1)", retries=1)
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        assert shard.calls == [["a"], ["a"]]
        assert document(shard.letters[0])["requestContext"]["approximateInvokeCount"] == 2


class TestItemFailures:
    async def test_from_the_middle(self, make_shard: MakeShard) -> None:
        """Scenario 9: batch of 3, retries 3, the third always bad: it is invoked five times."""
        act = (
            'return {"batchItemFailures": [{"itemIdentifier": numbers["6"]}]} '
            'if "6" in data else None'
        )
        shard = make_shard(act, size=3, retries=3, reports=True)
        records = shard.lease.put(b"4", b"5", b"6", b"7")
        await shard.until_saved(records[3].sequence_number)
        assert shard.calls == [["4", "5", "6"], ["6"], ["6"], ["6"], ["6"], ["7"]]
        ids = shard.request_ids
        assert len(set(ids[1:5])) == 1  # unchanged, so under one id
        assert ids[0] != ids[1]  # the rest of a batch is a new one
        assert shard.lease.saved == [r.sequence_number for r in records[1:]]
        (letter,) = shard.letters
        assert document(letter)["requestContext"]["approximateInvokeCount"] == 4
        assert document(letter)["responseContext"]["functionError"] is None
        assert document(letter)["KinesisBatchInfo"]["batchSize"] == 1

    @pytest.mark.parametrize(
        "response",
        ['[{"itemIdentifier": ""}]', '[{"foo": 123}]', '[{"itemIdentifier": 123}]'],
    )
    async def test_an_invalid_response_fails_the_whole_batch(
        self, make_shard: MakeShard, response: str
    ) -> None:
        """Scenario 10, the third and fourth row: three invocations with two retries."""
        shard = make_shard(
            f'return {{"batchItemFailures": {response}}}', size=1, retries=2, reports=True
        )
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        assert shard.calls == [["a"]] * 3
        assert document(shard.letters[0])["responseContext"]["functionError"] is None

    async def test_a_success_leaves_nothing(self, make_shard: MakeShard) -> None:
        shard = make_shard('return {"batchItemFailures": []}', reports=True)
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        assert shard.calls == [["a"]]
        assert shard.letters == []
