"""One shard through the runner: retries, dead letters, pauses, the order of steps.

Real workers, a shard in memory, and a clock moved by hand. What needs a stream to emit to is in
test_end_to_end.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.core.client import StreamClient
from headrace.core.part import StreamTarget
from headrace.core.retry import Backoff
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.troubles import Troubles
from headrace.triggers.config import BatchConfig
from headrace.triggers.event import EventSource
from headrace.triggers.function import FunctionFile
from headrace.triggers.invoke import Function
from headrace.triggers.outbox import Outbox, Outlet
from headrace.triggers.retry import FIRST_BACKOFF_MS, FOREVER, MAX_BACKOFF_MS
from headrace.triggers.runner import ShardRunner, TriggerTools
from headrace.triggers.stats import TriggerStats
from headrace.triggers.testing import MemoryLease
from triggers_support import MakePool, WriteFunction, content, until

ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/source"

#: Writes a line per invocation to the file CALLS: request id and the data it got; then acts.
RECORDING = """
import base64, json
def handler(event, context):
    data = [base64.b64decode(r["kinesis"]["data"]).decode() for r in event["Records"]]
    with open({calls!r}, "a") as file:
        file.write(json.dumps([context.aws_request_id, data]) + "\\n")
    numbers = {{d: r["kinesis"]["sequenceNumber"] for d, r in zip(data, event["Records"])}}
    {act}
