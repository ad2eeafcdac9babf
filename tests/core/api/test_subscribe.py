"""SubscribeToShard with an unmodified boto3: positions, events, shard ends, takeovers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import EventStreamError

from api_support import ACCOUNT, create, iterator, read_from, refused

SHARD = "shardId-000000000000"


_streams: list[Any] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Every subscription of a test is closed behind it, also one that did not end by itself."""
    yield
    while _streams:
        _streams.pop().close()


@pytest.fixture
def consumer(kinesis: Any, name: str) -> str:
    """A consumer of a stream with one shard."""
    create(kinesis, name)
    return register(kinesis, name)


def register(kinesis: Any, stream: str, consumer: str = "c") -> str:
    arn = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"][
        "StreamARN"
    ]
    answer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=consumer)
    found: str = answer["Consumer"]["ConsumerARN"]
    return found


def subscribe(kinesis: Any, consumer: str, kind: str = "TRIM_HORIZON", **more: Any) -> Any:
    shard = more.pop("shard", SHARD)
    answer = kinesis.subscribe_to_shard(
        ConsumerARN=consumer, ShardId=shard, StartingPosition={"Type": kind, **more}
    )
    _streams.append(answer["EventStream"])
    return answer["EventStream"]


def events(stream: Any) -> Iterator[dict[str, Any]]:
    for event in stream:
        yield event["SubscribeToShardEvent"]


def data_of(stream: Any, count: int) -> list[bytes]:
    """The data of the first `count` records; closes the stream."""
    found: list[bytes] = []
    for event in events(stream):
        found += [record["Data"] for record in event["Records"]]
        if len(found) >= count:
            break
    stream.close()
    return found


def put(kinesis: Any, stream: str, *data: bytes) -> list[str]:
    return [
        kinesis.put_record(StreamName=stream, Data=one, PartitionKey="k")["SequenceNumber"]
        for one in data
    ]


def test_records_there_and_records_to_come(kinesis: Any, name: str, consumer: str) -> None:
    put(kinesis, name, b"1", b"2")
    following = events(subscribe(kinesis, consumer))
    first = next(following)
    assert [r["Data"] for r in first["Records"]] == [b"1", b"2"]
    assert first["Records"] == read_from(kinesis, iterator(kinesis, name))
    assert first["ContinuationSequenceNumber"] == first["Records"][-1]["SequenceNumber"]
    assert first["MillisBehindLatest"] == 0
    assert "ChildShards" not in first
    for data in (b"3", b"4"):
        started = time.monotonic()
        put(kinesis, name, data)
        assert [r["Data"] for r in next(following)["Records"]] == [data]
        assert time.monotonic() - started < 4.5  # pushed, not found by the look after five seconds


