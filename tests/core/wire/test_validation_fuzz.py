"""validate() against requests made from the model itself, for every operation there is.

Good requests pass and come out as they went in; a request with one thing wrong names that thing;
garbage of any kind gives an answer or a ServiceError, never another exception.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cbor2
import msgspec
import pybase64
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.errors import Serialization, ServiceError, ValidationError
from headrace.core.wire.codec import decode_cbor, decode_json
from headrace.core.wire.constraints import compile_pattern
from headrace.core.wire.service_model import Shape, service_model
from headrace.core.wire.validation import SCALARS, validate

OPERATIONS = sorted(service_model().operations)
BUSY = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
INT32 = (-(2**31), 2**31 - 1)


def good(shape: Shape, *, whole: bool = False) -> st.SearchStrategy[Any]:
    """Values the model allows, in Python's types (bytes, Unix ms). `whole`: nothing left out."""
    least, most = shape.minimum or 0, shape.maximum
    if shape.kind == "string":
        return _good_text(shape, least, most)
    if shape.kind in ("integer", "long"):
        low = INT32[0] if shape.minimum is None else shape.minimum
        return st.integers(low, INT32[1] if most is None else most)
    if shape.kind == "boolean":
        return st.booleans()
    if shape.kind == "blob":
        return st.binary(min_size=least, max_size=40)
    if shape.kind == "timestamp":
        return st.integers(100_000_000_000, 4_000_000_000_000)
    if shape.kind == "list":
        assert shape.element is not None
        least = max(least, 1) if whole else least
        return st.lists(good(shape.element, whole=whole), min_size=least, max_size=least + 2)
    if shape.kind == "map":
        assert shape.element is not None and shape.key is not None
        least = max(least, 1) if whole else least
        keys, values = good(shape.key), good(shape.element)
        return st.dictionaries(keys, values, min_size=least, max_size=least + 2)
    assert shape.kind == "structure", shape
    required = {m.wire_name: good(m.shape, whole=whole) for m in shape.members if m.required}
    optional = {m.wire_name: good(m.shape, whole=whole) for m in shape.members if not m.required}
    if whole:
        return st.fixed_dictionaries(required | optional)
    return st.fixed_dictionaries(required, optional=optional)


def _good_text(shape: Shape, least: int, most: int | None) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    if shape.pattern is None:
        text = st.characters(exclude_categories=["Cs"])
        return st.text(text, min_size=least, max_size=least + 20)
    pattern = compile_pattern(shape.pattern)
    matching = st.from_regex(pattern, fullmatch=True)
    return matching.filter(lambda text: least <= len(text) <= (most or 129))


def as_json(shape: Shape, value: Any) -> Any:
    """A good value as JSON 1.1 carries it."""
    return _as_wire(
        shape, value, lambda data: pybase64.b64encode(data).decode(), lambda ms: ms / 1000
    )


def as_cbor(shape: Shape, value: Any) -> Any:
    """A good value as CBOR 1.1 carries it, timestamps as the Java SDKs write them."""
    return _as_wire(shape, value, lambda data: data, lambda ms: cbor2.CBORTag(1, ms))


def _as_wire(shape: Shape, value: Any, blob: Any, timestamp: Any) -> Any:
    if shape.kind == "blob":
        return blob(value)
    if shape.kind == "timestamp":
        return timestamp(value)
    if shape.kind == "list":
        assert shape.element is not None
        return [_as_wire(shape.element, item, blob, timestamp) for item in value]
    if shape.kind == "structure":
        shapes = {member.wire_name: member.shape for member in shape.members}
        return {name: _as_wire(shapes[name], item, blob, timestamp) for name, item in value.items()}
    return value


@pytest.mark.parametrize("operation", OPERATIONS)
def test_good_requests_pass_in_json_and_cbor_alike(operation: str) -> None:
    shape = service_model().operations[operation].input

    @BUSY
    @given(good(shape))
    def check(request: dict[str, Any]) -> None:
        json_body = msgspec.json.encode(as_json(shape, request))
        assert validate(operation, decode_json(json_body)) == request
        cbor_body = cbor2.dumps(as_cbor(shape, request))
        assert validate(operation, decode_cbor(cbor_body)) == request

    check()


