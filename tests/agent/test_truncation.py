"""copytruncate, and files that are truncated without a copy."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from agent_support import Rig

LONG = " " + "x" * 1000


async def test_copytruncate_when_all_is_read(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    for _ in range(4):
        log.write_numbered(200)
        await rig.step()
        log.copytruncate()
        log.write_numbered(7)
        await rig.step(2)
    await rig.settle()
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_copytruncate_seen_before_the_log_is_written_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(200)
    await rig.step()
    log.copytruncate()
    await rig.step(3)
    log.write_numbered(2)
    await rig.step(3)
    rig.assert_once(log)
    await rig.stop()


async def test_copytruncate_with_50_mb_unread_reads_the_rest_from_the_copy(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    log.write_numbered(50_000, tail=LONG)
    log.copytruncate()
    log.write_numbered(10)
    await rig.step(3)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_copytruncate_while_nothing_at_all_was_shipped_yet(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(30)
    await rig.start()
    await rig.running.scan()  # it is known, no more
    log.write_numbered(30)
    log.copytruncate()
    log.write_numbered(30)
    await rig.step(3)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_a_copy_outside_the_pattern_is_found_in_the_folder(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="*.log")
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    log.write_numbered(100)
    log.copytruncate()
    log.write_numbered(5)
    await rig.step(3)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_a_copy_that_was_compressed_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    log.write_numbered(100)
    copy = log.copytruncate()
    Path(f"{copy}.gz").write_bytes(gzip.compress(copy.read_bytes()))
    copy.unlink()
    log.write_numbered(5)
    await rig.step(3)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_a_copy_nobody_can_find_is_an_exact_loss(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    read_bytes = log.path.stat().st_size
    lost = [log.numbered() for _ in range(100)]
    log.write(*lost)
    await rig.running.scan()
    whole_bytes = log.path.stat().st_size
    (tmp_path / "elsewhere").mkdir()
    log.copytruncate(to=tmp_path / "elsewhere" / "copy")
    log.write_numbered(5)
    rig.running.shipper.turns.is_stopping = False
    await rig.step(3)
    (loss,) = rig.losses()
    assert (loss.start, loss.end) == (read_bytes, whole_bytes)
    assert loss.path == str(log.path)
    assert rig.running.health().figures["bytes_lost"] == whole_bytes - read_bytes
    del log.written[100:200]
    rig.assert_once(log)
    await rig.stop()


async def test_what_a_copy_missed_is_an_exact_loss(tmp_path: Path) -> None:
    """Lines written after the copy was made and before the truncation are in neither."""
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    log.write_numbered(50)
    copy = log.path.with_name("a.log.1")
    copy.write_bytes(log.path.read_bytes())
    copied_bytes = copy.stat().st_size
    log.write_numbered(20)
    await rig.running.scan()  # the agent sees how long it is, but does not get to read it
    whole_bytes = log.path.stat().st_size
    log.truncate()
    log.write_numbered(5)
    await rig.step(3)
    (loss,) = rig.losses()
    assert (loss.start, loss.end) == (copied_bytes, whole_bytes)
    del log.written[150:170]
    rig.assert_once(log)
    await rig.stop()


async def test_read_beyond_the_copy(tmp_path: Path) -> None:
    """The same, but the agent had read those lines in time: nothing is lost or repeated."""
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    copy = log.path.with_name("a.log.1")
    copy.write_bytes(log.path.read_bytes())
    for _ in range(3):
        log.write_numbered(10)
        await rig.step()
    log.truncate()
    log.write_numbered(5)
    await rig.settle()
    rig.assert_once(log)
    assert rig.losses() == []
    with copy.open("ab") as late:
        late.write(b"appended to the copy\n")
    await rig.step(2)
    assert rig.lines[-1] == b"appended to the copy"
    await rig.stop()


async def test_regrown_past_the_old_offset_between_two_scans(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    header = "#Version: 1.0 " + "-" * 5000
    log.write(header)
    log.write_numbered(50)
    await rig.step()
    old_bytes = log.path.stat().st_size
    log.truncate()
    log.write(header)
    log.write_numbered(100)
    assert log.path.stat().st_size > old_bytes
    await rig.step(2)
    rig.assert_once(log)
    await rig.stop()


async def test_regrown_to_the_very_same_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write("first line", "second one")
    await rig.step()
    log.truncate()
    log.write("other line", "second two")
    os.utime(log.path, (2_000_000_000, 2_000_000_000))
    await rig.step(2)
    rig.assert_once(log)
    await rig.stop()


@pytest.mark.parametrize("again", [1, 3])
async def test_truncated_over_and_over(tmp_path: Path, again: int) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    for _ in range(6):
        for _ in range(again):
            log.write_numbered(10)
            await rig.step()
        log.truncate()
        await rig.step()
    await rig.stop()
    rig.assert_once(log)
    assert max(record.epoch for record in rig.sink.records) == 5


async def test_a_writer_that_does_not_append_leaves_nuls(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    line = "stale writer " + "x" * 87
    with log.path.open("wb") as stale:
        stale.write(line.encode() + b"\n")
        stale.flush()
        log.written.append(line.encode())
        for _ in range(3):
            await rig.step()
            log.truncate()
            text = log.numbered()
            stale.write(text.encode() + b"\n")  # at its own old offset: a hole before it
            stale.flush()
            log.written.append(text.encode())
            await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_nuls_are_counted_even_when_the_hole_is_huge(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write("before")
    await rig.step()
    log.truncate()
    with log.path.open("r+b") as stale:
        stale.seek(10 << 30)
        stale.write(b"far out\nand on\n")
    log.written += [b"far out", b"and on"]
    await rig.step(2)
    rig.assert_once(log)
    assert rig.running.counters.nul_bytes_skipped == 10 << 30
    await rig.stop()


async def test_space_set_aside_at_the_end_is_waited_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write("one")
    with log.path.open("r+b") as file:
        file.truncate(3 << 20)
        await rig.step(2)
        assert rig.lines == [b"one"]
        file.seek(4)
        file.write(b"two\n")
        file.flush()
        await rig.step(2)
    assert rig.lines == [b"one", b"two"]
    assert rig.running.counters.nul_bytes_skipped == 0
    await rig.stop()


async def test_a_file_written_anew_in_place(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    log.truncate()
    log.write("quite", "other", "lines")
    await rig.step(2)
    rig.assert_once(log)
    await rig.stop()


async def test_copytruncate_seen_half_way(tmp_path: Path) -> None:
    """A copy is met while it is still being written; it must not count as a file of its own."""
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(1000)
    await rig.step()
    log.write_numbered(500)
    content = log.path.read_bytes()
    copy = log.path.with_name("a.log.1")
    for share in (0, 10, 4096, len(content) // 2, len(content)):
        copy.write_bytes(content[:share])
        await rig.step()
    log.truncate()
    log.write_numbered(5)
    await rig.step(3)
    rig.assert_once(log)
    await rig.stop()
