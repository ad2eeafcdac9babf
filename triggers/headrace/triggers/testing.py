"""For tests of triggers and of functions: a shard in memory, and a runner that dies on cue.

    HEADRACE_TRIGGERS_FAULT=after_prepare:2:KILL \\
        python -m headrace.triggers.testing pipeline.yaml --endpoint URL --data DIR

runs the `triggers` section of a file like `headrace triggers`, and sends itself the signal the
second time it passes that step. Steps, in order: before_invoke, after_invoke, after_prepare,
after_send, before_save, after_save. Nothing else reads the variable.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import uvloop
import yaml
from pydantic import TypeAdapter

from headrace.core.clock import Clock, SystemClock
from headrace.core.consumer import ReadBatch
from headrace.core.model.records import Record
from headrace.core.model.sequence import Position, compose
from headrace.core.part import PartContext, StreamTarget
from headrace.core.racing import within
from headrace.triggers.config import TriggersConfig
from headrace.triggers.part import TriggersPart

FAULT_VARIABLE = "HEADRACE_TRIGGERS_FAULT"
STEPS = (
    "before_invoke",
    "after_invoke",
    "after_prepare",
    "after_send",
    "before_save",
    "after_save",
)


class MemoryLease:
    """A held lease on a shard that exists in this process only.

    `put` adds records; `saved`, `prepared` and `is_finished` show what the holder did.
    """

    def __init__(self, *, shard_id: str = "shardId-000000000000", clock: Clock | None = None):
        self.shard_id = shard_id
        self.stream = "source"
        self.stopping = asyncio.Event()
        self.pending_checkpoint: str | None = None
        self.pending_state = b""
        self.saved: list[str] = []
        self.prepared: list[tuple[str, bytes]] = []
        self.is_finished = False
        self.records: list[Record] = []
        self._clock = clock or SystemClock()
        self._read_count = 0
        self._has_ended = False
        self._lost_after: str | None = None
        self._news = asyncio.Event()

    def put(self, *contents: bytes, partition_key: str = "key") -> list[Record]:
        """Add records, arriving now."""
        added = []
        for data in contents:
            now_ms = self._clock.now_ms()
            place = Position(1, len(self.records))
            number = compose(now_ms // 1000, place.record_index, now_ms // 1000, 0)
            added.append(Record(data, partition_key, str(number), now_ms))
            self.records.append(added[-1])
        self._news.set()
        return added

    def end(self) -> None:
        """Close the shard: after its records there are none."""
        self._has_ended = True
        self._news.set()

    def stop(self) -> None:
        """Ask the holder to give the lease back."""
        self.stopping.set()
        self._news.set()

    def expire(self) -> None:
        """What has not been read yet goes out of retention."""
        self._lost_after = self.records[self._read_count - 1].sequence_number
        self._read_count = len(self.records)
        self._news.set()

    async def read(
        self, *, max_records: int = 10_000, wait_ms: int | None = None
    ) -> ReadBatch | None:
        try:
            if wait_ms is None:
                await self._some()
            else:
                await within(self._clock, wait_ms, self._some())
        except TimeoutError:
            return ReadBatch([], 0)
        if self.stopping.is_set():
            return None
        found = self.records[self._read_count : self._read_count + max_records]
        self._read_count += len(found)
        lost_after, self._lost_after = self._lost_after, None
        return ReadBatch(found, 0, lost_after) if found else None

    async def prepare(self, sequence_number: str, state: bytes) -> None:
        self.prepared.append((sequence_number, state))
        self.pending_checkpoint, self.pending_state = sequence_number, state

    async def save(self, sequence_number: str) -> None:
        self.saved.append(sequence_number)
        self.pending_checkpoint, self.pending_state = None, b""

    async def finish(self) -> None:
        self.is_finished = True

    async def _some(self) -> None:
        while (
            self._read_count == len(self.records)
            and not self._has_ended
            and not self.stopping.is_set()
        ):
            self._news.clear()
            await self._news.wait()


def fault_seam(fault: str) -> Callable[[str], None]:
    """`step:n:SIGNAL` -> a seam that sends this process the signal at the n-th pass of the step.

    Raises ValueError for anything else.
    """
    step, count_text, name = fault.split(":")
    if step not in STEPS:
        raise ValueError(f"{step!r} is none of {', '.join(STEPS)}")
    left, number = int(count_text), signal.Signals[f"SIG{name}"]

    def seam(passed: str) -> None:
        nonlocal left
        if passed == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return seam


async def run_section(file: Path, target: StreamTarget, data: Path) -> None:
    """Run the `triggers` section of a YAML file until SIGTERM, with the fault asked for."""
    section = yaml.safe_load(file.read_text())["triggers"]
    config = TypeAdapter(TriggersConfig).validate_python(section)
    context = PartContext(data=data, base=file.parent, target=target)
    fault = os.environ.get(FAULT_VARIABLE)
    seam = fault_seam(fault) if fault else lambda _step: None
    part = TriggersPart(config, context, seam=seam)
    stops: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: stops.append(asyncio.create_task(part.stop()))
    )
    await part.run()
    await asyncio.gather(*stops)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run triggers that die on cue.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    target = StreamTarget(endpoint=options.endpoint)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the pipeline has it
        runner.run(run_section(options.file.absolute(), target, options.data))


if __name__ == "__main__":
    main()
