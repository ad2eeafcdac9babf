"""The real Kinesis Producer Library, with its native process, against `headrace serve --tls`.

It speaks HTTPS only and checks the certificate. Aggregated records are taken apart here by hand, as
the KCL takes them apart, and everything must be there once.

Once, but for what the producer itself sends again. It puts records together for the shard it
believes their keys to belong to. When the answer's ShardId is one it does not know, because that
shard was split since, it sends all user records of that record again, as it does at AWS; some of
them were where they belong already.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from headrace.core.testing.server_process import ServerProcess
from interop_support import JavaProcess, needs_java

pytestmark = [pytest.mark.slow, needs_java]

_COUNT = 100_000
_MAGIC = b"\xf3\x89\x9a\xc2"


class Stored(NamedTuple):
    """One user record as it was read: of which record of the stream, and what is in it."""

    shard: str
    sequence_number: str
    key: str
    data: bytes


class Ack(NamedTuple):
    """What the producer was told of one user record, and after how many attempts."""

    shard: str
    sequence_number: str
    attempts: int


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "stream", arguments=("--tls",)) as process:
        yield process


@pytest.fixture
def kinesis(server: ServerProcess) -> Iterator[Any]:
    client = boto3.client(
        "kinesis", endpoint_url=server.endpoint, region_name="us-east-1",
        aws_access_key_id="AKID", aws_secret_access_key="secret", verify=str(certificate(server)),
    )  # fmt: skip
    client.create_stream(StreamName="stream", ShardCount=4)
    client.get_waiter("stream_exists").wait(StreamName="stream")
    yield client
    client.close()


def certificate(server: ServerProcess) -> Path:
    return server.data / "tls" / "certificate.pem"


def produce(server: ServerProcess, mode: str, count: int = _COUNT) -> JavaProcess:
    """The producer, started; its native process is unpacked below the server's folder."""
    folder = server.data.parent
    (folder / "kpl").mkdir()
    host, port = server.endpoint.removeprefix("https://").split(":")
    arguments = [host, port, str(certificate(server)), "stream", str(count), mode]
    return JavaProcess("kpl", [*arguments, str(folder / "kpl")], folder / "kpl.log")


@pytest.mark.parametrize("mode", ["aggregated", "single"])
def test_every_user_record_is_stored_once(server: ServerProcess, kinesis: Any, mode: str) -> None:
    with produce(server, mode) as producer:
        producer.finish(240)
        acknowledged = _acknowledged(producer)
    stored, records, strays = _read(kinesis)
    assert (len(_check(stored, acknowledged)), strays) == (0, 0)
    assert all(ack.attempts == 1 for ack in acknowledged.values())
    assert (records < _COUNT / 20) if mode == "aggregated" else (records == _COUNT)


