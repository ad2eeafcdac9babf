"""The request contract as data: operations and shapes read from botocore's service model.

Owns: finding the model (kinesis 2013-12-02 of the botocore that is installed) and turning its
JSON into linked `Shape` objects, once, at the first call of `service_model()`. Importing this
module does not import botocore; the first call costs about 0.2 s, so a server makes it at start.

Does not: check or convert anything (`validation`), or know any operation by name. A newer botocore
with more operations is a larger contract and no change here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

SERVICE = "kinesis"
TARGET_PREFIX = "Kinesis_20131202"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a structure.

    `wire_name` is as it stands in requests (`StreamName`); `report_name` is how AWS names it in
    validation errors (first letter lowered).
    """

    wire_name: str
    shape: Shape
    required: bool
    idempotency_token: bool

    @property
    def report_name(self) -> str:
        return self.wire_name[:1].lower() + self.wire_name[1:]


@dataclass(slots=True, eq=False)
class Shape:
    """One type of the model: `kind` is structure, list, map, string, integer, long, boolean, ….

    `minimum` and `maximum` bound the value of a number and the length of everything else.
    `element` is the type of a list's members or a map's values, `key` that of a map's keys.
    Shapes may refer to each other in circles, hence not frozen; nothing changes one once loaded.
    """

    name: str
    kind: str
    members: tuple[Member, ...] = ()
    element: Shape | None = None
    key: Shape | None = None
    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    sensitive: bool = False
    is_exception: bool = False
    is_event: bool = False
    is_event_stream: bool = False

    def __repr__(self) -> str:
        return f"Shape({self.name}: {self.kind})"

    def walk(self) -> Iterator[Shape]:
        """This shape and every shape it is made of, each once."""
        seen: set[int] = set()
        todo = [self]
        while todo:
            shape = todo.pop()
            if id(shape) in seen:
                continue
            seen.add(id(shape))
            yield shape
            todo.extend(member.shape for member in shape.members)
            todo.extend(inner for inner in (shape.element, shape.key) if inner is not None)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: what it takes, what it answers (None: an empty body), what it may raise."""

    name: str
    input: Shape
    output: Shape | None
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """All operations and shapes by name."""

    operations: Mapping[str, Operation]
    shapes: Mapping[str, Shape] = field(repr=False)

    @classmethod
    def from_json(cls, model: Mapping[str, Any]) -> ServiceModel:
        """From the parsed `service-2.json`.

        Raises:
            KeyError: the model names a shape it does not define.
        """
        definitions = model["shapes"]
        shapes = {name: _bare(name, definition) for name, definition in definitions.items()}
        for name, definition in definitions.items():
            _link(shapes[name], definition, shapes)
        nothing = Shape("Nothing", "structure")
        operations = {
            name: Operation(
                name=name,
                input=shapes[body["input"]["shape"]] if "input" in body else nothing,
                output=shapes[body["output"]["shape"]] if "output" in body else None,
                errors=tuple(error["shape"] for error in body.get("errors", ())),
            )
            for name, body in model["operations"].items()
        }
        return cls(operations, shapes)


def _bare(name: str, definition: Mapping[str, Any]) -> Shape:
    """A shape without its links to others."""
    return Shape(
        name=name,
        kind=definition["type"],
        minimum=definition.get("min"),
        maximum=definition.get("max"),
        pattern=definition.get("pattern"),
        enum=tuple(definition.get("enum", ())),
        sensitive=definition.get("sensitive", False),
        is_exception=definition.get("exception", False),
        is_event=definition.get("event", False),
        is_event_stream=definition.get("eventstream", False),
    )


def _link(shape: Shape, definition: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    required = set(definition.get("required", ()))
    shape.members = tuple(
        Member(
            wire_name=name,
            shape=shapes[reference["shape"]],
            required=name in required,
            idempotency_token=reference.get("idempotencyToken", False),
        )
        for name, reference in definition.get("members", {}).items()
    )
    if "member" in definition:
        shape.element = shapes[definition["member"]["shape"]]
    if "value" in definition:
        shape.element = shapes[definition["value"]["shape"]]
        shape.key = shapes[definition["key"]["shape"]]


@lru_cache(maxsize=1)
def service_model() -> ServiceModel:
    """The model of the installed botocore, loaded at the first call and kept."""
    from botocore.loaders import Loader

    return ServiceModel.from_json(Loader().load_service_model(SERVICE, "service-2"))
