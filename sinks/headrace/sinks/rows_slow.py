"""Any records -> columns, record by record: the way for what `rows_fast` cannot vouch for.

Never fails and never drops: what is no JSON object is kept as text or base64, what does not fit
its column goes to `_rest`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from headrace.sinks import strict_json
from headrace.sinks.json_types import (
    NULL,
    JsonType,
    arrow_type,
    fitter,
    infer,
    is_column_name,
    merge,
)
from headrace.sinks.schema import MAX_LEAVES, RAW_BASE64, RAW_TEXT, REST, TableSchema

Place = tuple[list[Any], Callable[[Any], bool]]


def read(data: Sequence[bytes], schema: TableSchema, seen: dict[str, JsonType]) -> pa.Table:
    """The body columns, a row per item. What the schema has no room for is added to `seen`."""
    count = len(data)
    text: list[str | None] = [None] * count
    encoded: list[str | None] = [None] * count
    rest: list[str | None] = [None] * count
    places: dict[str, Place] = {
        column.key: ([None] * count, fitter(kind)) for column, kind in schema.materialised
    }
    for row, item in enumerate(data):
        value = strict_json.load_object(item)
        if value is None:
            try:
                text[row] = item.decode()
            except UnicodeDecodeError:
                encoded[row] = base64.b64encode(item).decode()
            continue
        left = _place(value, row, places)
        if left:
            _note(left, schema, seen)
            left = {key: member for key, member in left.items() if member is not None}
            if left:
                rest[row] = strict_json.dump(left)
    columns = {RAW_TEXT: text, RAW_BASE64: encoded, REST: rest}
    made = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    for column, kind in schema.materialised:
        made[column.name] = pa.array(places[column.key][0], arrow_type(kind))
    return pa.table(made)


def _place(value: dict[str, Any], row: int, places: dict[str, Place]) -> dict[str, Any]:
    """Put each member into its column; what has none or does not fit is returned."""
    left: dict[str, Any] = {}
    for key, member in value.items():
        place = places.get(key)
        if place is not None and place[1](member):
            place[0][row] = member
        else:
            left[key] = member
    return left


def _note(left: dict[str, Any], schema: TableSchema, seen: dict[str, JsonType]) -> None:
    for key, member in left.items():
        known = seen.get(key)
        if known is None and (len(seen) >= MAX_LEAVES or not is_column_name(key)):
            continue
        column = schema.by_key.get(key)
        kind = infer(member)
        if kind is None or (column is not None and kind == NULL):
            continue
        if known is not None:
            merged = merge(known, kind, widen=column is None)
            kind = known if merged is None else merged
        seen[key] = kind
