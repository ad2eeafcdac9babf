"""A stream against a model of it: lists of records, one a shard.

Hypothesis makes up the story: puts, splits, merges, readers that begin anywhere and read any
number at a time, and kills of the server. After every step the model must be right.
"""

from __future__ import annotations

import hashlib
import itertools
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from api_support import TOP, Raw, b64, hash_range
from headrace.core.testing.server_process import ServerProcess

KEYS = st.one_of(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)
HASH_KEYS = st.one_of(st.none(), st.integers(0, TOP), st.sampled_from([0, TOP, 2**127]))
RECORDS = st.lists(st.tuples(st.binary(max_size=30), KEYS, HASH_KEYS), min_size=1, max_size=12)
_names = (f"model-{i}" for i in itertools.count())


@dataclass
class Shard:
    """One shard of the model. `records` are (data, key, sequence number)."""

    start: int
    end: int
    parents: list[int]
    records: list[tuple[bytes, str, str]] = field(default_factory=list)
    is_open: bool = True


@dataclass
class Reader:
    """A reader that has its iterator, and how many of the shard's records are behind it."""

    shard: int
    token: str | None
    behind: int


class StreamModel(RuleBasedStateMachine):
    server: ClassVar[ServerProcess]

    def __init__(self) -> None:
        super().__init__()
        self.name = next(_names)
        self.raw = Raw(self.server.endpoint)
        self.shards: list[Shard] = []
        self.readers: list[Reader] = []
        self.kills = 0
        self.produced = 0  # sequences of the one idempotent producer

    def call(self, operation: str, *, headers: dict[str, str] | None = None, **members: Any) -> Any:
        request = {"StreamName": self.name, **members}
        reply = self.raw.call(operation, request, headers=headers)
        assert reply.status == 200, reply.body
        return reply.json if reply.body else None

    def get(self, token: str, limit: int) -> Any:
        reply = self.raw.call("GetRecords", {"ShardIterator": token, "Limit": limit})
        assert reply.status == 200, reply.body
        return reply.json

    @property
    def open_numbers(self) -> list[int]:
        """Open shards in the order of their ranges."""
        numbers = [i for i, shard in enumerate(self.shards) if shard.is_open]
        return sorted(numbers, key=lambda i: self.shards[i].start)

    @initialize(count=st.integers(1, 4))
    def create(self, count: int) -> None:
        self.call("CreateStream", ShardCount=count)
        step = 2**128 // count
        for i in range(count):
            end = TOP if i == count - 1 else (i + 1) * step - 1
            self.shards.append(Shard(i * step, end, []))

    @rule(records=RECORDS)
    def put(self, records: list[tuple[bytes, str, int | None]]) -> None:
        entries = [
            {"Data": b64(data), "PartitionKey": key}
            | ({} if hash_key is None else {"ExplicitHashKey": str(hash_key)})
            for data, key, hash_key in records
        ]
        answer = self.call("PutRecords", Records=entries)
        assert answer["FailedRecordCount"] == 0
        for (data, key, hash_key), result in zip(records, answer["Records"], strict=True):
            self.stored(data, key, hash_key, result)

    def stored(self, data: bytes, key: str, hash_key: int | None, result: dict[str, str]) -> None:
        """A record is the last of its shard now, and its number the greatest so far."""
        if hash_key is None:
            hash_key = int(hashlib.md5(key.encode()).hexdigest(), 16)
        number = int(result["ShardId"].removeprefix("shardId-"))
        shard = self.shards[number]
        assert shard.is_open
        assert shard.start <= hash_key <= shard.end
        sequence_number = result["SequenceNumber"]
        for one in (number, *shard.parents):
            if self.shards[one].records:
                assert int(sequence_number) > int(self.shards[one].records[-1][2])
        shard.records.append((data, key, sequence_number))

    @rule(again=st.integers(0, 40), more=st.integers(0, 10))
    def produce(self, again: int, more: int) -> None:
        """An idempotent producer sends the last `again` records once more, and new ones."""
        first = max(self.produced - again, 0)
        sequences = range(first, self.produced + more)
        if not sequences:
            return
        pairs = [(b"produced %d" % i, f"key {i % 13}") for i in sequences]
        answer = self.call(
            "PutRecords",
            Records=[{"Data": b64(data), "PartitionKey": key} for data, key in pairs],
            headers={
                "X-Headrace-Producer": "p",
                "X-Headrace-Producer-Sequences": ",".join([str(first)] + ["1"] * (len(pairs) - 1)),
            },
        )
        for i, (data, key), result in zip(sequences, pairs, answer["Records"], strict=True):
            if i >= self.produced:
                self.stored(data, key, None, result)
                continue
            shard = self.shards[int(result["ShardId"].removeprefix("shardId-"))]
            assert result["SequenceNumber"] in [record[2] for record in shard.records]
        self.produced += more

    @rule(which=st.integers(0, 99), where=st.integers(2, 2**128))
    def split(self, which: int, where: int) -> None:
        numbers = self.open_numbers
        number = numbers[which % len(numbers)]
        shard = self.shards[number]
        if shard.end - shard.start < 4:
            return
        at = shard.start + 2 + where % (shard.end - shard.start - 2)
        self.call("SplitShard", ShardToSplit=f"shardId-{number}", NewStartingHashKey=str(at))
        shard.is_open = False
        self.shards.append(Shard(shard.start, at - 1, [number]))
        self.shards.append(Shard(at, shard.end, [number]))

    @precondition(lambda self: len(self.open_numbers) > 1)
    @rule(which=st.integers(0, 99))
    def merge(self, which: int) -> None:
        numbers = self.open_numbers
        at = which % (len(numbers) - 1)
        one, other = numbers[at : at + 2]
        self.call(
            "MergeShards",
            ShardToMerge=f"shardId-{one:012d}",
            AdjacentShardToMerge=f"shardId-{other:012d}",
        )
        for number in (one, other):
            self.shards[number].is_open = False
        self.shards.append(Shard(self.shards[one].start, self.shards[other].end, [one, other]))

    @rule(
        which=st.integers(0, 99),
        kind=st.sampled_from(["TRIM_HORIZON", "LATEST", "AT", "AFTER", "AT_TIMESTAMP"]),
        at=st.integers(0, 999),
    )
    def begin_to_read(self, which: int, kind: str, at: int) -> None:
        number = which % len(self.shards)
        records = self.shards[number].records
        more: dict[str, Any] = {}
        behind = 0
        if kind == "LATEST":
            behind = len(records)
        elif kind == "AT_TIMESTAMP":
            more["Timestamp"] = 0
        elif kind != "TRIM_HORIZON":
            if not records:
                return
            at %= len(records)
            more["StartingSequenceNumber"] = records[at][2]
            behind = at + (kind == "AFTER")
            kind += "_SEQUENCE_NUMBER"
        answer = self.call(
            "GetShardIterator", ShardId=f"shardId-{number:012d}", ShardIteratorType=kind, **more
        )
        self.readers.append(Reader(number, answer["ShardIterator"], behind))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 99), limit=st.sampled_from([1, 2, 3, 5, 10_000]))
    def read(self, which: int, limit: int) -> None:
        reader = self.readers[which % len(self.readers)]
        if reader.token is None:
            return
        answer = self.get(reader.token, limit)
        shard = self.shards[reader.shard]
        found = [
            (b64decode(r["Data"]), r["PartitionKey"], r["SequenceNumber"])
            for r in answer["Records"]
        ]
        assert found == shard.records[reader.behind : reader.behind + limit]
        reader.behind += len(found)
        reader.token = answer.get("NextShardIterator")
        is_at_end = reader.behind == len(shard.records) and not shard.is_open
        assert (reader.token is None) == is_at_end
        if is_at_end:
            children = [int(child["ShardId"][-12:]) for child in answer["ChildShards"]]
            assert children == [i for i, s in enumerate(self.shards) if reader.shard in s.parents]
        elif reader.behind == len(shard.records):
            assert answer["MillisBehindLatest"] == 0

    @precondition(lambda self: self.kills < 2)
    @rule()
    def kill_the_server(self) -> None:
        self.kills += 1
        self.raw.close()
        self.server.kill()
        self.server.start()
        self.raw = Raw(self.server.endpoint)

    @invariant()
    def open_shards_tile_all_hash_keys(self) -> None:
        if not self.shards:
            return
        described = self.call("ListShards")["Shards"]
        assert [hash_range(shard) for shard in described] == [
            (shard.start, shard.end) for shard in self.shards
        ]
        is_open = ["EndingSequenceNumber" not in s["SequenceNumberRange"] for s in described]
        assert is_open == [shard.is_open for shard in self.shards]
        at = 0
        for number in self.open_numbers:
            assert self.shards[number].start == at
            at = self.shards[number].end + 1
        assert at == TOP + 1

    def teardown(self) -> None:
        """Nothing lost, nothing twice: read all of it once more, from the beginning."""
        for number, shard in enumerate(self.shards):
            token = self.call(
                "GetShardIterator",
                ShardId=f"shardId-{number:012d}",
                ShardIteratorType="TRIM_HORIZON",
            )["ShardIterator"]
            records = self.get(token, 10_000)["Records"]
            assert [record["SequenceNumber"] for record in records] == [
                sequence_number for _, _, sequence_number in shard.records
            ]
        if self.shards:
            self.call("DeleteStream")
        self.raw.close()


@pytest.mark.crash
@pytest.mark.parametrize(
    ("stories", "steps"), [(12, 25), pytest.param(300, 60, marks=pytest.mark.slow)]
)
def test_a_stream_is_what_its_model_says(server: ServerProcess, stories: int, steps: int) -> None:
    StreamModel.server = server
    run_state_machine_as_test(
        StreamModel,
        settings=settings(
            max_examples=stories,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
