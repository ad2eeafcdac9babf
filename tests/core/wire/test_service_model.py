"""The contract as data: every type of the installed model is one that Headrace understands."""

import subprocess
import sys
from typing import Any

import pytest
from botocore.loaders import Loader

from headrace.core.wire.codec import MAX_DEPTH
from headrace.core.wire.service_model import ServiceModel, Shape, service_model
from headrace.core.wire.validation import SCALARS

CONTAINERS = {"structure", "list", "map"}

# What a definition may say. A model that says more must be looked at before it is trusted.
KNOWN_TRAITS = {
    *("type", "documentation", "members", "required", "member", "key", "value"),
    *("min", "max", "pattern", "enum", "sensitive"),
    *("exception", "fault", "error", "event", "eventstream"),
}
KNOWN_MEMBER_TRAITS = {"shape", "documentation", "contextParam", "idempotencyToken"}


def test_importing_the_wire_does_not_import_botocore() -> None:
    modules = "service_model, validation, constraints, conversion, codec, auth"
    code = f"import sys; from headrace.core.wire import {modules}; print('botocore' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_the_model_is_loaded_once() -> None:
    assert service_model() is service_model()


def test_the_model_has_the_operations_of_kinesis() -> None:
    operations = service_model().operations
    assert len(operations) >= 45
    assert {"PutRecords", "GetRecords", "SubscribeToShard", "CreateChannel"} <= set(operations)


def test_every_type_in_a_request_is_known_to_the_validator() -> None:
    for operation in service_model().operations.values():
        for shape in operation.input.walk():
            assert shape.kind in CONTAINERS | set(SCALARS), f"{operation.name}: {shape}"
            if shape.kind == "map":
                assert shape.key is not None and shape.key.kind == "string"
                assert shape.element is not None and shape.element.kind in SCALARS


def test_every_type_in_an_answer_is_known_to_the_codec() -> None:
    for operation in service_model().operations.values():
        for shape in operation.output.walk() if operation.output else ():
            assert shape.kind in CONTAINERS | set(SCALARS), f"{operation.name}: {shape}"


def test_definitions_say_nothing_that_is_not_understood() -> None:
    model = Loader().load_service_model("kinesis", "service-2")
    for name, definition in model["shapes"].items():
        assert set(definition) <= KNOWN_TRAITS, name
        for member, reference in definition.get("members", {}).items():
            assert set(reference) <= KNOWN_MEMBER_TRAITS, f"{name}.{member}"


def test_requests_are_far_less_deep_than_the_decoder_allows() -> None:
    def depth(shape: Shape) -> int:
        inner = [member.shape for member in shape.members]
        inner += [shape.element] if shape.element else []
        return 1 + max(map(depth, inner), default=0)

    deepest = max(depth(operation.input) for operation in service_model().operations.values())
    assert deepest * 2 <= MAX_DEPTH


def test_the_model_does_not_require_a_partition_key_the_operations_do() -> None:
    members = {m.wire_name: m for m in service_model().operations["PutRecord"].input.members}
    assert not members["PartitionKey"].required
    assert members["Data"].required


def test_shapes_may_be_circular() -> None:
    definition: dict[str, Any] = {
        "operations": {"Op": {"input": {"shape": "Tree"}}},
        "shapes": {
            "Tree": {"type": "structure", "members": {"Children": {"shape": "Trees"}}},
            "Trees": {"type": "list", "member": {"shape": "Tree"}},
        },
    }
    tree = ServiceModel.from_json(definition).operations["Op"].input
    assert [shape.name for shape in tree.walk()] == ["Tree", "Trees"]


def test_a_model_that_names_what_it_does_not_define_is_refused() -> None:
    with pytest.raises(KeyError, match="Nowhere"):
        ServiceModel.from_json(
            {"operations": {"Op": {"input": {"shape": "Nowhere"}}}, "shapes": {}}
        )
