"""A shard in memory with a runner on it, for the tests of the runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.core.testing.manual_clock import ManualClock
from headrace.triggers.event import EventSource
from headrace.triggers.runner import ShardRunner, TriggerTools
from headrace.triggers.testing import MemoryLease
from triggers_support import until, whole_lines

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
        return [json.loads(line)[1] for line in whole_lines(self._calls)]

    @property
    def request_ids(self) -> list[str]:
        return [json.loads(line)[0] for line in whole_lines(self._calls)]

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


def document(letter: Path) -> Any:
    return json.loads((letter / "document.json").read_text())
