"""Which windows are written when, and by whom."""

from __future__ import annotations

import asyncio
import gc
import weakref
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from group_commit_support import open_log, put, syncs, watched
from headrace.core.engine.embedded.group_commit import PROMPT_BYTES
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.engine.seam import LogClosed
from headrace.core.errors import StorageFull
from headrace.core.log.stream_log import StreamLog
from headrace.core.log.window import Window
from headrace.core.model.sequence import BEGINNING
from headrace.core.testing.faulty_files import FaultyFiles, no_space


async def test_small_windows_are_synced_here_and_large_ones_in_a_thread(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    log.commits.in_loop.mean_s = 10
    await log.append([put(100)])
    await log.append([put(InLoop.small_bytes)])
    await log.append([put(100)])
    assert syncs(files) == ["here", "there", "here"]


async def test_a_window_that_ends_a_segment_goes_to_a_thread(
    tmp_path: Path, files: FaultyFiles
) -> None:
    log = open_log(tmp_path, files, segment_bytes=1000)
    log.commits.in_loop.mean_s = 10
    for _ in range(6):  # two of these fill a segment
        await log.append([put(400)])
    found = syncs(files)
    assert "here" in found and found.count("there") >= 2
    await log.close()


async def test_a_slow_sync_sends_the_next_ones_to_a_thread_for_a_while(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    time = Time()
    log.commits.in_loop = InLoop(time)
    log.commits.in_loop.mean_s = 0  # no disk is that quick
    await log.append([put(10)])
    for _ in range(3):
        await log.append([put(10)])
    time.now_s += InLoop.first_away_s
    await log.append([put(10)])
    assert syncs(files) == ["here", "there", "there", "there", "here"]


async def test_notes_for_the_next_start_are_not_taken_in_the_loop_while_the_disk_is_slow(
    log: EmbeddedShardLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.commits.in_loop = policy = InLoop(Time())
    noted: list[bool] = []
    monkeypatch.setattr(StreamLog, "note", lambda _: noted.append(policy.is_away))

    async def put_and_rest() -> None:
        await log.append([put(10)])
        for _ in range(3):
            await asyncio.sleep(0)

    policy.mean_s = 10
    await put_and_rest()
    assert noted == [False]
    policy.took(100)
    await put_and_rest()
    assert policy.is_away and noted == [False]


class Time:
    """A clock by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def takes(policy: InLoop, stored_bytes: int = 0, puts: int = 2) -> bool:
    """Whether it takes a window, which is done with before the next."""
    window = Window(1)
    window.close()
    window.stored_bytes = stored_bytes
    found = policy.takes(window, puts)
    policy.done_with()
    return found


def away_s(policy: InLoop, time: Time) -> float:
    """How long the windows go to the thread from now on."""
    began_s = time.now_s
    while not takes(policy):
        time.now_s += InLoop.first_away_s / 4
    return time.now_s - began_s


def test_a_disk_that_stays_slow_is_tried_ever_more_seldom() -> None:
    time = Time()
    policy = InLoop(time)
    first_s, found = InLoop.first_away_s, []
    for _ in range(9):
        assert takes(policy)
        policy.took(policy.mean_s * 5)
        found.append(away_s(policy, time))
    doubled = [first_s * 2**n for n in range(7)]
    assert found == pytest.approx([*doubled, InLoop.most_away_s, InLoop.most_away_s], abs=first_s)


def test_a_sync_may_take_as_much_longer_as_those_before_it_were_quicker() -> None:
    time = Time()
    policy = InLoop(time)
    for _ in range(3):
        policy.took(1)
        assert away_s(policy, time) > 0
    mean_s, most_s = InLoop.mean_s, InLoop.most_saved_s
    for _ in range(100):  # more than may be saved
        assert takes(policy)
        policy.took(mean_s / 2)
    for seconds in (most_s / 2, mean_s * 1.5, mean_s, most_s / 2):
        assert takes(policy)
        policy.took(seconds)
    assert takes(policy)
    policy.took(mean_s * 4)  # there is not that much left
    # and it begins anew: the disk has been quick in between
    assert away_s(policy, time) == pytest.approx(InLoop.first_away_s, abs=0.02)


def test_larger_windows_are_taken_while_nobody_else_puts() -> None:
    policy, larger = InLoop(), InLoop.lone_bytes
    for _ in range(InLoop.lone_after):
        assert not takes(policy, larger, puts=1)
    for _ in range(9):
        assert takes(policy, larger, puts=1)
    assert not takes(policy, larger + 1, puts=1)
    assert not takes(policy, larger, puts=2)  # two have put into it
    assert [takes(policy, larger, puts=1) for _ in range(5)] == [False] * 4 + [True]
    # what comes while another is written, or in the turn after it, is somebody else's
    policy.takes(Window(1), puts=1)
    assert not takes(policy, larger, puts=1)
    policy.done_with()
    assert [takes(policy, larger, puts=1) for _ in range(5)] == [False] * 4 + [True]


async def test_a_lone_put_of_many_records_is_written_here_until_others_put_as_well(
    tmp_path: Path, files: FaultyFiles
) -> None:
    """On whatever streams: they share the loop, and the disk."""
    policy = InLoop()
    policy.mean_s = 10
    logs = [open_log(tmp_path / name, files, in_loop=policy) for name in "ab"]
    size = InLoop.lone_bytes // 2

    async def put_and_rest(log: EmbeddedShardLog) -> None:
        await log.append([put(size)])
        for _ in range(3):  # a client has to hear of it before it puts again
            await asyncio.sleep(0)

    for _ in range(InLoop.lone_after + 2):
        await put_and_rest(logs[0])
    assert syncs(files) == ["there"] * InLoop.lone_after + ["here"] * 2
    await asyncio.gather(*map(put_and_rest, logs))
    assert "there" in syncs(files)
    for _ in range(2):
        await logs[0].append([put(size)])  # at once, as what waited in another's socket
    assert syncs(files) == ["there"] * 2
    for log in logs:
        await log.close()


async def test_a_large_request_does_not_wait_for_the_others_of_its_turn(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    watched(files).may_sync.clear()
    puts = [asyncio.create_task(log.append([put(PROMPT_BYTES)])) for _ in range(4)]
    await asyncio.sleep(0)
    watched(files).may_sync.set()
    await asyncio.gather(*puts)
    assert len(syncs(files)) == 2  # the first, and what came while it was written
    await asyncio.gather(*(log.append([put(10)]) for _ in range(4)))
    assert len(syncs(files)) == 1


async def test_a_lone_put_is_written_in_the_next_turn_and_several_gather_for_one_more(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    log.commits.in_loop.mean_s = 10
    loop = asyncio.get_running_loop()
    alone = asyncio.create_task(log.append([put(10)]))
    await asyncio.sleep(0)  # it is put
    await asyncio.sleep(0)
    assert syncs(files) == ["here"]
    puts = [asyncio.create_task(log.append([put(10)])) for _ in range(2)]
    # as it comes from a client who was answered with those: a turn later
    loop.call_soon(lambda: puts.append(asyncio.create_task(log.append([put(10)]))))
    while len(puts) < 3:  # noqa: ASYNC110 - turns are what it waits for
        await asyncio.sleep(0)
    await asyncio.gather(alone, *puts)
    assert syncs(files) == ["here"]


async def test_a_full_disk_in_the_loop_refuses_all_of_the_window_and_no_more(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    log.commits.in_loop.mean_s = 10
    await log.append([put(1)])
    files.fail_always("write_at", no_space)
    answers = await asyncio.gather(
        *(log.append([put(2)]) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [StorageFull] * 3
    files.heal()
    await log.append([put(3)])
    found = await log.read(0, BEGINNING, floor=BEGINNING, max_records=10, max_bytes=1 << 20)
    assert [
        b'"Data":"%b"' % b64encode(bytes(n)) in bytes(part)
        for n, part in zip((1, 3), found.parts, strict=True)
    ] == [True, True]


async def test_closing_on_a_full_disk_closes(tmp_path: Path, files: FaultyFiles) -> None:
    log = open_log(tmp_path, files)
    await log.append([put(1)])
    files.fail_always("write_at", no_space)
    large = asyncio.create_task(log.append([put(InLoop.small_bytes)]))
    await asyncio.sleep(0)
    await log.close()
    with pytest.raises(StorageFull):
        await large
    files.heal()
    again = open_log(tmp_path, files)
    await again.append([put(3)])
    await again.close()


async def test_nothing_is_read_of_a_closed_log(tmp_path: Path, files: FaultyFiles) -> None:
    log = open_log(tmp_path, files)
    await log.append([put(100)])
    where: Any = {"floor": BEGINNING, "max_records": 1, "max_bytes": 1_000}
    assert log.read_now(0, log.tail, **where) is not None
    await log.close()
    assert log.read_now(0, log.tail, **where) is None
    with pytest.raises(LogClosed):
        await log.read(0, log.tail, **where)


async def test_the_memory_of_a_closed_log_is_free_at_once(
    tmp_path: Path, files: FaultyFiles
) -> None:
    """Not at some collection: a deleted stream of 10,000 shards leaves 4 MB behind."""
    log = open_log(tmp_path, files)
    await log.append([put(100)])
    gc.disable()
    try:
        await log.close()
        freed = weakref.ref(log)
        del log
        await asyncio.sleep(0)
        assert freed() is None
    finally:
        gc.enable()
