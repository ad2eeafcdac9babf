"""Rotation by renaming, and other ways for a path to lead elsewhere, while the agent runs."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from agent_support import Log, Rig

LONG = " " + "x" * 100


async def test_lines_are_shipped_once_and_in_order_per_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path, partition_by="file")
    log = rig.log()
    log.write_numbered(10)
    await rig.step()
    log.write_numbered(10)
    await rig.step()
    await rig.stop()
    assert rig.lines == log.written
    assert len({record.shard for record in rig.sink.records}) == 1


async def test_lines_spread_over_shards_by_default(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    await rig.stop()
    rig.assert_once(log)
    assert len({record.shard for record in rig.sink.records}) == rig.sink.shard_count


async def test_rename_while_50_mb_are_unread(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    log.write_numbered(50_000, tail=" " + "x" * 1000)
    assert log.path.stat().st_size > 50_000_000
    log.rotate()
    log.write_numbered(5)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_a_writer_that_goes_on_with_the_old_file_after_the_rename(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    with log.path.open("ab") as stale:
        log.rotate()
        for _ in range(10):
            line = log.numbered().encode()
            stale.write(line + b"\n")
            stale.flush()
            log.written.append(line)
            log.write_numbered(3)
            await rig.step()
    await rig.stop()
    rig.assert_once(log)


async def test_five_renames_between_two_scans(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    for _ in range(5):
        log.write_numbered(20)
        log.rotate()
    log.write_numbered(1)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_rename_to_a_name_outside_the_pattern(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="*.log")
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    log.write_numbered(20)
    log.path.rename(tmp_path / "moved-elsewhere")
    log.write_numbered(3)
    await rig.step(2)
    rig.assert_once(log)
    with (tmp_path / "moved-elsewhere").open("ab") as late:
        late.write(b"late\n")
    log.written.append(b"late")
    await rig.step()
    await rig.stop()
    rig.assert_once(log)


async def test_rename_and_delete_while_unread(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    log.write_numbered(2000, tail=LONG)
    log.rotate().unlink()
    log.write_numbered(3)
    await rig.step(2)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.settle()
    assert [position.path for position in rig.positions()] == [str(log.path)]
    assert rig.running.registry.open_count == 1, "the deleted file's space is free again"
    await rig.stop()


async def test_a_new_file_renamed_and_deleted_before_it_is_read(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.path.touch()
    await rig.step()  # met while empty, and held open from then on
    log.write_numbered(7)
    log.path.unlink()
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_rename_and_compress_before_all_is_read(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    log.write_numbered(500)
    old = log.rotate()
    Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()
    await rig.settle()
    await rig.stop()
    rig.assert_once(log)


async def _shipped_and_let_go(rig: Rig) -> Log:
    """A log all of which is shipped, and that nothing holds open, as when descriptors run short."""
    rig.settings["max_open_files"] = 8
    log = rig.log("first.log")
    log.write_numbered(50)
    await rig.step(2)
    for file in rig.running.registry:
        file.close()
    return log


async def test_an_inode_comes_back_emptied_under_another_name(tmp_path: Path) -> None:
    """What a freed inode number on another file looks like where inodes have no generations."""
    rig = Rig(tmp_path)
    first = await _shipped_and_let_go(rig)
    second = rig.log("second.log")
    first.path.rename(second.path)
    os.truncate(second.path, 0)
    second.write_numbered(80)
    await rig.step(3)
    await rig.stop()
    rig.assert_once(first, second)


async def test_a_freed_inode_number_comes_back_on_another_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    first = await _shipped_and_let_go(rig)
    inode = first.path.stat().st_ino
    first.path.unlink()
    for number in range(2_000):
        path = tmp_path / f"{number}.spare"
        path.touch()
        if path.stat().st_ino == inode:
            break
    else:
        # Which number comes next is the file system's affair, and any process's that makes a file.
        pytest.skip("the freed inode number went to nobody here, or to another process's file")
    second = rig.log("second.log")
    path.rename(second.path)
    second.write_numbered(80)
    assert second.path.stat().st_ino == inode
    await rig.step(3)
    await rig.stop()
    rig.assert_once(first, second)


async def test_files_with_the_same_beginning_are_two_files(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    header = [f"#Fields: {n} " + "f" * 120 for n in range(40)]
    logs = [rig.log(name) for name in ("one.log", "two.log")]
    for log in logs:
        log.write(*header)
        log.write_numbered(20)
    assert logs[0].path.read_bytes()[:4096] == logs[1].path.read_bytes()[:4096]
    await rig.step(2)
    await rig.stop()
    rig.assert_once(*logs)


async def test_files_that_are_equal_for_a_while(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    logs = [rig.log(name) for name in ("one.log", "two.log")]
    for log in logs:
        log.write("started", "listening on 80")
    await rig.step(2)
    assert len(rig.lines) == 2, "the second might be the copy of the first: it waits"
    for log in logs:
        log.write_numbered(3)
    await rig.step(2)
    rig.assert_once(*logs)
    await rig.stop()


async def test_files_that_stay_equal(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    logs = [rig.log(name) for name in ("one.log", "two.log")]
    for log in logs:
        log.write("started", "listening on 80")
    await rig.step(8)
    await rig.stop()
    rig.assert_once(*logs)


async def test_hard_links_and_two_patterns_ship_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.flows[0]["files"] = [str(rig.logs / "*.log"), str(rig.logs / "a*")]
    rig.flows.append({**rig.flows[0], "files": str(rig.logs / "**" / "*.log")})
    log = rig.log()
    log.write_numbered(5)
    (rig.logs / "another.log").hardlink_to(log.path)
    await rig.step(2)
    log.write_numbered(5)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_a_link_that_is_pointed_elsewhere(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="current.log")
    first, second = rig.log("day-1"), rig.log("day-2")
    link = rig.logs / "current.log"
    first.write_numbered(5)
    link.symlink_to(first.path)
    await rig.step()
    first.write_numbered(5)
    second.write_numbered(4)
    link.unlink()
    link.symlink_to(second.path)
    first.write_numbered(2)
    await rig.step(2)
    second.write_numbered(2)
    first.write_numbered(1)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(first, second)


async def test_dangling_links_link_loops_and_things_that_are_no_files(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="**/*.log")
    log = rig.log()
    log.write_numbered(3)
    (rig.logs / "gone.log").symlink_to(rig.logs / "nowhere")
    (rig.logs / "loop.log").symlink_to(rig.logs / "loop.log")
    (rig.logs / "round").symlink_to(rig.logs)
    (rig.logs / "folder.log").mkdir()
    os.mkfifo(rig.logs / "pipe.log")
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_empty_and_one_byte_files(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    empty, tiny, one = rig.log("empty.log"), rig.log("tiny.log"), rig.log("one.log")
    empty.path.touch()
    tiny.write("x")
    one.write("")
    await rig.step()
    rig.assert_once(tiny, one)
    empty.write("y")
    await rig.step()
    rig.assert_once(tiny, one, empty)
    await rig.stop()


async def test_clocks_and_modification_times_do_not_matter(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(3)
    os.utime(log.path, (4_000_000_000, 4_000_000_000))
    await rig.step()
    rig.clock.step_wall(-86_400_000)
    log.write_numbered(3)
    os.utime(log.path, (1, 1))
    await rig.step()
    rig.clock.step_wall(30 * 86_400_000)
    log.write_numbered(3)
    await rig.step()
    await rig.stop()
    rig.assert_once(log)


async def test_more_files_than_descriptors(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.settings["max_open_files"] = 8
    logs = [rig.log(f"{number}.log") for number in range(60)]
    for log in logs:
        log.write_numbered(3)
    for _ in range(12):
        await rig.step()
        assert rig.running.registry.open_count <= 8
    for log in logs:
        log.write_numbered(3)
        log.rotate()
        log.write_numbered(2)
    await rig.step(20)
    assert rig.running.registry.open_count <= 8
    await rig.stop()
    rig.assert_once(*logs)
