"""Plans: what is about to become visible, written down before any of it is.

A plan says which records of one shard make which files, with which settings and columns. Names
of files follow from it, so whoever carries it out, and however often, makes the same ones.

    _sink/<sink>/schema/<version:012d>.json     the columns, one file per version
    _sink/<sink>/<shard>/<number:012d>.plan     put before its files
    _sink/<sink>/<shard>/<number:012d>.done     put after its files
    <prefix><stream>-<shard>-<number:012d>-<i>.parquet

Plans of a shard are numbered from 1 without gaps, and `after` of each is where the one before
ended, so the log shows by itself that nothing is missing.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

import msgspec

from headrace.core.errors import DeliveryError
from headrace.sinks.schema import TableSchema

FORMAT = 1
LOG_FOLDER = "_sink"


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file: its key below the target, and what must be in it."""

    key: str
    rows: int
    bytes: int
    sha256: str


class LostRange(msgspec.Struct, frozen=True, kw_only=True):
    """Records that expired in the stream before they were read: after `after`, before `before`."""

    after: str | None
    before: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved configuration a plan is carried out with, whatever it is by then."""

    partition_by: list[str]
    compression: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Records after `after` up to `last` (`first` is the first of them) become `files`.

    `id` tells this plan from any other attempt at the same number. `data_crc32c` is over the
    records' data, one after the other: a stream that gives other records is another stream.
    """

    format: int = FORMAT
    id: str
    number: int
    sink: str
    stream: str
    shard: str
    after: str | None
    first: str
    last: str
    records: int
    data_bytes: int
    data_crc32c: int
    lost: list[LostRange]
    settings: Settings
    table: dict[str, Any]
    files: list[PlannedFile]
    writer: str
    made_ms: int

    @property
    def schema(self) -> TableSchema:
        return TableSchema.from_json(self.table)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The plan is carried out: `files` are there, with the digests they really have.

    State `void`: the records expired before they could be written. The files are there without
    rows, so that nobody who still holds the records can put them under these names, and the
    next plan starts where this one did.
    """

    format: int = FORMAT
    plan: str
    number: int
    state: Literal["done", "void"]
    after: str | None
    last: str
    rows: int
    files: list[PlannedFile]
    at_ms: int


_Entry = TypeVar("_Entry", Plan, Done)


def plan_key(sink: str, shard: str, number: int) -> str:
    return f"{LOG_FOLDER}/{sink}/{shard}/{number:012d}.plan"


def done_key(sink: str, shard: str, number: int) -> str:
    return f"{LOG_FOLDER}/{sink}/{shard}/{number:012d}.done"


def schema_key(sink: str, version: int) -> str:
    return f"{LOG_FOLDER}/{sink}/schema/{version:012d}.json"


def file_key(prefix: str, stream: str, shard: str, number: int, index: int) -> str:
    """Where a plan's file goes. `prefix` is empty or ends with `/`."""
    return f"{prefix}{stream}-{shard}-{number:012d}-{index}.parquet"


def encode(entry: Plan | Done | TableSchema) -> bytes:
    """An entry of the log as readable JSON."""
    if isinstance(entry, TableSchema):
        return json.dumps(entry.to_json(), indent=1, ensure_ascii=False).encode()
    return msgspec.json.format(msgspec.json.encode(entry), indent=1)


def decode_plan(data: bytes, where: str) -> Plan:
    """Raises DeliveryError (not retryable) for anything that is no plan of this format."""
    plan = _checked(data, Plan, where)
    try:
        plan.schema  # noqa: B018 - a plan whose columns cannot be read cannot be carried out
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(where, str(error)) from error
    return plan


def decode_done(data: bytes, where: str) -> Done:
    """Raises DeliveryError (not retryable) for anything that is no entry of this format."""
    return _checked(data, Done, where)


def decode_schema(data: bytes, where: str) -> TableSchema:
    """Raises DeliveryError (not retryable) for anything that is no schema."""
    try:
        return TableSchema.from_json(json.loads(data))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(where, str(error)) from error


def _checked(data: bytes, kind: type[_Entry], where: str) -> _Entry:
    try:
        entry = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise _unreadable(where, str(error)) from error
    if entry.format != FORMAT:
        raise _unreadable(where, f"format {entry.format}, and this version knows {FORMAT}")
    return entry


def _unreadable(where: str, why: str) -> DeliveryError:
    return DeliveryError(
        f"{where} cannot be read: {why}",
        destination=where,
        retryable=False,
        hint="the plan log was changed from outside or by a newer version; put it back",
    )