def test_our_reading_of_a_pattern_allows_nothing_the_model_does_not() -> None:
    patterns = {s.pattern for s in service_model().shapes.values() if s.pattern}
    assert len(patterns) > 10

    @BUSY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        pattern = data.draw(st.sampled_from(sorted(patterns)))
        text = data.draw(st.from_regex(compile_pattern(pattern), fullmatch=True))
        assert re.fullmatch(pattern, text, re.ASCII)  # Java's classes are

    check()


@dataclass(frozen=True)
class Fault:
    """One thing to put wrong: what goes where in a request, and what must be reported."""

    place: tuple[str | int, ...]
    report_place: str
    value: Any  # or REMOVED for what must not be null, or a function of the good value
    rule: str
    context: str = ""  # how AWS begins when it is the rule of something inside

    def apply(self, request: Any) -> Any:
        changed = copy.deepcopy(request)
        inner = changed
        for name in self.place[:-1]:
            inner = inner[name]
        if self.value is REMOVED:
            del inner[self.place[-1]]
        elif callable(self.value):
            inner[self.place[-1]] = self.value(inner[self.place[-1]])
        else:
            inner[self.place[-1]] = self.value
        return changed


REMOVED = object()
MEMBER = "Member must satisfy constraint: ["
KEYS = "Map keys must satisfy constraint: ["
VALUE = "Map value must satisfy constraint: ["
Place = tuple[str | int, ...]


def faults(shape: Shape, place: Place = (), named: str = "") -> Iterator[Fault]:
    """Every single thing that can be wrong in a structure by the model."""
    for member in shape.members:
        inner_place = (*place, member.wire_name)
        inner_named = f"{named}.{member.report_name}" if named else member.report_name
        if member.required:
            yield Fault(inner_place, inner_named, REMOVED, "Member must not be null")
        yield from _faults_of(member.shape, inner_place, inner_named)


def _faults_of(shape: Shape, place: Place, named: str) -> Iterator[Fault]:
    if shape.kind == "structure":
        yield from faults(shape, place, named)
    if shape.kind == "list":
        assert shape.element is not None
        if shape.element.kind == "structure":
            yield from faults(shape.element, (*place, 0), f"{named}.1.member")
        else:
            for value, rule in _broken_scalars(shape.element):
                yield Fault((*place, 0), named, value, rule, MEMBER)
        if shape.minimum:
            yield Fault(place, named, [], _length("greater", shape.minimum))
        if shape.maximum is not None and shape.maximum <= 500:
            count = shape.maximum + 1
            yield Fault(place, named, lambda good: good[:1] * count, _length("less", shape.maximum))
    if shape.kind == "map":
        assert shape.element is not None and shape.key is not None
        for value, rule in _broken_scalars(shape.key):
            yield Fault((*place, value), named, "", rule, KEYS)
        for value, rule in _broken_scalars(shape.element):
            yield Fault((*place, "k"), named, value, rule, VALUE)
        if shape.minimum:
            yield Fault(place, named, {}, _length("greater", shape.minimum))
        if shape.maximum is not None:
            many = {str(number): "" for number in range(shape.maximum + 1)}
            yield Fault(place, named, many, _length("less", shape.maximum))
    if shape.kind in SCALARS and shape.kind != "blob":
        for value, rule in _broken_scalars(shape):
            yield Fault(place, named, value, rule)


def _broken_scalars(shape: Shape) -> Iterator[tuple[Any, str]]:
    """Values that break one rule of a shape each (a short one its pattern too), with the rule."""
    if shape.kind in ("integer", "long"):
        measured = "Member must have value {} than or equal to {}"
        if shape.minimum is not None:
            yield shape.minimum - 1, measured.format("greater", shape.minimum)
        if shape.maximum is not None:
            yield shape.maximum + 1, measured.format("less", shape.maximum)
    if shape.kind == "string":
        if shape.minimum:
            yield "a" * (shape.minimum - 1), _length("greater", shape.minimum)
        if shape.maximum is not None and shape.maximum < 100_000:
            yield "a" * (shape.maximum + 1), _length("less", shape.maximum)
        if shape.pattern is not None:
            texts = [character * (shape.minimum or 1) for character in "\n:é"]
            wrong = next(text for text in texts if not re.fullmatch(shape.pattern, text))
            yield wrong, f"Member must satisfy regular expression pattern: {shape.pattern}"
        if shape.enum:
            yield "NO_SUCH_VALUE", "Member must satisfy enum value set: ["