"""


class Shard:
    """A runner on a shard in memory."""

    def __init__(self, lease: MemoryLease, tools: TriggerTools, calls: Path) -> None:
        self.lease = lease
        self.tools = tools
        self._calls = calls
        source = EventSource(ARN, lease.shard_id, "arn:role", "us-east-1")
        self.task = asyncio.create_task(ShardRunner(lease, source, "source", tools).run())

    @property
    def clock(self) -> ManualClock:
        assert isinstance(self.tools.clock, ManualClock)
        return self.tools.clock

    @property
    def calls(self) -> list[list[str]]:
        """The data of each invocation so far."""
        return [json.loads(line)[1] for line in content(self._calls).splitlines()]

    @property
    def request_ids(self) -> list[str]:
        return [json.loads(line)[0] for line in content(self._calls).splitlines()]

    @property
    def letters(self) -> list[Path]:
        folder = self.tools.letters
        return sorted(folder.glob("[!.]*")) if folder.exists() else []

    async def until_saved(self, number: str) -> None:
        """Let it work, and time pass whenever it waits."""

        async def pass_time() -> None:
            while True:
                if self.clock.sleeping_ms:
                    await self.clock.advance(1_000)
                await asyncio.sleep(0.005)

        passing = asyncio.create_task(pass_time())
        try:
            await until(lambda: number in self.lease.saved)
        finally:
            passing.cancel()

    async def until_waiting(self) -> float:
        """Until it sleeps; for how much longer."""
        await until(lambda: self.clock.sleeping_ms)
        return self.clock.sleeping_ms[0]


MakeShard = Callable[..., Shard]


@pytest.fixture
async def make_shard(
    tmp_path: Path, write_function: WriteFunction, make_pool: MakePool
) -> AsyncIterator[MakeShard]:
    """Start a runner whose handler records its calls and then does `act`."""
    client = StreamClient(StreamTarget())
    shards: list[Shard] = []

    def make(
        act: str = "pass",
        *,
        size: int = 100,
        retries: int = 3,
        reports: bool = False,
        timeout_ms: int = 20_000,
        lease: MemoryLease | None = None,
        letters: Path | None = None,
        source: str | None = None,
        seam: Callable[[str], None] = lambda _step: None,
    ) -> Shard:
        clock = ManualClock()
        calls = tmp_path / "calls"
        path = write_function(source or RECORDING.format(calls=str(calls), act=act))
        tools = TriggerTools(
            function=Function(
                trigger="function-handler",
                arn="arn:aws:lambda:us-east-1:123456789012:function:function-handler",
                pool=make_pool(path),
                timeout_ms=timeout_ms,
                retries=retries,
                reports_item_failures=reports,
            ),
            file=FunctionFile(path),
            batch=BatchConfig(size=size),
            letters=letters or tmp_path / "dead-letters",
            outlet=Outlet(client, "trigger-function-handler", clock),
            stats=TriggerStats(),
            troubles=Troubles(logging.getLogger("headrace.triggers"), clock),
            clock=clock,
            backoff=Backoff(initial_ms=FIRST_BACKOFF_MS, max_ms=MAX_BACKOFF_MS, chance=lambda: 0.0),
            seam=seam,
        )
        shards.append(Shard(lease or MemoryLease(clock=clock), tools, calls))
        return shards[-1]

    yield make
    for shard in shards:
        shard.task.cancel()
        await asyncio.gather(shard.task, return_exceptions=True)
    await client.close()


def document(letter: Path) -> Any:
    return json.loads((letter / "document.json").read_text())


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


class TestOversized:
    @pytest.mark.parametrize(("retries", "count"), [(0, 1), (2, 3), (FOREVER, 1)])
    async def test_it_is_never_sent_and_the_next_record_is_done(
        self, make_shard: MakeShard, retries: int, count: int
    ) -> None:
        """Scenario 4."""
        shard = make_shard(retries=retries)
        _large, small = shard.lease.put(bytes(5 * 1024 * 1024), b"b")
        await shard.until_saved(small.sequence_number)
        assert shard.calls == [["b"]]
        (letter,) = shard.letters
        assert document(letter)["requestContext"]["approximateInvokeCount"] == count
        assert "responseContext" not in document(letter)
        assert len((letter / "event.json").read_bytes()) > 6_291_456
        assert shard.lease.prepared == []


class TestPauses:
    async def test_a_missing_function_pauses_without_spending_retries(
        self, make_shard: MakeShard, tmp_path: Path
    ) -> None:
        shard = make_shard(source="import nothing_of_this_name\n", retries=0)
        (record,) = shard.lease.put(b"a")
        for _ in range(3):
            await shard.until_waiting()
            await shard.clock.advance(60_000)
        (trouble,) = shard.tools.troubles.current()
        assert "function-handler: paused: cannot load" in trouble
        assert "nothing_of_this_name" in trouble
        assert shard.tools.stats.invocations == 0

        shard.tools.file.path.write_text(
            RECORDING.format(calls=str(tmp_path / "calls"), act="pass")
        )
        await shard.until_saved(record.sequence_number)
        assert shard.calls == [["a"]]
        assert shard.letters == []
        assert shard.tools.troubles.current() == ()

    async def test_a_changed_file_ends_the_pause_within_a_second(
        self, make_shard: MakeShard, tmp_path: Path
    ) -> None:
        shard = make_shard(source="def other(e, c): ...\n", retries=0)
        (record,) = shard.lease.put(b"a")
        for _ in range(5):  # by now the pauses are long
            await shard.until_waiting()
            await shard.clock.advance(16_000)
        await shard.until_waiting()
        shard.tools.file.path.write_text("def handler(e, c): ...\n")
        await shard.clock.advance(1_000)
        await until(lambda: shard.lease.saved == [record.sequence_number])

    async def test_an_unwritable_dead_letter_folder_pauses_the_shard(
        self, make_shard: MakeShard, tmp_path: Path
    ) -> None:
        """Scenario 39: Lambda would drop the batch here."""
        blocked = tmp_path / "blocked"
        blocked.write_text("a file where the folder should be")
        shard = make_shard("raise ValueError", retries=0, size=1, letters=blocked / "letters")
        first, second = shard.lease.put(b"a", b"b")
        for _ in range(3):
            await shard.until_waiting()
            await shard.clock.advance(60_000)
        assert shard.lease.saved == []
        assert shard.calls == [["a"]]  # it is not run again either
        (trouble,) = shard.tools.troubles.current()
        assert "cannot write a dead letter" in trouble
        assert str(blocked) in trouble

        blocked.unlink()
        await shard.until_saved(second.sequence_number)
        assert shard.lease.saved == [first.sequence_number, second.sequence_number]
        assert len(shard.letters) == 2
        assert shard.tools.troubles.current() == ()


class TestLoss:
    async def test_records_that_expired_unread_are_told_of(self, make_shard: MakeShard) -> None:
        """Scenario 43: retention overtook the checkpoint; it goes on, and not in silence."""
        shard = make_shard(size=1)
        (first,) = shard.lease.put(b"a")
        await shard.until_saved(first.sequence_number)
        shard.lease.put(b"b", b"c")
        shard.lease.expire()
        (last,) = shard.lease.put(b"d")
        await shard.until_saved(last.sequence_number)
        assert shard.calls == [["a"], ["d"]]
        (trouble,) = shard.tools.troubles.current()
        assert f"the records after {first.sequence_number} and before" in trouble
        assert "raise the stream's retention" in trouble


class TestSteps:
    async def test_a_dead_letter_is_prepared_before_it_is_written(
        self, make_shard: MakeShard
    ) -> None:
        steps = []
        shard = make_shard("raise ValueError", retries=0, seam=lambda step: steps.append(step))
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        ((number, state),) = shard.lease.prepared
        assert number == record.sequence_number
        letter = Outbox.decode(state).dead_letter
        assert letter is not None
        assert shard.letters[0].name == letter.name
        assert (shard.letters[0] / "event.json").read_bytes() == letter.event
        await until(lambda: "after_save" in steps)
        assert steps == [
            "before_invoke",
            "after_invoke",
            "after_prepare",
            "after_send",
            "before_save",
            "after_save",
        ]

    async def test_a_pending_checkpoint_is_settled_without_invoking(
        self, make_shard: MakeShard
    ) -> None:
        first = make_shard("raise ValueError", retries=0)
        (record,) = first.lease.put(b"a")
        await first.until_saved(record.sequence_number)
        ((number, state),) = first.lease.prepared

        lease = MemoryLease()
        lease.pending_checkpoint, lease.pending_state = number, state
        letters = first.tools.letters.with_name("elsewhere")
        second = make_shard(lease=lease, letters=letters)
        await until(lambda: lease.saved == [number])
        assert first.calls == [["a"]]  # both write to the same file
        assert len(second.letters) == 1

    async def test_a_pending_state_of_a_newer_headrace_is_not_thrown_away(
        self, make_shard: MakeShard
    ) -> None:
        lease = MemoryLease()
        lease.pending_checkpoint, lease.pending_state = "1", b"\x93abc"
        shard = make_shard(lease=lease)
        with pytest.raises(Exception, match="cannot be read"):
            await shard.task
        assert lease.saved == []


class TestLambdasLimits:
    async def test_an_error_of_megabytes_fits_beside_the_checkpoint(
        self, make_shard: MakeShard
    ) -> None:
        """The largest event there is, the longest output and traceback: below 8 MiB together."""
        shard = make_shard("print('x' * 1_000_000); raise ValueError('y' * 1_000_000)", retries=0)
        (record,) = shard.lease.put(bytes(4_700_000))
        await shard.until_saved(record.sequence_number)
        ((_, state),) = shard.lease.prepared
        assert 6_000_000 < len(state) < 8 * 1024 * 1024
