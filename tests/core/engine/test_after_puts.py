"""Readers who find nothing, and what is put in the same turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from group_commit_support import put, watched
from headrace.core.engine.embedded import group_commit
from headrace.core.engine.embedded.group_commit import PROMPT_BYTES
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.errors import InternalFailure, StorageFull
from headrace.core.model.sequence import BEGINNING
from headrace.core.testing.faulty_files import FaultyFiles, io_error, no_space


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has put, has put of late."""
    monkeypatch.setattr(group_commit, "IDLE_MARK_S", 60)


@pytest.mark.usefixtures("lively")
@pytest.mark.parametrize("puts", [1, 3])
async def test_readers_wait_for_what_is_put_in_the_same_turn(
    log: EmbeddedShardLog, puts: int
) -> None:
    log.commits.in_loop.mean_s = 10
    assert log.after_puts() is None  # nobody has put
    await log.append([put(1)])
    readers = [log.after_puts(), log.after_puts()]
    written = [log.append_soon([put(2)])[1] for _ in range(puts)]
    found: list[int] = []
    for reader in readers:
        assert reader is not None
        reader.add_done_callback(lambda _: found.append(stored(log)))
    await asyncio.gather(*written)
    assert found == [1 + puts, 1 + puts]


def stored(log: EmbeddedShardLog) -> int:
    """How many records can be read."""
    found = log._log.snapshot().read(
        0, BEGINNING, floor=BEGINNING, max_records=100, max_bytes=1 << 20
    )
    return found.records


@pytest.mark.usefixtures("lively")
@pytest.mark.parametrize("size", [InLoop.small_bytes, PROMPT_BYTES])
async def test_readers_do_not_wait_for_a_thread(
    log: EmbeddedShardLog, files: FaultyFiles, size: int
) -> None:
    await log.append([put(1)])
    watched(files).may_sync.clear()
    before, after = log.after_puts(), log.append_soon([put(size)])[1]
    between = log.after_puts()
    assert before is not None and between is not None
    await asyncio.gather(before, between)
    assert not after.done()
    while_it_writes = log.after_puts()
    assert while_it_writes is not None
    await while_it_writes
    assert not after.done()
    watched(files).may_sync.set()
    await after


@pytest.mark.usefixtures("lively")
async def test_readers_wait_for_nothing_that_fails(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    await log.append([put(1)])
    files.fail_always("write_at", no_space)
    reader, (_, refused) = log.after_puts(), log.append_soon([put(2)])
    assert reader is not None
    await reader
    with pytest.raises(StorageFull):
        await refused
    assert stored(log) == 1
    files.heal()
    gone, reader = log.after_puts(), log.after_puts()
    assert gone is not None and reader is not None
    gone.cancel()  # the server ends
    await reader


@pytest.mark.usefixtures("lively")
async def test_readers_are_answered_where_the_store_fails(
    log: EmbeddedShardLog, files: FaultyFiles
) -> None:
    log.commits.in_loop.mean_s = 10
    await log.append([put(1)])
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of what `on_fatal` raises
    files.fail_always("write_at", io_error)
    reader, (_, refused) = log.after_puts(), log.append_soon([put(2)])
    assert reader is not None
    async with asyncio.timeout(10):
        await reader
    with pytest.raises(InternalFailure):
        await refused


async def test_readers_wait_for_nobody_who_has_not_put_of_late(log: EmbeddedShardLog) -> None:
    await log.append([put(1)])
    async with asyncio.timeout(10):
        while (reader := log.after_puts()) is not None:
            await reader