def _length(direction: str, bound: int) -> str:
    return f"Member must have length {direction} than or equal to {bound}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_single_fault_is_named(operation: str) -> None:
    shape = service_model().operations[operation].input
    every_fault = list(faults(shape))
    if not every_fault:
        assert not shape.members
        return

    @settings(BUSY, max_examples=3)
    @given(good(shape, whole=True))
    def check(request: dict[str, Any]) -> None:
        for fault in every_fault:
            changed = fault.apply(as_json(shape, request))
            with pytest.raises(ValidationError) as caught:
                validate(operation, changed)
            told = caught.value.message
            places = re.findall(r"at '([^']*)' failed to satisfy constraint: ", told)
            assert set(places) == {fault.report_place}, (fault, told)
            assert fault.rule in told.partition(f"constraint: {fault.context}")[2], (fault, told)

    check()


def test_no_operation_is_without_rules_by_mistake() -> None:
    """Counted by hand once, so that the walk above cannot quietly become empty."""
    counts = {name: len(list(faults(op.input))) for name, op in service_model().operations.items()}
    assert counts["DescribeLimits"] == 0
    assert counts["ListStreams"] == 6  # name: short, long, pattern; limit: two; token: short
    assert sum(counts.values()) > 400


WRONG_TYPES: dict[str, list[Any]] = {
    "string": [5, 1.5, True, [], {}],
    "integer": ["5", True, [], {}],
    "long": ["5", True, [], {}],
    "boolean": ["maybe", 5, [], {}],
    "blob": ["no base64!", 5, True, [], {}],
    "timestamp": ["now", True, [], {}],
    "list": ["x", 5, 1.5, True, {}],
    "map": ["x", 5, 1.5, True, []],
    "structure": ["x", 5, 1.5, True, []],
}


def places_of_types(shape: Shape, place: Place = ()) -> Iterator[tuple[Place, str]]:
    for member in shape.members:
        yield from _places_below(member.shape, (*place, member.wire_name))


def _places_below(shape: Shape, place: Place) -> Iterator[tuple[Place, str]]:
    yield place, shape.kind
    if shape.kind == "structure":
        yield from places_of_types(shape, place)
    if shape.kind == "list" and shape.element is not None:
        yield from _places_below(shape.element, (*place, 0))
    if shape.kind == "map" and shape.element is not None:
        yield (*place, "k"), shape.element.kind


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_wrong_type_anywhere_is_a_serialization_error(operation: str) -> None:
    shape = service_model().operations[operation].input

    @settings(BUSY, max_examples=2)
    @given(good(shape, whole=True))
    def check(request: dict[str, Any]) -> None:
        for place, kind in places_of_types(shape):
            for value in WRONG_TYPES[kind]:
                changed = Fault(place, "", value, "").apply(as_json(shape, request))
                with pytest.raises(Serialization) as caught:
                    validate(operation, changed)
                assert caught.value.message

    check()


NAMES = sorted({m.wire_name for s in service_model().shapes.values() for m in s.members})
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=10)
    | st.sampled_from(["", "AAAA", "LATEST", "a" * 3000])
)
GARBAGE = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(BUSY, max_examples=600)
@given(st.sampled_from(OPERATIONS), st.data())
def test_garbage_gives_an_answer_or_a_service_error(operation: str, data: st.DataObject) -> None:
    names = [member.wire_name for member in service_model().operations[operation].input.members]
    members = st.dictionaries(st.sampled_from(names or ["x"]), GARBAGE, max_size=6)
    request = data.draw(GARBAGE | members)
    try:
        answer = validate(operation, request)
    except ServiceError as error:
        assert error.status == 400
        assert len(error.message) < 100_000
    else:
        assert set(answer) <= set(names)


@settings(BUSY, max_examples=300)
@given(st.sampled_from(OPERATIONS), st.data())
def test_a_cbor_request_with_any_byte_changed_gives_an_answer_or_a_service_error(
    operation: str, data: st.DataObject
) -> None:
    shape = service_model().operations[operation].input
    body = bytearray(cbor2.dumps(as_cbor(shape, data.draw(good(shape, whole=True)))))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        validate(operation, decode_cbor(bytes(body)))
    except ServiceError as error:
        assert error.status == 400
