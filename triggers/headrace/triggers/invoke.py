"""One batch through one function, attempt by attempt.

What each attempt means is decided here; what happens between attempts (waiting, pausing,
saving) is the shard runner's.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from headrace.core.clock import Clock
from headrace.triggers import retry
from headrace.triggers.dead_letters import Attempt, DeadLetter, failure_document, letter_name
from headrace.triggers.event import Batch, EventSource, iso_ms
from headrace.triggers.function import FunctionError
from headrace.triggers.outbox import EmitRefused
from headrace.triggers.protocol import Emit, Invoke
from headrace.triggers.response import ALL_DONE, judge
from headrace.triggers.worker_pool import WorkerPool

Examine = Callable[[Sequence[Emit]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A trigger's function and the rules it is invoked by."""

    trigger: str
    arn: str
    pool: WorkerPool
    timeout_ms: int
    retries: int
    reports_item_failures: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: `error` when it failed or failed in part; with `Done`, the emits
    that belong to the part done."""

    decision: retry.Decision
    emits: list[Emit] = field(default_factory=list)
    error: FunctionError | None = None


class BatchRun:
    """The attempts at one batch. All have one request id, as an unchanged retry has on Lambda."""

    def __init__(
        self,
        batch: Batch,
        function: Function,
        source: EventSource,
        clock: Clock,
        on_invoke: Callable[[], None],
    ) -> None:
        self.batch = batch
        self.invokes = 0
        self._function = function
        self._source = source
        self._clock = clock
        self._on_invoke = on_invoke
        self._request_id = str(uuid.uuid4())
        self._event = batch.event()
        self._numbers = [entry.record.sequence_number for entry in batch.records]
        self._attempts: list[Attempt] = []
        self._last_error: FunctionError | None = None
        self._code = ""

    async def attempt(self, examine: Examine) -> Outcome:
        """Invoke the function once. `examine` raises EmitRefused for what no stream would take.

        Raises:
            FunctionUnavailable: it was not invoked; no retry is spent.
        """
        if self.batch.is_oversized():
            return self._refuse_oversized()
        started_ms, started_at_ms = self._clock.monotonic_ms(), self._clock.now_ms()
        request = Invoke(self._request_id, self._event, self._function.timeout_ms)
        failed_from: int | None
        emits: list[Emit] = []
        error: FunctionError | None = None
        try:
            answer, output = await self._function.pool.invoke(request, on_start=self._start)
            verdict = ALL_DONE
            if self._function.reports_item_failures:
                verdict = judge(answer.payload, self._numbers)
            failed_from = verdict.failed_from
            if verdict.complaint is not None:
                error = FunctionError(BATCH_ITEM_FAILURES, verdict.complaint, output=output)
            emits = self._belonging(answer.emits, failed_from)
            await examine(emits)
        except FunctionError as raised:
            failed_from, error = 0, raised
        except EmitRefused as refused:
            failed_from, error = 0, FunctionError("EmitRefused", str(refused))
        if error is not None:
            self._remember(error, started_at_ms, self._clock.monotonic_ms() - started_ms)
        decision = retry.decide(
            size=len(self.batch),
            failed_from=failed_from,
            invokes=self.invokes,
            retries=self._function.retries,
        )
        return Outcome(decision, emits if isinstance(decision, retry.Done) else [], error)

    def dead_letter(self) -> DeadLetter:
        """The batch as the letter that is left of it."""
        assert self._last_error is not None
        is_reported = self._last_error.error_type == BATCH_ITEM_FAILURES
        was_invoked = bool(self._attempts)
        document = failure_document(
            batch=self.batch,
            shard_id=self._source.shard_id,
            stream_arn=self._source.stream_arn,
            function_arn=self._function.arn,
            request_id=self._request_id,
            invoke_count=self.invokes,
            now_ms=self._clock.now_ms(),
            was_invoked=was_invoked,
            function_error=None if is_reported else "Unhandled",
        )
        history = {
            "trigger": self._function.trigger,
            "functionArn": self._function.arn,
            "streamArn": self._source.stream_arn,
            "shardId": self._source.shard_id,
            "reason": str(self._last_error),
            "attempts": self._attempts,
        }
        return DeadLetter(
            name=letter_name(self._function.trigger, self._source.shard_id, self.batch),
            document=_pretty(document),
            event=self._event,
            attempts=_pretty(history),
            traceback=self._last_error.stack,
            output=self._last_error.output,
        )

    def _refuse_oversized(self) -> Outcome:
        """A record that no function can be sent: spends all its retries at once.

        Lambda does the same one by one, without ever calling the function. Retrying for ever
        would stall the shard on a record that cannot get smaller, so it is not done even then.
        """
        self.invokes = max(0, self._function.retries) + 1
        self._last_error = FunctionError(
            "Function.RequestTooLarge",
            f"the record at {self.batch.first.sequence_number} makes an event of "
            f"{len(self._event)} bytes; a function is sent 6 MB at most",
        )
        return Outcome(retry.GiveUp(), error=self._last_error)

    def _belonging(self, emits: list[Emit], failed_from: int | None) -> list[Emit]:
        """The emits that go out with the part of the batch that is done."""
        places = {number: place for place, number in enumerate(self._numbers)}
        for emit in emits:
            if emit.sequence_number is not None and emit.sequence_number not in places:
                raise EmitRefused(
                    f"emit: sequence_number {emit.sequence_number!r:.80} is not of a record of "
                    "this batch"
                )
        if failed_from is None:
            return emits
        return [
            emit
            for emit in emits
            if emit.sequence_number is None or places[emit.sequence_number] < failed_from
        ]

    def _start(self, code: str) -> None:
        self.invokes += 1
        self._code = code
        self._on_invoke()

    def _remember(self, error: FunctionError, at_ms: int, duration_ms: int) -> None:
        self._last_error = error
        del self._attempts[:-_KEPT_ATTEMPTS]
        self._attempts.append(
            Attempt(
                number=self.invokes,
                at=iso_ms(at_ms),
                duration_ms=duration_ms,
                request_id=self._request_id,
                code=self._code,
                error_type=error.error_type,
                message=error.message,
            )
        )


BATCH_ITEM_FAILURES = "BatchItemFailures"
_KEPT_ATTEMPTS = 19  # before the newest; retries may go on for days


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
