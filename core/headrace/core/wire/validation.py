"""Requests checked and converted by the service model: one mechanism for every operation.

Owns: `validate`, which turns a decoded JSON or CBOR request into the dictionary the operations work
on, or raises what AWS would answer. A wrong type anywhere is a `Serialization`, and wins over every
broken constraint; broken constraints are collected and reported together, ten at most, as on AWS.
Members the model does not know, and nulls, are left out.

Does not: check what needs a stream's state, or what the model does not say. In particular the
newest model no longer requires PartitionKey in PutRecord and PutRecords, nor StreamName anywhere:
the operations do.

Unknown about AWS: the order in which several errors are listed (here: the model's), and its words
for a null inside a list or map (here: as for a member that must not be null).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NoReturn

from headrace.core.errors import (
    InternalFailure,
    Serialization,
    UnknownOperation,
    ValidationError,
)
from headrace.core.wire import conversion
from headrace.core.wire.constraints import NOT_NULL, Constraints, shown
from headrace.core.wire.service_model import Shape, service_model

MAX_REPORTED = 10

SCALARS: dict[str, Callable[[object], Any]] = {
    "string": conversion.to_string,
    "integer": conversion.to_integer,
    "long": conversion.to_long,
    "boolean": conversion.to_boolean,
    "blob": conversion.to_blob,
    "timestamp": conversion.to_timestamp,
}
"""The scalar kinds of the model that are understood. A test walks the model for others."""


def validate(operation: str, request: object) -> dict[str, Any]:
    """A decoded request -> its members as Python values.

    Blobs come back as bytes, timestamps as Unix milliseconds, structures as dictionaries with the
    members that were given. `request` is what `codec.decode_json` or `decode_cbor` returned.

    Raises:
        UnknownOperation: the model has no such operation.
        Serialization: something is of the wrong type.
        ValidationError: constraints of the model are broken; all of them are named, up to ten.
    """
    check = _request_check(operation)
    if not isinstance(request, dict):
        # AWS says nothing about a body that is a scalar; a list it names.
        raise Serialization(
            "Start of list found where not expected" if type(request) is list else ""
        )
    report = _Report()
    converted: dict[str, Any] = check.convert(request, "", report)
    report.raise_if_any()
    return converted


@cache
def _request_check(operation: str) -> _Structure:
    found = service_model().operations.get(operation)
    if found is None:
        raise UnknownOperation("")
    return _Structure(found.input, {})


class _Report:
    """Broken constraints, in the order found."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, path: str, value: object, shape: Shape, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            if len(self._lines) < MAX_REPORTED:
                self._lines.append(f"{_subject(path, value, shape)}: {sentence}")

    def add_null(self, path: str, shape: Shape) -> None:
        self.add(path, None, shape, (NOT_NULL,))

    def raise_if_any(self) -> None:
        if self._lines:
            count = len(self._lines)
            noun = "error" if count == 1 else "errors"
            raise ValidationError(f"{count} validation {noun} detected: {'; '.join(self._lines)}")


def _subject(path: str, value: object, shape: Shape) -> str:
    if value is None:
        return f"Value null at '{path}' failed to satisfy constraint"
    text = shown(value, shape)
    quoted = "" if text is None else f" '{text}'"
    return f"Value{quoted} at '{path}' failed to satisfy constraint"


