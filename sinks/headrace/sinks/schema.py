"""The columns of a sink's table: which JSON key goes where, and as what type.

A schema only ever grows. A column keeps its name and its type for good, so that files of years
read as one table: a struct may gain members, which readers treat like new columns, but an int64
never becomes a double and nothing becomes a string. (A reader that takes the first file's type
for all of them, as DuckDB does, would round the later ones in silence.)

Every file has the columns of `RESERVED` first, then all materialised columns known when its
plan was made, whether or not its own records have them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from headrace.sinks.json_types import (
    JsonType,
    Scalar,
    arrow_type,
    from_json,
    is_column_name,
    leaf_count,
    materialised,
    merge,
    to_json,
)

#: Physical columns of JSON keys. Readers slow down well before this, and records whose keys are
#: identifiers would otherwise make a column each; keys beyond it are kept in `_rest`.
MAX_LEAVES = 1000

SEQUENCE_NUMBER = "_sequence_number"
SHARD_ID = "_shard_id"
ARRIVAL_TIME = "_arrival_time"
PARTITION_KEY = "_partition_key"
RAW_TEXT = "data"
RAW_BASE64 = "_data_base64"
REST = "_rest"

RESERVED = pa.schema(
    [
        pa.field(SEQUENCE_NUMBER, pa.string(), nullable=False),
        pa.field(SHARD_ID, pa.string(), nullable=False),
        pa.field(ARRIVAL_TIME, pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field(PARTITION_KEY, pa.string(), nullable=False),
        pa.field(RAW_TEXT, pa.string()),
        pa.field(RAW_BASE64, pa.string()),
        pa.field(REST, pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """A JSON key, the name of its column, and its type so far."""

    key: str
    name: str
    type: JsonType


@dataclass(frozen=True)
class TableSchema:
    """One version. `version` 0 is the empty one nothing was ever written with."""

    version: int = 0
    columns: tuple[Column, ...] = ()

    @cached_property
    def by_key(self) -> dict[str, Column]:
        return {column.key: column for column in self.columns}

    @cached_property
    def parse_schema(self) -> pa.Schema:
        """What the JSON reader is told to expect, by key, `null` parts included."""
        return pa.schema([pa.field(c.key, arrow_type(c.type)) for c in self.columns])

    @cached_property
    def materialised(self) -> list[tuple[Column, JsonType]]:
        """The columns that files have, each with its type in them."""
        found = ((column, materialised(column.type)) for column in self.columns)
        return [(column, kind) for column, kind in found if kind is not None]

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """What a file looks like."""
        fields = [pa.field(c.name, arrow_type(kind)) for c, kind in self.materialised]
        return pa.schema([*RESERVED, *fields])

    def grown(self, seen: Mapping[str, JsonType]) -> TableSchema:
        """This schema with room for what was seen, one version up; itself if nothing is new.

        Keys whose type conflicts, that cannot name a column, or that are beyond `MAX_LEAVES`
        stay without room.
        """
        columns = dict(self.by_key)
        taken = {name.casefold() for name in RESERVED.names}
        taken.update(column.name.casefold() for column in self.columns)
        leaves = sum(leaf_count(column.type) for column in self.columns)
        for key, kind in seen.items():
            known = columns.get(key)
            merged = kind if known is None else merge(known.type, kind, widen=False)
            if merged is None or (known is not None and merged == known.type):
                continue
            added = leaf_count(merged) - (leaf_count(known.type) if known else 0)
            if leaves + added > MAX_LEAVES or not (known or is_column_name(key)):
                continue
            name = known.name if known else _free_name(key, taken)
            taken.add(name.casefold())
            leaves += added
            columns[key] = Column(key, name, merged)
        if columns == self.by_key:
            return self
        return TableSchema(self.version + 1, tuple(columns.values()))

    def to_json(self) -> dict[str, Any]:
        columns = [{"key": c.key, "name": c.name, "type": to_json(c.type)} for c in self.columns]
        return {"version": self.version, "columns": columns}

    @classmethod
    def from_json(cls, value: Any) -> TableSchema:
        """Inverse of `to_json`. Raises ValueError, KeyError or TypeError on anything else."""
        columns = (Column(c["key"], c["name"], from_json(c["type"])) for c in value["columns"])
        return cls(int(value["version"]), tuple(columns))

    @cached_property
    def fingerprint(self) -> str:
        """Names the schema in a file's footer."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def declared(columns: Mapping[str, str]) -> dict[str, JsonType]:
    """The `columns:` of a configuration as types to grow a schema by."""
    return {key: Scalar(kind) for key, kind in columns.items()}


def conflicts(schema: TableSchema, columns: Mapping[str, str]) -> list[str]:
    """Keys whose declared type is not the one files have been written with."""
    found: Iterable[tuple[str, Column | None, JsonType]] = (
        (key, schema.by_key.get(key), kind) for key, kind in declared(columns).items()
    )
    return [key for key, column, kind in found if column is not None and column.type != kind]


def _free_name(key: str, taken: set[str]) -> str:
    """The key itself, or the key with the first number that makes it differ from all others.

    Differ without regard to case: Athena, Hive and DuckDB do not tell `A` from `a`.
    """
    if key.casefold() not in taken:
        return key
    number = 2
    while f"{key}_{number}".casefold() in taken:
        number += 1
    return f"{key}_{number}"
