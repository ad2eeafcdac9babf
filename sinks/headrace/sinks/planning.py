"""Records -> a plan and the bytes of its files. Synchronous and pure: it runs in a thread."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import crc32c
import msgspec
import pyarrow as pa

from headrace.core.errors import DeliveryError
from headrace.core.model.records import Record
from headrace.sinks import parquet
from headrace.sinks.json_types import JsonType
from headrace.sinks.plan import LostRange, Plan, PlannedFile, Settings, file_key
from headrace.sinks.prefix import PrefixTemplate
from headrace.sinks.rows import convert
from headrace.sinks.schema import TableSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a plan is to be made of: records of one shard, in order, at least one."""

    id: str
    number: int
    sink: str
    stream: str
    shard: str
    after: str | None
    lost: list[LostRange]
    records: Sequence[Record]
    settings: Settings
    schema: TableSchema
    made_ms: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan and its files' bytes in the plan's order."""

    plan: Plan
    contents: list[bytes]


def prepare(task: Task, *, stop_early: bool) -> Prepared | dict[str, JsonType]:
    """The plan; or what the schema can grow by, and then the caller grows it and comes again."""
    converted = convert(task.records, task.shard, task.schema, stop_early=stop_early)
    if converted.seen and task.schema.grown(converted.seen) is not task.schema:
        return converted.seen
    first, last = task.records[0], task.records[-1]
    plan = Plan(
        id=task.id,
        number=task.number,
        sink=task.sink,
        stream=task.stream,
        shard=task.shard,
        after=task.after,
        first=first.sequence_number,
        last=last.sequence_number,
        records=len(task.records),
        data_bytes=sum(len(record.data) for record in task.records),
        data_crc32c=_checksum(task.records),
        lost=task.lost,
        settings=task.settings,
        table=task.schema.to_json(),
        files=[],
        writer=parquet.writer(),
        made_ms=task.made_ms,
    )
    # The oldest arrival, not the first record's: arrival times of a shard may step back a little.
    oldest_ms = min(record.approximate_arrival_ms for record in task.records)
    prefix = PrefixTemplate(task.settings.partition_by).evaluate(oldest_ms)
    key = file_key(prefix, task.stream, task.shard, task.number, 0)
    data = _file(plan, converted.table, is_void=False)
    planned = _planned(key, converted.table.num_rows, data)
    return Prepared(msgspec.structs.replace(plan, files=[planned]), [data])


def remake(plan: Plan, records: Sequence[Record]) -> list[bytes]:
    """The bytes of a plan's files, made again from the same records.

    Raises:
        DeliveryError: not retryable; these are not the records the plan was made of.
    """
    if (
        not records
        or records[0].sequence_number != plan.first
        or len(records) != plan.records
        or _checksum(records) != plan.data_crc32c
    ):
        raise DeliveryError(
            f"stream {plan.stream}, {plan.shard}: records {plan.first} to {plan.last} are not "
            f"those that plan {plan.number} of sink {plan.sink} was made of",
            destination=plan.sink,
            retryable=False,
            hint="was the stream deleted and made again? Give the sink a new name: to start over",
        )
    table = convert(records, plan.shard, plan.schema).table
    return [_file(plan, table, is_void=False) for _ in plan.files]


def empty_file(plan: Plan) -> bytes:
    """A file that holds a name of the plan and no rows; see `Done`."""
    return _file(plan, convert([], plan.shard, plan.schema).table, is_void=True)


def actual(planned: PlannedFile, data: bytes, rows: int) -> PlannedFile:
    """What really is under a planned name."""
    return _planned(planned.key, rows, data)


def _file(plan: Plan, table: pa.Table, *, is_void: bool) -> bytes:
    footer = parquet.Footer(
        plan=plan.id,
        sink=plan.sink,
        stream=plan.stream,
        shard=plan.shard,
        number=plan.number,
        first=plan.first,
        last=plan.last,
        rows=table.num_rows,
        schema=plan.schema.fingerprint,
        is_void=is_void,
        writer=parquet.writer(),
    )
    return parquet.write(table, footer, compression=plan.settings.compression)


def _planned(key: str, rows: int, data: bytes) -> PlannedFile:
    return PlannedFile(key=key, rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _checksum(records: Sequence[Record]) -> int:
    return int(crc32c.crc32c(b"".join([record.data for record in records])))
