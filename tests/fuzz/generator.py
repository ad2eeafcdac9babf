"""Requests that are nearly right, for every operation, drawn from the service model.

What a member is called decides first: names, ARNs, shard ids, iterators and sequence numbers are
mostly those of streams that are there, or requests would end at "not found" and reach nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fuzz.wire_form import Ms
from headrace.core.service.leases import OPERATIONS as LEASE_OPERATIONS
from headrace.core.wire.service_model import Shape, service_model

KINESIS = "Kinesis_20131202."
EXTENSION = "Headrace_20261122."
UNSERVED = ("Queue", "Channel")  # operations of the model that answer as unknown
# how often a member that may be left out is there; 0.6 of the others
HOW_OFTEN = {
    "StreamId": 0.02, "DryRun": 0.1, "NextToken": 0.2, "StreamCreationTimestamp": 0.1,
    "WarmThroughputMiBps": 0.2, "RecordDistributionStrategy": 0.2,
    "StreamName": 0.97, "StreamARN": 0.97, "PartitionKey": 0.97,
}  # fmt: skip
PLAIN = "a"
TEXTS = (
    "a",
    "k" * 128,
    "é",
    "0",
    "x y",
    "\x00",
    "\U0001d4b3",
    "shardId-000000000000",
    "{}",
    "%s",
    "../..",
)
INT32 = 2**31 - 1


def operations() -> list[str]:
    """All that is answered, as X-Amz-Target names it."""
    served = [n for n in service_model().operations if not any(word in n for word in UNSERVED)]
    return [KINESIS + n for n in sorted(served)] + [EXTENSION + n for n in sorted(LEASE_OPERATIONS)]


def operation_name(target: str) -> str:
    return target.partition(".")[2]


def declared_errors(target: str) -> frozenset[str]:
    """The errors the model declares for an operation; none for those of the extension."""
    found = service_model().operations.get(operation_name(target))
    return frozenset(found.errors if found else ())


@dataclass
class Known:
    """What is there to be named: values by the member that would hold them."""

    values: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, member: str, value: Any) -> None:
        held = self.values.setdefault(member, [])
        if value not in held:
            held.append(value)
            del held[:-20]

    def learn(self, answer: Any) -> None:
        """Take up what an answer names, so that later requests go on from there."""
        if isinstance(answer, dict):
            for name, value in answer.items():
                if isinstance(value, str) and name in LEARNT:
                    self.add(LEARNT[name], value)
                self.learn(value)
        elif isinstance(answer, list):
            for item in answer[:20]:
                self.learn(item)


# a member of answers -> the member of requests that takes it
LEARNT = {
    "NextShardIterator": "ShardIterator",
    "ShardIterator": "ShardIterator",
    "ShardId": "ShardId",
    "SequenceNumber": "SequenceNumber",
    "StartingSequenceNumber": "SequenceNumber",
    "NextToken": "NextToken",
    "ConsumerARN": "ConsumerARN",
}
# members that take each other's values
ALIASES = {
    "StartingSequenceNumber": "SequenceNumber",
    "SequenceNumberForOrdering": "SequenceNumber",
    "Checkpoint": "SequenceNumber",
    "ExclusiveStartShardId": "ShardId",
    "ShardToSplit": "ShardId",
    "ShardToMerge": "ShardId",
    "AdjacentShardToMerge": "ShardId",
    "ResourceARN": "StreamARN",
    "ExplicitHashKey": "HashKey",
    "NewStartingHashKey": "HashKey",
}
SMALL = {"ShardCount": (1, 4), "TargetShardCount": (1, 6), "RetentionPeriodHours": (24, 48)}


class Generator:
    """Draws requests. The same `chance` draws the same ones while `known` is the same."""

    def __init__(self, chance: random.Random, known: Known) -> None:
        self._chance = chance
        self._known = known

    def request(self, target: str) -> dict[str, Any]:
        """A request that keeps the model's rules, or nearly."""
        name = operation_name(target)
        if target.startswith(EXTENSION):
            return self._lease_request(name)
        drawn = self._value("", service_model().operations[name].input)
        assert isinstance(drawn, dict)
        return drawn

    def _value(self, member: str, shape: Shape) -> Any:
        chance = self._chance
        known = self._known.values.get(ALIASES.get(member, member))
        if known and shape.kind == "string" and chance.random() < 0.85:
            return chance.choice(known)
        low, high = shape.minimum or 0, shape.maximum
        match shape.kind:
            case "structure":
                unwanted = chance.choice(["StreamARN", "StreamName"])  # either names the stream
                return {
                    m.wire_name: self._value(m.wire_name, m.shape)
                    for m in shape.members
                    if m.required
                    or (
                        m.wire_name != unwanted
                        and chance.random() < HOW_OFTEN.get(m.wire_name, 0.6)
                    )
                }
            case "list":
                assert shape.element is not None
                return [
                    self._value(member, shape.element) for _ in range(low + chance.randrange(3))
                ]
            case "map":
                assert shape.element is not None
                count = low + chance.randrange(3)
                return {self._text(1, 128): self._value("", shape.element) for _ in range(count)}
            case "string":
                return chance.choice(shape.enum) if shape.enum else self._text(low, high)
            case "integer" | "long":
                if member in SMALL:
                    return chance.randint(*SMALL[member])
                return chance.choice([low, low + 1, high or INT32, chance.randint(low, 10_000)])
            case "boolean":
                return chance.random() < 0.5
            case "timestamp":
                return Ms(chance.randint(0, 2_000_000_000_000))
        return chance.randbytes(chance.choice([0, 1, 50, 3_000]))

    def _text(self, low: int, high: int | None) -> str:
        text = PLAIN if self._chance.random() < 0.7 else self._chance.choice(TEXTS)
        return (text * (low // len(text) + 1))[: high or 1_000]

    def _lease_request(self, name: str) -> dict[str, Any]:
        request_type, _ = LEASE_OPERATIONS[name]
        return {
            f.encode_name: self._lease_value(f.encode_name)
            for f in msgspec.structs.fields(request_type)
            if f.required or self._chance.random() < 0.5
        }

    def _lease_value(self, member: str) -> Any:
        chance = self._chance
        known = self._known.values.get(ALIASES.get(member, member))
        if known and chance.random() < 0.9:
            return chance.choice(known)
        if member == "Shards":
            return [self._lease_shard() for _ in range(chance.randrange(4))]
        if member == "State":
            return chance.randbytes(chance.choice([0, 10, 5_000]))
        if member in ("Counter", "ExpectedCounter", "ExpectedOwnerHeartbeat", "MaxResults"):
            return chance.choice([0, 1, 2, 1_000, 2**63 - 1])
        return chance.choice(["a", "SHARD_END", "49", "app", "é"])

    def _lease_shard(self) -> dict[str, Any]:
        return {
            "ShardId": self._lease_value("ShardId"),
            "ParentShardIds": [],
            "StartingSequenceNumber": self._lease_value("SequenceNumber"),
        }