@pytest.mark.parametrize("mode", ["aggregated", "single"])
def test_shards_may_be_split_while_it_writes(
    server: ServerProcess, kinesis: Any, mode: str
) -> None:
    with produce(server, mode) as producer:
        producer.until(lambda: len(producer.lines) > _COUNT // 10)
        for shard in ("shardId-000000000000", "shardId-000000000003"):
            shards = kinesis.list_shards(StreamName="stream")["Shards"]
            (bounds,) = [_bounds(found) for found in shards if found["ShardId"] == shard]
            kinesis.split_shard(
                StreamName="stream", ShardToSplit=shard, NewStartingHashKey=str(sum(bounds) // 2)
            )
            kinesis.get_waiter("stream_exists").wait(StreamName="stream")
        assert len(producer.lines) < _COUNT, "it was over before the shards were split"
        producer.finish(240)
        acknowledged = _acknowledged(producer)
    stored, _, strays = _read(kinesis)
    twice = _check(stored, acknowledged)
    assert len({record.shard for record in stored}) == 8
    again = {number for number, ack in acknowledged.items() if ack.attempts > 1}
    print(f"{mode}: sent again {len(again)}, of them stored twice {len(twice)}, strays {strays}")
    assert twice <= again
    if mode == "single":
        assert not again and not strays


def test_the_kcl_takes_aggregated_records_apart(
    server: ServerProcess, kinesis: Any, moto: str, tmp_path: Path
) -> None:
    count = 20_000
    with produce(server, "aggregated", count) as producer:
        producer.finish(240)
    consumer_arguments = [server.endpoint, moto, "stream", "application", "worker", "polling"]
    with JavaProcess(
        "kcl", consumer_arguments, tmp_path / "kcl.log", certificate=certificate(server)
    ) as consumer:

        def received() -> list[list[str]]:
            return [line.split()[2:] for line in consumer.lines if " record " in line]

        consumer.until(lambda: len(received()) >= count)
        consumer.stop()
        found = received()
    assert sorted(int(record[-1]) for record in found) == list(range(count))
    assert len({(record[1], record[2]) for record in found}) == count  # numbers and sub-numbers
    assert len({record[1] for record in found}) < count / 20


def _acknowledged(producer: JavaProcess) -> dict[int, Ack]:
    """What the producer was told of each user record."""
    assert producer.found["done"] == "true"
    lines = [line.split(" ", 2) for line in producer.lines if "=" not in line]
    failed = [line for line in lines if line[0] == "failed"]
    assert not failed, failed[:5]
    assert len(lines) == _COUNT
    acknowledged = {}
    for _, number, rest in lines:
        shard, sequence_number, attempts = rest.split()
        acknowledged[int(number)] = Ack(shard, sequence_number, int(attempts))
    return acknowledged


def _check(stored: list[Stored], acknowledged: dict[int, Ack]) -> set[int]:
    """Everything is there, and where it was said to be. Returns what is there more than once."""
    places: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for record in stored:
        number = int(record.data)
        assert record.key == f"key-{number}" and len(record.data) == 100
        places[number].append((record.shard, record.sequence_number))
    assert len(places) == len(acknowledged) == _COUNT
    for number, ack in acknowledged.items():
        assert (ack.shard, ack.sequence_number) in places[number]
    return {number for number, found in places.items() if len(found) > 1}


def _bounds(shard: dict[str, Any]) -> tuple[int, int]:
    low, high = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
    return low, high


def _read(kinesis: Any) -> tuple[list[Stored], int, int]:
    """All user records of the stream, how many records hold them, and how many are strays.

    A stray is a user record whose key does not belong into its shard, because it was put together
    with others for a shard that was split before they arrived. Readers pass it over, the KCL does:
    it comes again.
    """
    stored, count, strays = [], 0, 0
    for shard in kinesis.list_shards(StreamName="stream")["Shards"]:
        low, high = _bounds(shard)
        iterator = kinesis.get_shard_iterator(
            StreamName="stream", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            for record in answer["Records"]:
                count += 1
                for key, data in user_records(record["PartitionKey"], record["Data"]):
                    hashed = int.from_bytes(hashlib.md5(key.encode()).digest())
                    if not low <= hashed <= high:
                        strays += 1
                        continue
                    stored.append(Stored(shard["ShardId"], record["SequenceNumber"], key, data))
            iterator = answer.get("NextShardIterator")
            if not answer["Records"] and answer["MillisBehindLatest"] == 0:
                break
    return stored, count, strays


def user_records(key: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Take an aggregated record apart: magic, protobuf, MD5; any other is one user record."""
    if not data.startswith(_MAGIC):
        yield key, data
        return
    body, digest = data[4:-16], data[-16:]
    assert hashlib.md5(body).digest() == digest
    keys: list[str] = []
    for number, value in _fields(body):
        if number == 1:
            keys.append(bytes(value).decode())
        elif number == 3:
            record = dict(_fields(value))
            yield keys[record[1]], bytes(record[3])


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protobuf message of varints and byte strings."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            assert tag & 7 == 2, f"a field of wire type {tag & 7}"
            length = varint()
            yield tag >> 3, message[position : position + length]
            position += length
