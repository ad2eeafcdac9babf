"""The types a column can have, and which JSON values each can hold without loss.

`null` is the type of what has only been null so far, and a part of a type: `list<null>` has seen
only empty lists. Such a type takes no column in a file (it is not materialised) until a value
shows what it is.

A value *fits* a type when a column of that type gives the same value back, where a member that
is null counts as absent. What does not fit is kept elsewhere, never bent until it does: 1.5 is
no int64, 2^53 + 1 is no double, "1" is no number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

MAX_NESTING = 16  # of a column's type; what is nested deeper is kept as text
MAX_EXACT_DOUBLE = 2**53  # integers up to here are exact in a double
MAX_NAME_BYTES = 255

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Scalar:
    """One of `null bool int64 double string`."""

    kind: str


@dataclass(frozen=True, slots=True)
class ListOf:
    item: JsonType


@dataclass(frozen=True, slots=True)
class StructOf:
    """Members in the order they were first seen."""

    fields: tuple[tuple[str, JsonType], ...]


JsonType = Scalar | ListOf | StructOf

NULL, BOOL, INT64, DOUBLE, STRING = map(Scalar, ("null", "bool", "int64", "double", "string"))
_ARROW = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
}
_BY_PYTHON_TYPE = {type(None): NULL, bool: BOOL, int: INT64, float: DOUBLE, str: STRING}


def is_column_name(key: str) -> bool:
    """Whether a JSON key can name a column or a member in every reader."""
    return key.isprintable() and 0 < len(key.encode()) <= MAX_NAME_BYTES


def infer(value: object, nesting: int = 0) -> JsonType | None:
    """The narrowest type for a value as `strict_json` reads it; None when there is none.

    None means: nested too deep, an integer beyond 64 bits, lists of mixed kinds, members whose
    names differ only in case.
    """
    if isinstance(value, dict):
        return _infer_struct(value, nesting)
    if isinstance(value, list):
        if nesting == MAX_NESTING:
            return None
        item: JsonType | None = NULL
        for element in value:
            seen = infer(element, nesting + 1)
            item = None if seen is None or item is None else merge(item, seen, widen=True)
            if item is None:
                return None
        assert item is not None
        return ListOf(item)
    kind = _BY_PYTHON_TYPE[type(value)]
    return None if kind is INT64 and not _is_int64(value) else kind


def _infer_struct(value: dict[str, Any], nesting: int) -> JsonType | None:
    if nesting == MAX_NESTING or not _distinct(value):
        return None
    fields = []
    for key, member in value.items():
        kind = infer(member, nesting + 1)
        if kind is None:
            return None
        fields.append((key, kind))
    return StructOf(tuple(fields))


def merge(known: JsonType, seen: JsonType, *, widen: bool) -> JsonType | None:
    """The type that holds both, keeping everything of `known`; None when there is none.

    Structs gain members, `null` becomes what is seen. With `widen`, int64 may become double,
    which is only for types no file has been written with yet.
    """
    if seen == NULL or known == seen:
        return known
    if known == NULL:
        return seen
    if isinstance(known, ListOf) and isinstance(seen, ListOf):
        item = merge(known.item, seen.item, widen=widen)
        return None if item is None else ListOf(item)
    if isinstance(known, StructOf) and isinstance(seen, StructOf):
        return _merge_structs(known, seen, widen=widen)
    if known == DOUBLE and seen == INT64:
        return DOUBLE
    return DOUBLE if widen and known == INT64 and seen == DOUBLE else None


def _merge_structs(known: StructOf, seen: StructOf, *, widen: bool) -> JsonType | None:
    fields = dict(known.fields)
    for key, kind in seen.fields:
        merged = merge(fields[key], kind, widen=widen) if key in fields else kind
        if merged is None:
            return None
        fields[key] = merged
    return StructOf(tuple(fields.items())) if _distinct(fields) else None


def _distinct(names: dict[str, Any]) -> bool:
    """Usable as member names, also for readers that do not tell upper from lower case."""
    return len({name.casefold() for name in names}) == len(names) and all(
        map(is_column_name, names)
    )


def _is_int64(value: object) -> bool:
    return isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX


def materialised(kind: JsonType) -> JsonType | None:
    """The type without its `null` parts, as a file has it; None when nothing is left."""
    if isinstance(kind, ListOf):
        item = materialised(kind.item)
        return None if item is None else ListOf(item)
    if isinstance(kind, StructOf):
        fields = tuple((k, m) for k, t in kind.fields if (m := materialised(t)) is not None)
        return StructOf(fields) if fields else None
    return None if kind == NULL else kind


def leaf_count(kind: JsonType) -> int:
    """How many physical columns the type takes."""
    if isinstance(kind, ListOf):
        return leaf_count(kind.item)
    if isinstance(kind, StructOf):
        return sum(leaf_count(t) for _, t in kind.fields) or 1
    return 1


def arrow_type(kind: JsonType) -> pa.DataType:
    """The Arrow type, `null` parts included."""
    if isinstance(kind, ListOf):
        return pa.list_(arrow_type(kind.item))
    if isinstance(kind, StructOf):
        return pa.struct([pa.field(key, arrow_type(t)) for key, t in kind.fields])
    return _ARROW[kind.kind]


def fitter(kind: JsonType | None) -> Callable[[Any], bool]:
    """A test whether a value fits a materialised type. Null fits every type but None."""
    if kind is None:
        return lambda _: False
    if isinstance(kind, ListOf):
        item = fitter(kind.item)
        return lambda v: v is None or (type(v) is list and all(map(item, v)))
    if isinstance(kind, StructOf):
        return _struct_fitter(kind)
    return _FITTERS[kind.kind]


def _struct_fitter(kind: StructOf) -> Callable[[Any], bool]:
    tests = {key: fitter(t) for key, t in kind.fields}

    def fits(value: Any) -> bool:
        if value is None:
            return True
        if type(value) is not dict:
            return False
        for key, member in value.items():
            test = tests.get(key)
            if member is not None and (test is None or not test(member)):
                return False
        return True

    return fits


_FITTERS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda v: v is None or type(v) is bool,
    "int64": lambda v: v is None or (type(v) is int and _INT64_MIN <= v <= _INT64_MAX),
    "double": lambda v: (
        v is None
        or type(v) is float
        or (type(v) is int and -MAX_EXACT_DOUBLE <= v <= MAX_EXACT_DOUBLE)
    ),
    "string": lambda v: v is None or type(v) is str,
}


def to_json(kind: JsonType) -> Any:
    """The form schema files keep: `"int64"`, `{"list": ...}`, `{"struct": {...}}`."""
    if isinstance(kind, ListOf):
        return {"list": to_json(kind.item)}
    if isinstance(kind, StructOf):
        return {"struct": {key: to_json(t) for key, t in kind.fields}}
    return kind.kind


def from_json(value: Any) -> JsonType:
    """Inverse of `to_json`. Raises ValueError on anything else."""
    if isinstance(value, str) and value in _ARROW:
        return Scalar(value)
    if isinstance(value, dict) and len(value) == 1:
        if "list" in value:
            return ListOf(from_json(value["list"]))
        if isinstance(value.get("struct"), dict):
            return StructOf(tuple((k, from_json(t)) for k, t in value["struct"].items()))
    raise ValueError(f"{value!r} is no column type")
