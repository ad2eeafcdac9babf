"""Idempotent put against a model: whatever is sent again, split, merged, failed or restarted,
each of a producer's records is stored exactly once."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.engine.seam import OnceAnswer, ShardPut, StampedRecord
from headrace.core.errors import InternalFailure, ProducerFenced, StorageFull
from headrace.core.limits import PRODUCER_SILENCE_MS
from headrace.core.log.stream_log import StreamLog, StreamLogOptions
from headrace.core.model.hashing import MAX_HASH_KEY, HashKeyRange
from headrace.core.model.sequence import BEGINNING
from headrace.core.testing.faulty_files import FaultyFiles, io_error, no_space
from headrace.core.testing.manual_clock import ManualClock

HASHES = [i * (MAX_HASH_KEY // 15) for i in range(16)]
PRODUCERS = ("p", "q")


def never(error: BaseException) -> None:
    raise AssertionError("the store must not fail here") from error


class Store:
    """One shard log on a folder, to be opened again and again."""

    def __init__(self, folder: Path, segment_bytes: int = 2000) -> None:
        self.folder = folder
        self.files = FaultyFiles()
        self.clock = ManualClock()
        self.segment_bytes = segment_bytes
        self.fatal: list[BaseException] = []
        self.writers = ThreadPoolExecutor(1)
        self.in_loop_bytes = InLoop.small_bytes  # 0: every window goes to a writer thread

    async def open(self, ranges: list[HashKeyRange]) -> EmbeddedShardLog:
        stream_log = StreamLog.open(
            self.folder,
            self.files,
            now_ms=self.clock.now_ms(),
            ranges=ranges,
            options=StreamLogOptions(segment_bytes=self.segment_bytes),
        )
        opened = EmbeddedShardLog(stream_log, self.writers, self.clock, self.fatal.append)
        policy = opened.commits.in_loop
        policy.small_bytes = policy.lone_bytes = self.in_loop_bytes
        return opened


async def stored(shard_log: EmbeddedShardLog, shards: range) -> list[tuple[str, int]]:
    """All (producer, sequence) that are there, as a reader finds them."""
    found: list[tuple[str, int]] = []
    for shard in shards:
        part = await shard_log.read(
            shard, BEGINNING, floor=BEGINNING, max_records=1 << 20, max_bytes=1 << 30
        )
        for row in json.loads(b"[" + b",".join(part.parts) + b"]"):
            producer, _, sequence = b64decode(row["Data"]).decode().partition(":")
            found.append((producer, int(sequence)))
    return found


class IdempotentPut(RuleBasedStateMachine):
    """Two producers, each sending its records in order, from the first it has no answer for.

    Now and then another process takes a producer over, with the next epoch: a run of sequences of
    its own. `p.1` are the records of producer p in epoch 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "log")
        self.ranges = {0: HashKeyRange(0, MAX_HASH_KEY)}
        self.all_ranges = list(self.ranges.values())
        self.next_shard = 1
        self.epochs = dict.fromkeys(PRODUCERS, 0)
        self.acknowledged = {f"{p}.0": 0 for p in PRODUCERS}
        self.sent = dict(self.acknowledged)
        self.waited_ms = 0

    def teardown(self) -> None:
        self.runner.run(self.log.close())
        self.runner.close()
        self.store.writers.shutdown()
        shutil.rmtree(self.folder)

    @initialize(in_loop_bytes=st.sampled_from([0, InLoop.small_bytes]))
    def open(self, in_loop_bytes: int) -> None:
        self.store.in_loop_bytes = in_loop_bytes
        self.log = self.runner.run(self.store.open(self.all_ranges))

    def shard_of(self, hash_key: int) -> int:
        return next(n for n, key_range in self.ranges.items() if hash_key in key_range)

    def current(self, producer: str) -> str:
        return f"{producer}.{self.epochs[producer]}"

    async def send(self, name: str, first: int, upto: int) -> OnceAnswer:
        producer, _, epoch = name.partition(".")
        # where a record goes is a pure function of its place, as an agent's key is
        records = [
            StampedRecord(
                shard=self.shard_of(HASHES[(i * 7) % 16]),
                created_s=1,
                data=b64encode(f"{name}:{i}".encode()).decode(),
                key="k",
                hash_key=HASHES[(i * 7) % 16],
                payload_bytes=8,
                sequence=i,
            )
            for i in range(first, upto)
        ]
        return await self.log.append_once(producer, int(epoch), records)

    def has_been_sent(self, name: str, upto: int, *, is_acknowledged: bool = True) -> None:
        self.sent[name] = max(self.sent[name], upto)
        if is_acknowledged:
            self.acknowledged[name] = max(self.acknowledged[name], upto)

    @rule(producer=st.sampled_from(PRODUCERS), back=st.integers(0, 10), count=st.integers(1, 20))
    def put(self, producer: str, back: int, count: int) -> None:
        """From a little before the first unacknowledged record on: the overlap is a re-send."""
        name = self.current(producer)
        first = max(self.acknowledged[name] - back, 0)
        upto = self.acknowledged[name] + count
        numbers, stored_now = self.runner.run(self.send(name, first, upto))
        assert sum(map(len, stored_now.values())) <= count
        assert len(numbers) == upto - first and all(numbers)
        self.has_been_sent(name, upto)

    @rule(producer=st.sampled_from(PRODUCERS), count=st.integers(1, 20))
    def put_without_hearing_the_answer(self, producer: str, count: int) -> None:
        name = self.current(producer)
        upto = self.acknowledged[name] + count
        self.runner.run(self.send(name, self.acknowledged[name], upto))
        self.has_been_sent(name, upto, is_acknowledged=False)

    @rule(count=st.integers(1, 10))
    def both_put_at_once(self, count: int) -> None:
        names = [self.current(p) for p in PRODUCERS]
        runs = [(n, self.acknowledged[n], self.acknowledged[n] + count) for n in names]

        async def both() -> None:
            await asyncio.gather(*(self.send(*run) for run in runs))

        self.runner.run(both())
        for name, _, upto in runs:
            self.has_been_sent(name, upto)

    @rule(producer=st.sampled_from(PRODUCERS), count=st.integers(1, 3))
    def another_process_takes_over(self, producer: str, count: int) -> None:
        """It may be heard of in one hash key range only."""
        self.epochs[producer] += 1
        name = self.current(producer)
        self.acknowledged[name] = self.sent[name] = 0
        self.runner.run(self.send(name, 0, count))
        self.has_been_sent(name, count)

    @precondition(lambda self: any(self.epochs.values()))
    @rule(data=st.data(), first=st.integers(0, 20), count=st.integers(1, 20))
    def one_that_was_replaced_wakes_up(self, data: st.DataObject, first: int, count: int) -> None:
        producer = data.draw(st.sampled_from([p for p in PRODUCERS if self.epochs[p]]))
        epoch = data.draw(st.integers(0, self.epochs[producer] - 1))
        with pytest.raises(ProducerFenced):
            self.runner.run(self.send(f"{producer}.{epoch}", first, first + count))

    @rule(producer=st.sampled_from(PRODUCERS), count=st.integers(1, 20))
    def the_disk_is_full(self, producer: str, count: int) -> None:
        """Refused as a whole; what was put beside it is refused too, and both go again."""
        other = PRODUCERS[producer == PRODUCERS[0]]
        names = [self.current(producer), self.current(other)]
        runs = [(n, self.acknowledged[n], self.acknowledged[n] + count) for n in names]
        self.store.files.fail_always("write_at", no_space)

        async def put_both() -> None:
            results = await asyncio.gather(
                *(self.send(*run) for run in runs), return_exceptions=True
            )
            for (name, _, upto), result in zip(runs, results, strict=True):
                if isinstance(result, BaseException):
                    assert isinstance(result, StorageFull)
                else:  # all of it had been stored before: nothing to write
                    self.has_been_sent(name, upto)

        self.runner.run(put_both())
        self.store.files.heal()

    @rule(data=st.data())
    def who_takes_over_meets_a_full_disk(self, data: st.DataObject) -> None:
        """Nothing of it was stored, so the one before goes on."""
        producer = data.draw(st.sampled_from(PRODUCERS))
        self.store.files.fail_always("write_at", no_space)
        with pytest.raises(StorageFull):
            epoch = self.epochs[producer] + 1
            self.sent[f"{producer}.{epoch}"] = 0
            self.runner.run(self.send(f"{producer}.{epoch}", 0, 3))
        self.store.files.heal()

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        shard = data.draw(st.sampled_from(sorted(self.ranges)))
        whole = self.ranges[shard]
        if whole.end - whole.start < 4:
            return
        inside = [key for key in HASHES if whole.start + 2 <= key < whole.end]
        anywhere = st.integers(whole.start + 2, whole.end - 1)
        at = data.draw(st.one_of(st.sampled_from(inside), anywhere) if inside else anywhere)
        parts = [HashKeyRange(whole.start, at - 1), HashKeyRange(at, whole.end)]
        self.runner.run(self.log.seal(parts))
        del self.ranges[shard]
        for part in parts:
            self.ranges[self.next_shard] = part
            self.next_shard += 1
        self.all_ranges += parts

    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        by_start = sorted(self.ranges.items(), key=lambda item: item[1])
        if len(by_start) < 2:
            return
        i = data.draw(st.integers(0, len(by_start) - 2))
        (one, first), (other, second) = by_start[i], by_start[i + 1]
        self.runner.run(self.log.seal([]))
        del self.ranges[one], self.ranges[other]
        self.ranges[self.next_shard] = HashKeyRange(first.start, second.end)
        self.all_ranges.append(self.ranges[self.next_shard])
        self.next_shard += 1

    @rule()
    def restart(self) -> None:
        self.runner.run(self.log.close())
        self.log = self.runner.run(self.store.open(self.all_ranges))

    @precondition(lambda self: self.waited_ms < PRODUCER_SILENCE_MS // 14 * 13)
    @rule()
    def wait_half_a_day(self) -> None:
        """Within the time for which producers are remembered."""
        self.waited_ms += PRODUCER_SILENCE_MS // 14
        self.runner.run(self.store.clock.advance(PRODUCER_SILENCE_MS // 14))

    @invariant()
    def every_record_is_there_once(self) -> None:
        if not hasattr(self, "log"):
            return
        found = self.runner.run(stored(self.log, range(self.next_shard)))
        assert len(found) == len(set(found)), "stored twice"
        there: dict[str, set[int]] = {name: set() for name in self.sent}
        for name, sequence in found:
            there[name].add(sequence)
        for name, sequences in there.items():
            assert sequences >= set(range(self.acknowledged.get(name, 0))), "an acknowledged loss"
            assert sequences <= set(range(self.sent[name])), "of one that was replaced"


TestIdempotentPut = IdempotentPut.TestCase
TestIdempotentPut.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


async def test_an_older_epoch_is_fenced_and_a_newer_one_starts_fresh(tmp_path: Path) -> None:
    store = Store(tmp_path / "log")
    log = await store.open([])

    def record(text: str, sequence: int) -> StampedRecord:
        return StampedRecord(0, 1, b64encode(text.encode()).decode(), "k", 5, 4, sequence)

    await log.append_once("p", 1, [record("p:1", 1)])
    with pytest.raises(ProducerFenced, match="epoch 1"):
        await log.append_once("p", 0, [record("p:2", 2)])
    await log.append_once("p", 2, [record("p:0", 0)])
    assert await stored(log, range(1)) == [("p", 1), ("p", 0)]
    await log.close()


async def test_an_older_epoch_is_fenced_where_the_newer_one_has_not_been(tmp_path: Path) -> None:
    """A process that was replaced went on writing to the shards its successor came to later."""
    store = Store(tmp_path / "log", segment_bytes=600)
    halves = [HashKeyRange(0, MAX_HASH_KEY // 2), HashKeyRange(MAX_HASH_KEY // 2 + 1, MAX_HASH_KEY)]
    log = await store.open(halves)

    def record(shard: int, sequence: int) -> StampedRecord:
        text = b64encode(b"p:%d" % sequence).decode()
        return StampedRecord(shard, 1, text, "k", halves[shard].start + 5, 4, sequence)

    await log.append_once("p", 1, [record(0, 1), record(1, 2)])
    await log.append_once("p", 2, [record(0, 3)])
    for _ in range(2):
        with pytest.raises(ProducerFenced, match="written with epoch 2; this request has epoch 1"):
            await log.append_once("p", 1, [record(1, 4)])
        for _ in range(3):  # a segment is sealed: its successor begins with a snapshot
            await log.append([ShardPut(0, 1, [b64encode(b"x:0").decode()], ["k" * 250], 253)])
        await log.close()
        log = await store.open(halves)
    found = await stored(log, range(2))
    assert [row for row in found if row[0] == "p"] == [("p", 1), ("p", 3), ("p", 2)]
    await log.append_once("q", 0, [record(1, 1)])  # others' epochs are their own
    await log.close()


async def test_a_split_between_two_puts_of_one_window_forgets_neither(tmp_path: Path) -> None:
    """The second one's mark took the place of the first one's, which alone told of the rest."""
    store = Store(tmp_path / "log", segment_bytes=1 << 20)
    middle = MAX_HASH_KEY // 2
    halves = [HashKeyRange(0, middle), HashKeyRange(middle + 1, MAX_HASH_KEY)]
    log = await store.open([HashKeyRange(0, MAX_HASH_KEY)])

    def record(key: int, sequence: int) -> StampedRecord:
        text = b64encode(b"p:%d" % sequence).decode()
        return StampedRecord(0, 1, text, "k", key, 4, sequence)

    async def put() -> None:
        await log.append_once("p", 0, [record(middle + 1, 1)])
        await log.append_once("p", 0, [record(middle + 1, 2)])

    async def split() -> None:
        await log.seal(halves)  # from here on until the halves are shards, the parent takes puts
        await log.append_once("p", 0, [record(0, 3)])

    await asyncio.gather(put(), split())
    assert store.files.calls.count("sync_data") == 2, "2 and 3 shared a window"
    await log.close()
    log = await store.open(halves)
    for key, sequence in ((middle + 1, 2), (0, 3)):
        assert (await log.append_once("p", 0, [record(key, sequence)])).stored == {}
    assert await stored(log, range(1)) == [("p", 1), ("p", 2), ("p", 3)]
    await log.close()


async def test_a_record_twice_in_one_request_is_stored_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "log")
    log = await store.open([])
    text = b64encode(b"p:1").decode()
    twice = [StampedRecord(0, 1, text, "k", 5, 4, 1)] * 2
    numbers, fresh = await log.append_once("p", 0, twice)
    assert numbers[0] == numbers[1]
    assert fresh == {0: [0]}
    assert (await log.append_once("p", 0, twice)).stored == {}
    assert await stored(log, range(1)) == [("p", 1)]
    await log.close()


async def test_a_silent_producer_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "log", segment_bytes=600)
    log = await store.open([])
    text = b64encode(b"p:1").decode()
    await log.append_once("p", 0, [StampedRecord(0, 1, text, "k", 5, 4, 1)])
    await store.clock.advance(PRODUCER_SILENCE_MS + 1)
    for _ in range(3):  # forgetting happens when a segment is sealed
        await log.append([ShardPut(0, 1, [b64encode(b"x:0").decode()], ["k" * 250], 253)])
    await log.append_once("p", 0, [StampedRecord(0, 1, text, "k", 5, 4, 1)])
    assert (await stored(log, range(1))).count(("p", 1)) == 2
    await log.close()


@pytest.mark.parametrize("in_loop_bytes", [0, InLoop.small_bytes])
async def test_a_failed_sync_stops_the_store(tmp_path: Path, in_loop_bytes: int) -> None:
    store = Store(tmp_path / "log")
    store.in_loop_bytes = in_loop_bytes
    log = await store.open([])
    store.files.fail_always("sync_data", io_error)
    put = ShardPut(0, 1, [b64encode(b"x:0").decode()], ["k"], 4)
    with pytest.raises(InternalFailure):
        await log.append([put])
    assert len(store.fatal) == 1
    store.files.heal()
    with pytest.raises(InternalFailure):  # a second sync could succeed without the data
        await log.append([put])
    assert await stored(log, range(1)) == []


async def test_puts_that_wait_for_a_sync_share_the_next_window(tmp_path: Path) -> None:
    store = Store(tmp_path / "log", segment_bytes=1 << 20)
    log = await store.open([])
    puts = [ShardPut(0, 1, [b64encode(b"x:%d" % i).decode()], ["k"], 4) for i in range(200)]
    await asyncio.gather(*(log.append([put]) for put in puts))
    assert [sequence for _, sequence in await stored(log, range(1))] == list(range(200))
    assert store.files.calls.count("sync_data") < 5
    await log.close()
