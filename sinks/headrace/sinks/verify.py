"""Proof from the files themselves: each record a plan names is in exactly one file, once.

Reads the plan log and every Parquet file below a target; trusts no counter. The argument: plans
of a shard are numbered without gaps and each begins where the one before ended; a plan's file has
exactly the planned bytes; inside, sequence numbers rise from the plan's first to its last and are
as many as planned; and there is no other file with rows. What is missing, doubled, changed or
lost is said per shard.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.errors import DeliveryError
from headrace.sinks.parquet import Footer, read_footer
from headrace.sinks.plan import (
    LOG_FOLDER,
    Done,
    Plan,
    PlannedFile,
    decode_done,
    decode_plan,
    plan_key,
)
from headrace.sinks.schema import SEQUENCE_NUMBER, SHARD_ID
from headrace.sinks.stores.protocol import ObjectStore

#: Files read at once: hides a store's latency, holds as many files in memory.
CONCURRENCY = 4

_ENTRY = re.compile(rf"^{LOG_FOLDER}/([^/]+)/([^/]+)/(\d{{12}})\.(plan|done)$")

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class ShardReport:
    """What one shard of one sink has. `lost` and `problems` are lines for people."""

    sink: str
    stream: str
    shard: str
    plans: int = 0
    unfinished: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    first: str | None = None
    last: str | None = None
    lost: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """`foreign`: Parquet files that no plan names; their rows would be counted, too."""

    target: str
    shards: list[ShardReport] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def files(self) -> int:
        return sum(shard.files for shard in self.shards)

    @property
    def is_proven(self) -> bool:
        """Every planned record is there once, nothing else is, and nothing was lost."""
        return not self.foreign and not any(s.problems or s.lost for s in self.shards)


async def verify(
    store: ObjectStore, *, sink: str | None = None, progress: Progress | None = None
) -> Report:
    """Read everything below a target. A sink may go on delivering meanwhile.

    Args:
        sink: only this one; then files of others do not count as foreign.
        progress: called with plans done and plans in all.

    Raises:
        DeliveryError: the store cannot be read, or there is no such sink below the target.
    """
    numbers: dict[tuple[str, str], dict[int, set[str]]] = {}
    async for key in store.list_from(f"{LOG_FOLDER}/"):
        found = _ENTRY.match(key)
        if found and sink in (None, found[1]):
            entries = numbers.setdefault((found[1], found[2]), {})
            entries.setdefault(int(found[3]), set()).add(found[4])
    if not numbers:
        raise DeliveryError(
            f"{store.destination}: there is no plan log{f' of sink {sink}' if sink else ''}",
            destination=store.destination,
            retryable=False,
            hint="name the sink's target, as to: has it",
        )
    report = Report(store.destination)
    total = sum(len(entries) for entries in numbers.values())
    named: set[str] = set()
    done_count = 0
    for (name, shard), entries in sorted(numbers.items()):
        verifier = _ShardVerifier(store, name, shard, named)
        report.shards.append(verifier.report)
        for chunk in _chunks(sorted(entries), CONCURRENCY):
            await verifier.check(chunk, max(entries))
            done_count += len(chunk)
            if progress is not None:
                progress(done_count, total)
    await _find_foreign(store, named, sink, report)
    return report


async def _find_foreign(
    store: ObjectStore, named: set[str], sink: str | None, report: Report
) -> None:
    """Parquet files below the target that belong to none of the plans checked."""
    async for key in store.list_from(""):
        if not key.endswith(".parquet") or key in named:
            continue
        footer = read_footer(await store.get(key) or b"")
        if sink is not None and (footer is None or footer.sink != sink):
            continue
        if footer is None or not await _is_planned(store, footer, key):
            report.foreign.append(key)


async def _is_planned(store: ObjectStore, footer: Footer, key: str) -> bool:
    """Whether a plan made since the log was listed names the file."""
    data = await store.get(plan_key(footer.sink, footer.shard, footer.number))
    return data is not None and key in [file.key for file in decode_plan(data, key).files]


class _ShardVerifier:
    """Goes through one shard's plans in order."""

    def __init__(self, store: ObjectStore, sink: str, shard: str, named: set[str]) -> None:
        self.report = ShardReport(sink=sink, stream="", shard=shard)
        self._store = store
        self._named = named
        self._position: str | None = None
        self._expected = 1

    async def check(self, numbers: list[int], last: int) -> None:
        """Check some plans, the next in order."""
        entries = await asyncio.gather(*(self._load(number) for number in numbers))
        for number, (plan, done, problems) in zip(numbers, entries, strict=True):
            if number != self._expected:
                self._problem(f"plans {self._expected} to {number - 1} are missing")
            self._expected = number + 1
            if plan is None:
                self._problem(f"plan {number} is missing, only its done entry is there")
                continue
            self._follow(plan, done, is_last=number == last)
            for problem in problems:
                self._problem(f"plan {number}: {problem}")

    async def _load(self, number: int) -> tuple[Plan | None, Done | None, list[str]]:
        base = f"{LOG_FOLDER}/{self.report.sink}/{self.report.shard}/{number:012d}"
        plan_data = await self._store.get(base + ".plan")
        done_data = await self._store.get(base + ".done")
        plan = None if plan_data is None else decode_plan(plan_data, base + ".plan")
        done = None if done_data is None else decode_done(done_data, base + ".done")
        if plan is None:
            return None, done, []
        problems: list[str] = []
        self._named.update(file.key for file in plan.files)
        for file in done.files if done is not None else []:
            problems.extend(await self._check_file(plan, file))
        return plan, done, problems

    async def _check_file(self, plan: Plan, file: PlannedFile) -> list[str]:
        data = await self._store.get(file.key)
        if data is None:
            return [f"{file.key} is missing"]
        if hashlib.sha256(data).hexdigest() != file.sha256:
            return [f"{file.key} is not what was put there: its bytes have changed"]
        return await asyncio.to_thread(_check_rows, plan, file, data)

    def _follow(self, plan: Plan, done: Done | None, *, is_last: bool) -> None:
        report = self.report
        report.stream = plan.stream
        report.plans += 1
        if plan.after != self._position:
            self._problem(
                f"plan {plan.number} begins after {plan.after}, the one before ended at "
                f"{self._position}"
            )
        for gap in plan.lost:
            report.lost.append(f"after {gap.after or 'the beginning'} up to {gap.before}")
        if done is None:
            report.unfinished += 1
            self._position = plan.last
            if not is_last:
                self._problem(f"plan {plan.number} has no done entry and is not the last")
            return
        if done.plan != plan.id:
            self._problem(f"plan {plan.number} was carried out as another plan")
        report.files += sum(1 for file in done.files if file.rows)
        report.rows += done.rows
        report.bytes += sum(file.bytes for file in done.files)
        if done.state == "void":
            self._position = plan.after
            if is_last:
                report.lost.append(f"{plan.first} up to the oldest record that is left")
            return
        self._position = plan.last
        report.first = report.first or plan.first
        report.last = plan.last
        if done.rows != plan.records:
            self._problem(f"plan {plan.number}: {done.rows} of {plan.records} records have a row")

    def _problem(self, text: str) -> None:
        self.report.problems.append(text)


def _check_rows(plan: Plan, file: PlannedFile, data: bytes) -> list[str]:
    """Whether a file holds exactly the plan's records (a void one: none)."""
    try:
        table = pq.read_table(io.BytesIO(data), columns=[SEQUENCE_NUMBER, SHARD_ID])
    except (pa.ArrowException, OSError) as error:
        return [f"{file.key} is no readable Parquet file: {error}"]
    if table.num_rows != file.rows:
        return [f"{file.key} has {table.num_rows} rows, and was put with {file.rows}"]
    if table.num_rows == 0:
        return []
    numbers = [int(text) for text in table.column(SEQUENCE_NUMBER).to_pylist()]
    problems = []
    if any(left >= right for left, right in itertools.pairwise(numbers)):
        problems.append(f"{file.key}: sequence numbers do not rise; a record is there twice")
    if (numbers[0], numbers[-1]) != (int(plan.first), int(plan.last)):
        problems.append(f"{file.key} does not run from the plan's first record to its last")
    if set(table.column(SHARD_ID).unique().to_pylist()) != {plan.shard}:
        problems.append(f"{file.key} has rows of another shard")
    return problems


def _chunks(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]
