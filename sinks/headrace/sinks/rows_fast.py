"""JSON lines -> columns through Arrow's reader, or not at all.

The reader is told exactly what to expect and to refuse anything else, so it infers nothing (its
inference turns some strings into timestamps and large integers into rounded doubles). It was
probed for what it takes in silence all the same, and that is checked here: how many rows a line
makes, integers in a double column, infinities and NaN, text that is not UTF-8. Repeated keys,
lone surrogates, bare control characters, numbers that do not fit their type it refuses itself;
the tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from headrace.core.limits import MIB
from headrace.sinks import strict_json
from headrace.sinks.json_types import (
    MAX_EXACT_DOUBLE,
    NULL,
    JsonType,
    ListOf,
    StructOf,
    arrow_type,
    materialised,
)
from headrace.sinks.schema import RAW_BASE64, RAW_TEXT, REST, TableSchema

_WHITESPACE = b" \t\r\n"


def parse(data: Sequence[bytes], schema: TableSchema) -> pa.Table | None:
    """The body columns, a row per item, or None if any item is more than this can vouch for.

    That one item is one row is shown by counting: every line starts with `{` and ends with `}`,
    and no string may hold a bare line feed, so `}` and `{` across a line's end can only lie
    between two objects. Then as many rows as lines means one each.
    """
    joined = _lines(data)
    if joined is None or not _is_utf8(joined):
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(joined),
            read_options=pj.ReadOptions(
                block_size=max(MIB, 2 * max(map(len, data)) + 2),
                use_threads=len(joined) > MIB,  # below it, handing over costs more than parsing
            ),
            parse_options=pj.ParseOptions(
                explicit_schema=schema.parse_schema, unexpected_field_behavior="error"
            ),
        )
    except pa.ArrowInvalid:
        return None
    return _body(table, schema) if table.num_rows == len(data) else None


def _lines(data: Sequence[bytes]) -> bytes | None:
    """The items joined, one on each line, if each looks like an object from `{` to `}`."""
    if not data:
        return None
    joints = len(data) - 1
    joined = b"\n".join(data)
    if joined.count(b"\n") > joints:  # many producers end each record with a line feed
        joined = b"\n".join([item.strip(_WHITESPACE) for item in data])
    if joined.count(b"\n") != joints or joined.count(b"}\n{") != joints:
        return None
    return joined if joined[:1] == b"{" and joined[-1:] == b"}" else None


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    offsets = pa.array([0, len(data)], pa.int64()).buffers()[1]
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _body(parsed: pa.Table, schema: TableSchema) -> pa.Table | None:
    """Parsed columns by key -> body columns by name; None if something would be lost."""
    rows = parsed.num_rows
    columns: dict[str, Any] = {}
    rest: list[Any] = []
    for column, values in zip(schema.columns, parsed.columns, strict=True):
        kind = materialised(column.type)
        if kind is None:
            if values.null_count == rows:
                continue
            text = _empties(column.key, values, column.type)
            if text is None:
                return None
            rest.append(text)
        elif not _is_exact(values, column.type):
            return None
        else:
            columns[column.name] = values if kind == column.type else values.cast(arrow_type(kind))
    nothing = pa.nulls(rows, pa.string())
    rest_text = _objects(rest) if rest else nothing
    return pa.table({RAW_TEXT: nothing, RAW_BASE64: nothing, REST: rest_text, **columns})


def _is_exact(values: pa.ChunkedArray, kind: JsonType) -> bool:
    """Whether the materialised part of a column gives back everything that was read into it.

    False if a double may be an integer that was rounded or is not finite, or if a member that
    no file has a column for holds more than null.
    """
    if materialised(kind) is None:
        return bool(values.null_count == len(values))
    if isinstance(kind, ListOf):
        return _is_exact(pc.list_flatten(values), kind.item)
    if isinstance(kind, StructOf):
        return all(
            _is_exact(pc.struct_field(values, [i]), member)
            for i, (_, member) in enumerate(kind.fields)
        )
    if kind.kind == "double":
        in_range = pc.less(pc.abs(values), float(MAX_EXACT_DOUBLE))  # NaN is less than nothing
        return pc.all(in_range).as_py() is not False
    return True


def _empties(key: str, values: pa.ChunkedArray, kind: JsonType) -> Any:
    """`,"key":[]` or `,"key":{}` for rows that have it, "" for others; None if it is more.

    Lists that are always empty are common; they must not cost the whole batch its speed.
    """
    if isinstance(kind, ListOf) and not pc.max(pc.list_value_length(values)).as_py():
        empty = "[]"
    elif isinstance(kind, StructOf) and all(member == NULL for _, member in kind.fields):
        empty = "{}"
    else:
        return None
    text = pa.scalar(f",{strict_json.dump(key)}:{empty}")
    return pc.if_else(pc.is_valid(values), text, pa.scalar(""))


def _objects(members: list[Any]) -> Any:
    """Columns of `,"key":value` or "" -> a column of JSON objects, null where all are ""."""
    text = pc.binary_join_element_wise(*members, "")
    inside = pc.utf8_slice_codeunits(text, 1)
    whole = pc.binary_join_element_wise("{", inside, "}", "")
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), whole)
