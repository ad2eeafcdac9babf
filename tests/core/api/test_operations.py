"""The service model walked: every operation is answered, every member of a request is used."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from api_support import Raw
from headrace.core.control.machine import ControlState
from headrace.core.service import (
    addressing,
    catalog,
    operations,
    puts,
    reads,
    shards,
    streams,
    subscriptions,
)
from headrace.core.wire import dispatch, hot_answers, hot_requests
from headrace.core.wire.service_model import Operation, Shape, service_model

NOT_YET = ("Channel", "Queue")  # CreateChannel, ListChannels, …

# Members that no operation looks at, and why.
UNUSED = {
    "StreamId": "the model: not implemented, reserved for future use",
    "GetRecords.StreamARN": "a shard iterator names its stream, and is signed",
    "UpdateShardCount.ScalingType": "the model allows one value",
}


def all_operations() -> list[Operation]:
    return [
        operation
        for name, operation in service_model().operations.items()
        if not any(word in name for word in NOT_YET)
    ]


def answered() -> dict[str, Any]:
    """Operation -> the function that answers it, from the server's own tables."""
    source = inspect.getsource(dispatch.Dispatcher.__init__) + inspect.getsource(operations)
    return {
        operation.name: operation
        for operation in all_operations()
        if f'"{operation.name}"' in source
    }


def test_forty_operations_are_answered() -> None:
    assert len(all_operations()) == 40
    assert sorted(answered()) == sorted(operation.name for operation in all_operations())


def test_every_operation_gets_past_its_name(raw: Raw) -> None:
    for operation in all_operations():
        reply = raw.call(operation.name, {})
        if reply.status != 200:
            assert reply.json["__type"] in {*operation.errors, "ValidationException"}, operation
            assert reply.json["message"], operation


@pytest.mark.parametrize("name", ["CreateChannel", "ListChannels", "CreateQueue", "Nothing"])
def test_what_is_not_there_yet_is_unknown(raw: Raw, name: str) -> None:
    reply = raw.call(name, {})
    assert (reply.status, reply.json) == (400, {"__type": "UnknownOperationException"})


SHARED: list[ModuleType] = [addressing, catalog]


def source_of(operation: str) -> str:
    """The text of the modules that answer an operation."""
    if operation in ("PutRecord", "PutRecords", "GetRecords"):
        return inspect.getsource(hot_requests) + inspect.getsource(hot_answers)
    if operation == "GetShardIterator":
        return inspect.getsource(puts) + inspect.getsource(reads) + inspect.getsource(operations)
    if operation == "SubscribeToShard":
        return inspect.getsource(subscriptions)
    known: list[ModuleType] = [streams, shards]
    folder = Path(streams.__file__).parent
    method = "async def " + "".join(
        f"_{c.lower()}" if c.isupper() else c for c in operation
    ).removeprefix("_")
    for path in folder.glob("*.py"):
        text = path.read_text()
        if f"{method}(" in text:
            return text
    raise AssertionError(f"no module of {known[0].__package__} answers {operation}")


def members(shape: Shape, path: str = "") -> list[str]:
    """Every member's name, also of the structures within."""
    found = []
    for member in shape.members:
        found.append(member.wire_name)
        inner = member.shape.element if member.shape.kind == "list" else member.shape
        if inner is not None and inner.kind == "structure":
            found += members(inner)
    return found


@pytest.mark.parametrize("operation", all_operations(), ids=lambda o: o.name)
def test_every_member_is_used_or_not_for_a_reason(operation: Operation) -> None:
    source = source_of(operation.name)
    for member in members(operation.input):
        if member in UNUSED or f"{operation.name}.{member}" in UNUSED:
            continue
        assert f'"{member}"' in source or f"    {member}: " in source, member


@pytest.mark.parametrize("entry", UNUSED)
def test_no_reason_is_out_of_date(entry: str) -> None:
    name, _, member = entry.rpartition(".")
    concerned = [o for o in all_operations() if not name or o.name == name]
    assert any(member in members(operation.input) for operation in concerned)


# Snapshots written before there were consumers, policies and the rest


def test_an_old_snapshot_still_loads() -> None:
    old = {
        "streams": {
            "streams": {
                "1/r/s": {
                    "uid": "00",
                    "account": "1",
                    "region": "r",
                    "name": "s",
                    "created_ms": 5,
                    "mode": "PROVISIONED",
                    "status": "ACTIVE",
                    "shards": [{"number": 0, "start": "0", "end": "9", "created_s": 1}],
                    "tags": {"a": "b"},
                }
            }
        },
        "leases": {"applications": {}},
    }
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=ControlState)
    stream = state.streams.streams["1/r/s"]
    assert (stream.consumers, stream.policy, stream.encryption, stream.pending) == (
        {}, None, "NONE", None,
    )  # fmt: skip
    assert state.accounts.commitments == {}
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ControlState)
    assert again == state