class _Scalar:
    """How to read a scalar, and the rules for it. Whoever holds it applies and reports them."""

    __slots__ = ("parse", "rules", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.parse = SCALARS[shape.kind]
        self.rules = Constraints(shape)

    def parse_all(self, items: Iterable[object]) -> tuple[list[Any], bool]:
        """All items converted, and whether every one of them is there and keeps the rules."""
        converted = [None if item is None else self.parse(item) for item in items]
        broken = self.rules.broken
        return converted, not any(item is None or broken(item) for item in converted)


class _Structure:
    __slots__ = ("_members", "_shape")

    def __init__(self, shape: Shape, known: dict[int, _Check]) -> None:
        known[id(shape)] = self
        self._shape = shape
        self._members = [
            (member.wire_name, member.report_name, member.required, _check_of(member.shape, known))
            for member in shape.members
        ]

    def convert(self, value: object, path: str, report: _Report) -> dict[str, Any]:
        if type(value) is not dict:
            _refuse_container(value, "Expected null")
        prefix = path + "." if path else ""
        converted: dict[str, Any] = {}
        for wire_name, report_name, required, check in self._members:
            given = value.get(wire_name)
            if given is None:
                if required:
                    report.add_null(prefix + report_name, self._shape)
            elif isinstance(check, _Scalar):
                item = converted[wire_name] = check.parse(given)
                if broken := check.rules.broken(item):
                    report.add(prefix + report_name, item, check.shape, broken)
            else:
                converted[wire_name] = check.convert(given, prefix + report_name, report)
        return converted


class _List:
    """Scalars in a list are reported at the list, once; structures each at its own place."""

    __slots__ = ("_element", "_rules", "_shape")

    def __init__(self, shape: Shape, known: dict[int, _Check]) -> None:
        known[id(shape)] = self
        self._shape = shape
        self._rules = Constraints(shape)
        self._element = _check_of(_inner(shape, shape.element), known)

    def convert(self, value: object, path: str, report: _Report) -> list[Any]:
        if type(value) is not list:
            _refuse_container(value, "Expected list or null")
        report.add(path, value, self._shape, self._rules.broken(value))
        element = self._element
        if isinstance(element, _Scalar):
            converted, good = element.parse_all(value)
            if not good:
                sentence = f"Member must satisfy constraint: {element.rules.all_of()}"
                report.add(path, value, self._shape, (sentence,))
            return converted
        found = []
        for number, item in enumerate(value, 1):
            place = f"{path}.{number}.member"
            if item is None:
                report.add_null(place, self._shape)
            else:
                found.append(element.convert(item, place, report))
        return found


class _Map:
    """Keys are text, values scalars: both are reported at the map, once."""

    __slots__ = ("_key", "_rules", "_shape", "_value")

    def __init__(self, shape: Shape, known: dict[int, _Check]) -> None:
        known[id(shape)] = self
        self._shape = shape
        self._rules = Constraints(shape)
        key = _check_of(_inner(shape, shape.key), known)
        value = _check_of(_inner(shape, shape.element), known)
        if not isinstance(key, _Scalar) or not isinstance(value, _Scalar):
            raise _unknown(f"{shape.name} maps to structures")
        self._key = key
        self._value = value

    def convert(self, value: object, path: str, report: _Report) -> dict[str, Any]:
        if type(value) is not dict:
            _refuse_container(value, "Expected map or null")
        report.add(path, value, self._shape, self._rules.broken(value))
        keys, good = self._key.parse_all(value.keys())
        if not good:
            sentence = f"Map keys must satisfy constraint: {self._key.rules.all_of()}"
            report.add(path, value, self._shape, (sentence,))
        values, good = self._value.parse_all(value.values())
        if not good:
            sentence = f"Map value must satisfy constraint: {self._value.rules.all_of()}"
            report.add(path, value, self._shape, (sentence,))
        return dict(zip(keys, values, strict=True))


_Check = _Scalar | _Structure | _List | _Map


def _check_of(shape: Shape, known: dict[int, _Check]) -> _Check:
    """The check of a shape; `known` ends the circle where shapes refer to each other.

    Raises:
        InternalFailure: the model has a kind of type this file does not know.
    """
    check = known.get(id(shape))
    if check is not None:
        return check
    if shape.kind in SCALARS:
        return _Scalar(shape)
    if shape.kind == "structure":
        return _Structure(shape, known)
    if shape.kind == "list":
        return _List(shape, known)
    if shape.kind == "map":
        return _Map(shape, known)
    raise _unknown(f"{shape.name} is of type {shape.kind!r}")


def _inner(shape: Shape, inner: Shape | None) -> Shape:
    if inner is None:
        raise _unknown(f"{shape.name} does not say what it holds")
    return inner


def _unknown(what: str) -> InternalFailure:
    return InternalFailure(
        f"the service model of the installed botocore is unknown to Headrace: {what}",
        hint="install the newest Headrace, or the botocore it was released with",
    )


def _refuse_container(value: object, expected: str) -> NoReturn:
    if isinstance(value, dict):
        raise Serialization("Start of structure or map found where not expected.")
    if isinstance(value, list):
        raise Serialization("Start of list found where not expected")
    raise Serialization(expected)
