"""The producer's promises, with faults in between: nothing lost, nothing twice, nothing swapped."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_support import QUICK, read_all, through, until
from headrace.core.client import StreamClient
from headrace.core.errors import (
    HeadraceError,
    ProducerFenced,
    ResourceNotFound,
    ThroughputExceeded,
    ValidationError,
)
from headrace.core.limits import MAX_PUT_REQUEST_BYTES, MAX_RECORDS_PER_PUT
from headrace.core.model.records import PutEntry, Record
from headrace.core.producer import Backoff, Producer
from headrace.core.put_buffer import cut_requests, entry_bytes
from headrace.core.testing.faulty_proxy import (
    CUT_REPLY,
    DROP_REPLY,
    ERROR_500,
    ERROR_503,
    HANG,
    RESET,
    THROTTLE_SOME,
    Call,
    Delay,
    Fault,
    FaultyProxy,
    Reply,
    Upstream,
)
from headrace.core.testing.server_process import ServerProcess


def numbered(count: int, first: int = 0, keys: int = 7, whose: str = "") -> list[PutEntry]:
    return [PutEntry(b"%d" % n, f"key-{whose}-{n % keys}") for n in range(first, first + count)]


def numbers(shards: list[list[Record]]) -> list[int]:
    return sorted(int(record.data) for records in shards for record in records)


def assert_order(shards: list[list[Record]]) -> None:
    for records in shards:
        by_key: dict[str, list[int]] = {}
        for record in records:
            by_key.setdefault(record.partition_key, []).append(int(record.data))
        for found in by_key.values():
            assert found == sorted(found)


async def test_a_long_batch_goes_in_several_requests_in_order(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async with through(proxy.endpoint) as client:
        results = await Producer(client, stream).put_batch(numbered(1203))
    assert proxy.requests["PutRecords"] == 3
    assert len(results) == 1203 and all(r.sequence_number for r in results)
    shards = await read_all(direct, stream)
    assert numbers(shards) == list(range(1203))
    assert_order(shards)
    by_number = {r.sequence_number: int(r.data) for records in shards for r in records}
    assert [by_number[r.sequence_number or ""] for r in results] == list(range(1203))


@given(
    st.lists(
        st.builds(
            PutEntry,
            st.integers(0, 4_000_000).map(bytes),
            st.text("aü€𝄞", min_size=1, max_size=9),
        ),
        max_size=12,
    )
)
def test_requests_stay_within_the_limit_of_bytes(entries: list[PutEntry]) -> None:
    cuts = list(cut_requests(entries))
    assert [n for cut in cuts for n in cut] == list(range(len(entries)))
    for cut in cuts:
        size_bytes = sum(entry_bytes(entries[n]) for n in cut)
        assert size_bytes <= MAX_PUT_REQUEST_BYTES or len(cut) == 1
        assert size_bytes == sum(
            len(entries[n].data) + len(entries[n].partition_key.encode()) for n in cut
        )


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000, 1001])
def test_requests_stay_within_the_limit_of_records(count: int) -> None:
    cuts = list(cut_requests(numbered(count)))
    assert all(len(cut) <= MAX_RECORDS_PER_PUT for cut in cuts)
    assert len(cuts) == -(-count // MAX_RECORDS_PER_PUT)


@pytest.mark.parametrize("seed", range(6))
async def test_every_record_once_and_in_order_whatever_happens(
    proxy: FaultyProxy, direct: StreamClient, stream: str, seed: int
) -> None:
    """Idempotent producers through every fault there is, cancelled now and then."""
    faults: list[Fault] = [
        DROP_REPLY, CUT_REPLY, RESET, ERROR_500, ERROR_503, HANG,
        THROTTLE_SOME(0.02, seed), THROTTLE_SOME(0.5, seed),
        Delay(after_ms=40), Delay(before_ms=40),
    ]  # fmt: skip
    proxy.plan_random(faults, 0.4, seed)
    chance = random.Random(seed)

    async def run_one(name: str, first: int) -> None:
        """Puts batches of its own; after a cancellation the same batch again, cut differently."""
        at, end = first, first + 600
        while at < end:
            count = min(chance.choice([1, 3, 7, 20, 80]), end - at)
            try:
                async with asyncio.timeout(chance.choice([0.03, 0.2, 5])):
                    await producer.put_batch(
                        numbered(count, at, whose=name),
                        producer_id=name,
                        sequences=range(at, at + count),
                    )
            except TimeoutError:
                continue
            at += count

    async with through(proxy.endpoint, timeout_ms=150) as client:
        producer = Producer(client, stream, backoff=QUICK)
        await asyncio.gather(*(run_one(f"p{n}", n * 600) for n in range(4)))
    proxy.clear()
    shards = await read_all(direct, stream)
    assert numbers(shards) == list(range(2400))
    assert_order(shards)
    assert proxy.injected["PutRecords"] > 10


async def test_a_request_that_arrives_after_its_own_retry_stores_nothing(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    """It was thought lost, and comes through when later records are stored long since."""
    async with through(proxy.endpoint, timeout_ms=100) as client:
        producer = Producer(client, stream, backoff=QUICK)
        proxy.plan(Delay(before_ms=400))
        await producer.put_batch(numbered(10), producer_id="p", sequences=range(10))
        await producer.put_batch(numbered(10, 10), producer_id="p", sequences=range(10, 20))
        await asyncio.sleep(0.5)
    shards = await read_all(direct, stream)
    assert numbers(shards) == list(range(20))
    assert_order(shards)


async def test_without_a_producer_id_nothing_is_lost(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    heard: list[HeadraceError] = []
    proxy.plan_random([RESET, ERROR_500, THROTTLE_SOME(0.3, 1)], 0.5, 1)
    async with through(proxy.endpoint) as client:
        producer = Producer(client, stream, backoff=QUICK, on_retry=heard.append)
        results = await producer.put_batch(numbered(3000))
    assert numbers(await read_all(direct, stream)) == list(range(3000))
    assert len({r.sequence_number for r in results}) == 3000
    assert any(isinstance(error, ThroughputExceeded) for error in heard)


async def test_only_what_was_refused_goes_again(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    proxy.plan(THROTTLE_SOME(0.5, 3), 1)
    async with through(proxy.endpoint) as client:
        await Producer(client, stream, backoff=QUICK).put_batch(numbered(100))
    assert proxy.requests["PutRecords"] == 2
    assert numbers(await read_all(direct, stream)) == list(range(100))


async def test_one_request_of_a_producer_is_under_way_at_a_time(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    held, let_go = asyncio.Event(), asyncio.Event()

    async def hold(call: Call, upstream: Upstream) -> Reply | None:
        held.set()
        await let_go.wait()
        return await upstream(call)

    proxy.plan(hold, 1)
    async with through(proxy.endpoint, timeout_ms=60_000) as client:
        producer = Producer(client, stream)
        first = asyncio.create_task(producer.put_batch(numbered(1), producer_id="a", sequences=[0]))
        await held.wait()
        second = asyncio.create_task(
            producer.put_batch(numbered(1, 1), producer_id="a", sequences=[1])
        )
        other = asyncio.create_task(
            producer.put_batch(numbered(1, 2), producer_id="b", sequences=[0])
        )
        tasks = {first, second, other}
        done, _ = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done == {other}  # other producers do not wait
        let_go.set()
        await asyncio.gather(first, second)
    assert numbers(await read_all(direct, stream)) == [0, 1, 2]


async def test_a_stream_that_is_not_there_yet_is_waited_for(direct: StreamClient) -> None:
    heard: list[HeadraceError] = []
    producer = Producer(direct, "later", backoff=QUICK, on_retry=heard.append)
    put = asyncio.create_task(producer.put_batch(numbered(3)))
    await until(lambda: len(heard) >= 3)
    await direct.ensure_stream("later", shards=1)
    assert len(await put) == 3
    assert all(isinstance(error, ResourceNotFound) for error in heard)


async def test_what_no_retry_can_mend_is_raised_at_once(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    async with through(proxy.endpoint) as client:
        producer = Producer(client, stream, backoff=Backoff(initial_ms=60_000, max_ms=60_000))
        with pytest.raises(ValidationError):
            await producer.put_batch([PutEntry(b"x", "")])
        await producer.put_batch(numbered(1), producer_id="p", epoch=2, sequences=[0])
        with pytest.raises(ProducerFenced):
            await producer.put_batch(numbered(1), producer_id="p", epoch=1, sequences=[5])
    assert proxy.requests["PutRecords"] == 3
    assert numbers(await read_all(direct, stream)) == [0]


async def test_a_higher_epoch_starts_over(direct: StreamClient, stream: str) -> None:
    producer = Producer(direct, stream)
    for epoch in (0, 1):
        for _ in range(2):
            await producer.put_batch(
                numbered(5, 5 * epoch), producer_id="p", epoch=epoch, sequences=range(5)
            )
    assert numbers(await read_all(direct, stream)) == list(range(10))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"producer_id": "p"}, "both"),
        ({"sequences": [1]}, "both"),
        ({"producer_id": "p", "sequences": [1, 2]}, "2 sequences for 1 records"),
        ({"producer_id": "p", "sequences": [-1]}, "rise"),
        ({"producer_id": "a b", "sequences": [1]}, "printable"),
        ({"producer_id": "", "sequences": [1]}, "printable"),
        ({"producer_id": "p", "sequences": [1], "epoch": -1}, "negative"),
    ],
)
async def test_a_wrong_stamp_is_refused_before_anything_is_sent(
    direct: StreamClient, options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        await Producer(direct, "nowhere").put_batch(numbered(1), **options)  # type: ignore[arg-type]


async def test_kill_9_of_the_server_loses_and_doubles_nothing(server: ServerProcess) -> None:
    async with through(server.endpoint) as client:
        await client.ensure_stream("s", shards=2)
        producer = Producer(client, "s", backoff=QUICK)
        at = 0

        async def put() -> None:
            nonlocal at
            while at < 20_000:
                count = min(500, 20_000 - at)
                await producer.put_batch(
                    numbered(count, at), producer_id="p", sequences=range(at, at + count)
                )
                at += count

        putting = asyncio.create_task(put())
        for step in (2_000, 7_000, 12_000):
            await until(lambda step=step: at >= step)  # type: ignore[misc]
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await putting
        shards = await read_all(client, "s")
    assert numbers(shards) == list(range(20_000))
    assert_order(shards)


async def test_a_split_in_the_middle_doubles_nothing(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    """The memory of a producer follows the hash keys into the children."""
    async with through(proxy.endpoint) as client:
        producer = Producer(client, stream, backoff=QUICK)
        proxy.plan_random([DROP_REPLY, THROTTLE_SOME(0.1, 1)], 0.6, 1)

        async def put() -> None:
            for at in range(0, 2000, 100):
                await producer.put_batch(
                    numbered(100, at, keys=50), producer_id="p", sequences=range(at, at + 100)
                )

        putting = asyncio.create_task(put())
        for number in (0, 1):
            shard = (await direct.list_shards(stream))[number]
            middle = (shard.hash_key_range.start + shard.hash_key_range.end) // 2
            await direct.call(
                "SplitShard",
                {
                    "StreamName": stream,
                    "ShardToSplit": shard.shard_id,
                    "NewStartingHashKey": str(middle),
                },
            )
            await direct.wait_active(stream)
        await putting
    proxy.clear()
    assert numbers(await read_all(direct, stream)) == list(range(2000))


# -- single records --------------------------------------------------------------------------------


async def test_single_records_gather_while_a_request_is_under_way(
    proxy: FaultyProxy, direct: StreamClient, stream: str
) -> None:
    proxy.plan(Delay(before_ms=100), 1)
    async with through(proxy.endpoint) as client:
        producer = Producer(client, stream)
        acks = [await producer.put(entry) for entry in numbered(900)]
        results = await asyncio.gather(*acks)
        await producer.close()
    assert all(result.sequence_number for result in results)
    assert proxy.requests["PutRecords"] <= 4
    shards = await read_all(direct, stream)
    assert numbers(shards) == list(range(900))
    assert_order(shards)


async def test_a_full_buffer_holds_the_caller_back(proxy: FaultyProxy, stream: str) -> None:
    proxy.plan(HANG, None)
    async with through(proxy.endpoint, timeout_ms=60_000) as client:
        producer = Producer(client, stream, buffer_bytes=1000, backoff=QUICK)
        await producer.put(PutEntry(bytes(900), "k"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await producer.put(PutEntry(bytes(900), "k"))
        proxy.clear()
        await proxy.refuse()  # what hangs breaks, and is tried again
        await proxy.accept()
        await producer.put(PutEntry(bytes(900), "k"))
        await producer.flush()
        await producer.close()
        with pytest.raises(RuntimeError, match="closed"):
            await producer.put(PutEntry(b"x", "k"))


async def test_a_record_larger_than_the_buffer_passes_alone(
    direct: StreamClient, stream: str
) -> None:
    producer = Producer(direct, stream, buffer_bytes=10)
    acks = [await producer.put(PutEntry(bytes(100), "k")) for _ in range(3)]
    assert all(result.sequence_number for result in await asyncio.gather(*acks))


async def test_one_bad_record_does_not_fail_its_neighbours(
    direct: StreamClient, stream: str
) -> None:
    producer = Producer(direct, stream)
    entries = numbered(40)
    entries[17] = PutEntry(b"bad", "")
    acks = [await producer.put(entry) for entry in entries]
    await producer.flush()
    with pytest.raises(ValidationError):
        await acks[17]
    assert numbers(await read_all(direct, stream)) == [n for n in range(40) if n != 17]


def test_pauses_double_up_to_their_bound_and_vary() -> None:
    steady = Backoff(initial_ms=100, max_ms=1000, jitter=0)
    assert [steady.next_ms(n) for n in (0, 1, 2, 3, 4, 10_000)] == [100, 200, 400, 800, 1000, 1000]
    lowest = Backoff(initial_ms=100, max_ms=1000, jitter=0.5, chance=lambda: 1.0)
    assert lowest.next_ms(0) == 50