def test_all_starting_positions(kinesis: Any, name: str, consumer: str) -> None:
    first, second, third = put(kinesis, name, b"1", b"2", b"3")
    arrived = read_from(kinesis, iterator(kinesis, name))[1]["ApproximateArrivalTimestamp"]
    positions: list[tuple[dict[str, Any], list[bytes]]] = [
        ({"kind": "TRIM_HORIZON"}, [b"1", b"2", b"3"]),
        ({"kind": "AT_SEQUENCE_NUMBER", "SequenceNumber": second}, [b"2", b"3"]),
        ({"kind": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": second}, [b"3"]),
        ({"kind": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": third}, []),
        ({"kind": "AT_TIMESTAMP", "Timestamp": arrived}, [b"2", b"3"]),
        ({"kind": "AT_TIMESTAMP", "Timestamp": 0}, [b"1", b"2", b"3"]),
        ({"kind": "LATEST"}, []),
    ]
    assert first < second < third
    for i, (position, expected) in enumerate(positions):
        stream = subscribe(kinesis, register(kinesis, name, f"c{i}"), **position)
        following = events(stream)
        event = next(following)  # comes at once, with records or without
        found = [record["Data"] for record in event["Records"]]
        if position["kind"] == "AT_TIMESTAMP" and expected == [b"2", b"3"]:
            found = found[-2:]  # the first may have arrived in the same millisecond
        assert found == expected, position
        stream.close()


def test_what_is_put_after_latest(kinesis: Any, name: str, consumer: str) -> None:
    put(kinesis, name, b"before")
    stream = subscribe(kinesis, consumer, "LATEST")
    following = events(stream)
    assert next(following)["Records"] == []
    put(kinesis, name, b"after")
    assert [r["Data"] for r in next(following)["Records"]] == [b"after"]
    stream.close()


def test_the_continuation_goes_on_where_it_was_given(kinesis: Any, name: str) -> None:
    """Also from an event without records, and with both kinds of position."""
    create(kinesis, name)
    given: list[str] = []
    for i in range(4):
        stream = subscribe(kinesis, register(kinesis, name, f"c{i}"), "LATEST")
        given.append(next(events(stream))["ContinuationSequenceNumber"])
        stream.close()
        put(kinesis, name, b"%d" % i)
    assert all(int(a) < int(b) for a, b in pairwise(given))
    for i, number in enumerate(given):
        for kind in ("AFTER_SEQUENCE_NUMBER", "AT_SEQUENCE_NUMBER"):
            consumer = register(kinesis, name, f"{kind}-{i}")
            stream = subscribe(kinesis, consumer, kind, SequenceNumber=number)
            expected = [b"%d" % k for k in range(i, 4)]
            assert data_of(stream, len(expected)) == expected
            token = iterator(kinesis, name, kind=kind, StartingSequenceNumber=number)
            assert [r["Data"] for r in read_from(kinesis, token)] == expected


@pytest.mark.parametrize("kind", ["split", "merge", "scale"])
def test_the_end_of_a_shard(kinesis: Any, name: str, kind: str) -> None:
    """Clients reject events unless exactly those without a continuation have children."""
    create(kinesis, name, 1 if kind == "split" else 2)
    consumer = register(kinesis, name)
    kinesis.put_record(StreamName=name, Data=b"1", PartitionKey="k", ExplicitHashKey="0")
    stream = subscribe(kinesis, consumer)
    following = events(stream)
    assert [r["Data"] for r in next(following)["Records"]] == [b"1"]
    kinesis.put_record(StreamName=name, Data=b"2", PartitionKey="k", ExplicitHashKey="0")
    started = time.monotonic()
    if kind == "split":
        kinesis.split_shard(StreamName=name, ShardToSplit=SHARD, NewStartingHashKey="100")
    elif kind == "merge":
        kinesis.merge_shards(
            StreamName=name, ShardToMerge=SHARD, AdjacentShardToMerge="shardId-000000000001"
        )
    else:
        kinesis.update_shard_count(
            StreamName=name, TargetShardCount=1, ScalingType="UNIFORM_SCALING"
        )
    rest = list(following)  # ends by itself
    assert time.monotonic() - started < 4.5
    assert [r["Data"] for event in rest for r in event["Records"]] == [b"2"]
    for event in rest[:-1]:
        assert event["ContinuationSequenceNumber"]
        assert not event.get("ChildShards")
    last = rest[-1]
    assert "ContinuationSequenceNumber" not in last
    assert last["MillisBehindLatest"] == 0
    parents = [SHARD] if kind == "split" else [SHARD, "shardId-000000000001"]
    assert [child["ParentShards"] for child in last["ChildShards"]] == [parents] * (
        2 if kind == "split" else 1
    )
    # a shard that has ended already: its records, and the end
    again = list(events(subscribe(kinesis, register(kinesis, name, "d"))))
    assert [r["Data"] for event in again for r in event["Records"]] == [b"1", b"2"]
    assert again[-1]["ChildShards"] == last["ChildShards"]


def test_within_five_seconds_it_is_taken(kinesis: Any, name: str, consumer: str) -> None:
    stream = subscribe(kinesis, consumer)
    text = f"Another active subscription exists for this consumer: {ACCOUNT}:{name}:{SHARD}:c"
    with refused("ResourceInUseException", text):
        subscribe(kinesis, consumer)
    stream.close()
    with refused("ResourceInUseException", text):  # also when the first is gone
        subscribe(kinesis, consumer)
    subscribe(kinesis, register(kinesis, name, "another")).close()


def test_a_consumer_that_goes_ends_its_subscriptions(
    kinesis: Any, name: str, consumer: str
) -> None:
    following = events(subscribe(kinesis, consumer))
    next(following)
    kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    put(kinesis, name, b"x")
    with pytest.raises(EventStreamError) as caught:
        list(following)
    assert caught.value.response["Error"]["Code"] == "ResourceInUseException"


def test_a_stream_that_goes_ends_its_subscriptions(kinesis: Any, name: str, consumer: str) -> None:
    following = events(subscribe(kinesis, consumer))
    next(following)
    started = time.monotonic()
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    with pytest.raises(EventStreamError) as caught:
        list(following)
    assert time.monotonic() - started < 4.5
    error = caught.value.response["Error"]
    assert error["Code"] == "ResourceNotFoundException"
    assert error["Message"] == f"Stream {name} under account {ACCOUNT} not found."


def test_what_is_refused_at_once(kinesis: Any, name: str, consumer: str) -> None:
    with refused(
        "ResourceNotFoundException",
        f"Shard shardId-000000000007 in stream {name} under account {ACCOUNT} does not exist",
    ):
        subscribe(kinesis, consumer, shard="shardId-7")
    with refused(
        "ResourceNotFoundException", f"Consumer {consumer}0, account {ACCOUNT} not found."
    ):
        subscribe(kinesis, f"{consumer}0")
    for kind, more in (
        ("AT_SEQUENCE_NUMBER", {}),
        ("TRIM_HORIZON", {"SequenceNumber": "1"}),
        ("AT_TIMESTAMP", {}),
        ("AT_TIMESTAMP", {"Timestamp": time.time() + 3600}),
        ("AT_SEQUENCE_NUMBER", {"SequenceNumber": "17"}),
    ):
        with refused("InvalidArgumentException"):
            subscribe(kinesis, consumer, kind, **more)
    with refused("DryRunOperationException"):
        kinesis.subscribe_to_shard(
            ConsumerARN=consumer,
            ShardId=SHARD,
            StartingPosition={"Type": "LATEST"},
            DryRun=True,
        )
    subscribe(kinesis, consumer).close()  # nothing of all that was a subscription


def test_a_consumer_registered_anew_is_not_held_up_by_the_one_before(
    kinesis: Any, name: str, consumer: str
) -> None:
    subscribe(kinesis, consumer)
    # in the same second as the one before, as a rule: the same ARN
    kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    subscribe(kinesis, register(kinesis, name))
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    create(kinesis, name)
    subscribe(kinesis, register(kinesis, name))


def test_of_a_stream_whose_name_is_the_word_in_the_arn(kinesis: Any) -> None:
    create(kinesis, "consumer")
    arn = register(kinesis, "consumer", "consumer")
    assert arn.split(":", 5)[5].startswith("stream/consumer/consumer/consumer:")
    subscribe(kinesis, arn)
    kinesis.tag_resource(ResourceARN=arn, Tags={"a": "b"})
    assert kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    kinesis.deregister_stream_consumer(ConsumerARN=arn)
    stream_arn = arn.rpartition("/consumer/")[0]
    assert kinesis.list_tags_for_resource(ResourceARN=stream_arn)["Tags"] == []


def test_a_lot_of_records_in_order(kinesis: Any, name: str, consumer: str) -> None:
    data = [b"%05d" % i * 200 for i in range(5_000)]
    for start in range(0, len(data), 500):
        kinesis.put_records(
            StreamName=name,
            Records=[{"Data": one, "PartitionKey": "k"} for one in data[start : start + 500]],
        )
    assert data_of(subscribe(kinesis, consumer), len(data)) == data
    assert data_of(subscribe(kinesis, register(kinesis, name, "d")), len(data)) == data
