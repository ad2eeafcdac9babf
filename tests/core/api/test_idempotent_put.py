"""Idempotent put: whatever is sent again, and however often, is stored once."""

from __future__ import annotations

import asyncio

import pytest

from headrace.core.client import StreamClient
from headrace.core.errors import ProducerFenced
from headrace.core.model.records import PutEntry
from idempotence_support import KEYS, names, put, stored, stored_data


@pytest.fixture
async def stream(client: StreamClient, name: str) -> str:
    await client.ensure_stream(name, shards=4)
    return name


# What is stored and what is not


async def test_sent_again(client: StreamClient, stream: str) -> None:
    first = await put(client, stream, range(40))
    for _ in range(3):
        again = await put(client, stream, range(40))
    assert await stored_data(client, stream) == names(range(40))
    shards = await stored(client, stream)
    numbers = {shard: [r.sequence_number for r in rs] for shard, rs in shards.items()}
    for one, other in zip(first, again, strict=True):
        # answered as success, with a record that is there, in the shard that it is in
        assert other.error_code is None
        assert one.shard_id == other.shard_id
        assert other.shard_id is not None
        assert other.sequence_number in numbers[other.shard_id]


async def test_batches_that_overlap(client: StreamClient, stream: str) -> None:
    for start, end in ((0, 10), (5, 15), (0, 20), (19, 21), (20, 40), (0, 40)):
        await put(client, stream, range(start, end))
    assert await stored_data(client, stream) == names(range(40))


async def test_sequences_with_gaps(client: StreamClient, stream: str) -> None:
    """As byte offsets have them; what lies in a gap afterwards is taken for stored."""
    offsets = [0, 100, 2**31, 2**53 + 1, 2**63, 2**64 + 5, 10**40]
    await put(client, stream, offsets)
    await put(client, stream, offsets)
    await put(client, stream, [*offsets, 10**79])
    assert await stored_data(client, stream) == names([*offsets, 10**79])


async def test_a_sequence_twice_in_a_request(client: StreamClient, stream: str) -> None:
    results = await put(client, stream, [1, 1, 2, 3, 3, 3])
    assert all(result.sequence_number for result in results)
    assert await stored_data(client, stream) == names([1, 2, 3])


async def test_producers_do_not_know_each_other(client: StreamClient, stream: str) -> None:
    for producer in ("a", "b", "a/b", "~" * 256):
        await put(client, stream, range(5), producer=producer)
        await put(client, stream, range(5), producer=producer)
    await client.put_records(stream, [PutEntry(b"3", KEYS[3])])  # and one without a name
    found = await stored_data(client, stream)
    assert [found.count(str(i)) for i in range(5)] == [4, 4, 4, 5, 4]


async def test_streams_do_not_know_each_other(client: StreamClient, stream: str) -> None:
    await client.ensure_stream(f"{stream}-2", shards=4)
    for one in (stream, f"{stream}-2"):
        await put(client, one, range(5))
        assert await stored_data(client, one) == names(range(5))


async def test_many_senders_of_the_same(client: StreamClient, stream: str) -> None:
    await asyncio.gather(*(put(client, stream, range(100)) for _ in range(10)))
    assert await stored_data(client, stream) == names(range(100))


async def test_order_is_kept_per_key(client: StreamClient, stream: str) -> None:
    for start in range(0, 200, 20):
        await put(client, stream, range(max(start - 15, 0), start + 20))
    for records in (await stored(client, stream)).values():
        order = [int(record.data) for record in records]
        assert order == sorted(order)


# Epochs


async def test_a_lower_epoch_is_fenced_and_stores_nothing(
    client: StreamClient, stream: str
) -> None:
    await put(client, stream, range(16), epoch=3)
    with pytest.raises(ProducerFenced):
        await put(client, stream, range(16, 32), epoch=2)
    with pytest.raises(ProducerFenced):
        await put(client, stream, range(16), epoch=0)
    assert await stored_data(client, stream) == names(range(16))
    await put(client, stream, range(16, 20), epoch=3)
    assert await stored_data(client, stream) == names(range(20))


async def test_a_higher_epoch_starts_over(client: StreamClient, stream: str) -> None:
    await put(client, stream, range(100, 116), mark="a")
    await put(client, stream, range(16), epoch=1, mark="b")
    await put(client, stream, range(16), epoch=1, mark="c")
    await put(client, stream, range(16), epoch=2**63 - 1, mark="d")
    found = await stored_data(client, stream)
    assert sorted(found) == sorted(
        [f"{i}a" for i in range(100, 116)] + [f"{i}{mark}" for mark in "bd" for i in range(16)]
    )
