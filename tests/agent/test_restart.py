"""What happened while the agent was down, and crashes at the worst moments."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from agent_support import Log, Rig
from headrace.core.errors import StorageLocked, UnknownFormatVersion


async def _half_shipped(rig: Rig, name: str = "a.log") -> Log:
    """A log of 200 lines, the first half shipped, and the agent down."""
    log = rig.log(name)
    log.write_numbered(100)
    await rig.step()
    await rig.stop()
    log.write_numbered(100)
    return log


async def test_renamed_while_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = await _half_shipped(rig)
    log.rotate()
    log.write_numbered(10)
    log.rotate()
    log.write_numbered(10)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_renamed_out_of_the_pattern_while_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="*.log")
    log = await _half_shipped(rig)
    log.path.rename(rig.logs / "a.old")
    log.write_numbered(10)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_compressed_while_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = await _half_shipped(rig)
    (rig.logs / "other.log.3.gz").write_bytes(gzip.compress(b"not this one\n" * 500))
    (rig.logs / "a.log.9.gz").write_bytes(b"\x1f\x8b damaged")
    old = log.rotate()
    Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()
    log.write_numbered(10)
    await rig.step(3)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()
    await rig.step(3)
    await rig.stop()
    rig.assert_once(log)


async def test_deleted_while_down_is_an_exact_loss(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    shipped_bytes = log.path.stat().st_size
    log.write_numbered(100)
    await rig.running.scan()
    known_bytes = log.path.stat().st_size
    await rig.stop()
    log.path.unlink()
    await rig.step(3)
    (loss,) = rig.losses()
    assert (loss.start, loss.end, loss.path) == (shipped_bytes, known_bytes, str(log.path))
    assert any("cannot be found" in text for text in rig.running.health().problems)
    await rig.stop()
    await rig.step(3)
    assert len(rig.losses()) == 1, "said once, not at every start"
    await rig.stop()
    del log.written[100:]
    rig.assert_once(log)


async def test_a_folder_that_is_not_mounted_for_a_while(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="volume/*.log")
    log = await _half_shipped(rig, "volume/a.log")
    log.path.parent.rename(tmp_path / "unmounted")
    await rig.step(3)
    (tmp_path / "unmounted").rename(log.path.parent)
    await rig.step(3)
    await rig.stop()
    rig.assert_once(log)


async def test_truncated_to_nothing_while_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    await rig.stop()
    log.truncate()
    await rig.step(2)
    log.write_numbered(10)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_copytruncated_twice_while_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = await _half_shipped(rig)
    log.copytruncate()
    log.write_numbered(300)
    log.copytruncate()
    log.write_numbered(20)
    await rig.step(8)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_another_device_number_after_a_reboot(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = await _half_shipped(rig)
    _edit_positions(rig, "'$.device'", 77)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


async def test_inode_reused_while_down_by_a_file_that_begins_the_same(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    header = "#Fields: date time c-ip cs-method cs-uri-stem sc-status"
    log.write(header)
    await rig.step()
    generation = rig.positions()[0].inode_generation
    await rig.stop()
    assert generation is not None, "this file system numbers no inode generations"
    # To the agent this is what a new file with the old one's inode number looks like.
    _edit_positions(rig, "'$.inode_generation'", generation + 1)
    log.write_numbered(3)
    log.written.append(header.encode())
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


@pytest.mark.parametrize("after_count", [0, 1, 7, 50, 99, 100])
async def test_crash_before_the_acknowledgement_is_stored(tmp_path: Path, after_count: int) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step_into_crash(after_count)
    log.write_numbered(30)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)
    assert rig.sink.repeated_count == min(after_count, 100)


@pytest.mark.parametrize("after_count", [0, 1, 60])
async def test_crash_then_rotation(tmp_path: Path, after_count: int) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step_into_crash(after_count)
    log.rotate()
    log.write_numbered(30)
    await rig.step_into_crash(after_count // 2)
    log.rotate()
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)


@pytest.mark.parametrize("after_count", [0, 1, 60])
async def test_crash_then_copytruncate(tmp_path: Path, after_count: int) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step_into_crash(after_count)
    log.copytruncate()
    log.write_numbered(150)
    await rig.step_into_crash(after_count)
    log.copytruncate()
    log.write_numbered(2)
    await rig.step(8)
    rig.assert_once(log)
    assert rig.losses() == []
    await rig.stop()


async def test_batch_borders_do_not_matter_to_a_replay(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.flows[0]["batch"] = {"size": 7}
    log = rig.log()
    log.write_numbered(100)
    await rig.step_into_crash(33)
    rig.flows[0]["batch"] = {"size": 500}
    await rig.step()
    await rig.stop()
    rig.assert_once(log)


async def test_an_orderly_end_in_the_middle(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    for _ in range(5):
        log.write_numbered(40)
        await rig.step()
        await rig.stop()
    rig.assert_once(log)
    assert rig.sink.repeated_count == 0


async def test_start_at_the_end_means_the_first_run_only(tmp_path: Path) -> None:
    rig = Rig(tmp_path, start="end")
    log = rig.log()
    log.write("old", "older")
    with log.path.open("ab") as file:
        file.write(b"unfin")
    await rig.step()
    with log.path.open("ab") as file:
        file.write(b"ished\n")
    await rig.step()
    assert rig.lines == [b"unfinished"], "the last line is not sent again, an unfinished one is"
    await rig.stop()
    later = rig.log("b.log")
    later.write("written while the agent was down")
    await rig.step()
    await rig.stop()
    assert rig.lines[1:] == later.written


async def test_a_damaged_store_is_replaced_by_its_copy(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(100)
    await rig.step()
    await rig.running.store.copy_aside()
    log.write_numbered(50)
    await rig.step()
    await rig.stop()
    store = rig.data / "positions.db"
    for damage in (b"", b"garbage" * 1000, store.read_bytes()[:5000]):
        for suffix in ("-wal", "-shm"):
            store.with_name(store.name + suffix).unlink(missing_ok=True)
        copy = store.with_suffix(".previous.db").read_bytes()
        store.write_bytes(damage)
        log.write_numbered(10)
        await rig.step(2)
        rig.assert_once(log)
        assert any("previous" in text for text in rig.running.health().problems)
        await rig.stop()
        store.with_suffix(".previous.db").write_bytes(copy)
    assert store.with_name("positions.db.broken").exists()


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.step()
    await rig.stop()
    with sqlite3.connect(rig.data / "positions.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UnknownFormatVersion, match="start the newer version"):
        await rig.start()


async def test_a_second_agent_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.step()
    other = Rig(tmp_path)
    with pytest.raises(StorageLocked, match=r"another agent \(process \d+\)"):
        await other.start()
    await rig.stop()
    await other.start()
    await other.stop()


async def test_a_flow_taken_out_and_put_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, files="a.log")
    rig.flows.append({"files": str(rig.logs / "b.log"), "stream": "others"})
    log, other = rig.log("a.log"), rig.log("b.log")
    log.write_numbered(5)
    other.write_numbered(5)
    await rig.step()
    await rig.stop()
    taken = rig.flows.pop()
    log.write_numbered(5)
    other.write_numbered(5)
    await rig.step(2)
    await rig.stop()
    assert rig.sink_of("others").lines == other.written[:5]
    rig.flows.append(taken)
    await rig.step(2)
    await rig.stop()
    rig.assert_once(log)
    assert sorted(rig.sink_of("others").lines) == sorted(other.written)


async def test_positions_of_files_long_gone_are_forgotten(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    await rig.stop()
    log.path.unlink()
    await rig.step()
    assert len(rig.running.store.load()) == 1
    await rig.stop()
    rig.clock.step_wall(8 * 86_400_000)
    await rig.step()
    assert rig.running.store.load() == []
    await rig.stop()


def _edit_positions(rig: Rig, path: str, value: int) -> None:
    connection = sqlite3.connect(rig.data / "positions.db")
    with connection:
        connection.execute(f"UPDATE positions SET state = json_set(state, {path}, ?)", (value,))
    connection.close()


@pytest.mark.parametrize("after_count", [1, 3, 6])
async def test_crash_in_the_first_batch_then_a_copy_beside_files_with_the_same_header(
    tmp_path: Path, after_count: int
) -> None:
    """The header alone does not tell which of two new files is the copy."""
    rig = Rig(tmp_path)
    header = "#Fields: " + "f" * 5000
    log, other = rig.log("a.log"), rig.log("b.log")
    log.write(header)
    log.write_numbered(8)
    await rig.step_into_crash(after_count)
    other.write(header)
    other.write_numbered(500)
    log.copytruncate()
    await rig.step(8)
    rig.assert_once(log, other)
    assert rig.losses() == []
    await rig.stop()


@pytest.mark.parametrize("header_bytes", [50, 5000])
@pytest.mark.parametrize("after_count", [1, 3, 8])
async def test_crash_in_the_first_batch_then_truncated_and_begun_with_the_same_header(
    tmp_path: Path, header_bytes: int, after_count: int
) -> None:
    """Its lines must not pass for those at the same offsets that were put before."""
    rig = Rig(tmp_path)
    header = "#Fields: " + "f" * header_bytes
    log = rig.log("a.log")
    log.write(header)
    log.write_numbered(8)
    await rig.step_into_crash(after_count)
    shipped = list(rig.lines)
    log.truncate()
    log.written = list(shipped)
    log.write(header)
    log.write_numbered(30)
    await rig.step(8)
    rig.assert_once(log)
    await rig.stop()


async def test_crash_between_a_common_header_and_what_follows(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log("a.log")
    log.write("#Version: 1.0", "#Fields: date time")
    await rig.step()
    log.write_numbered(8)
    await rig.step_into_crash(5)
    shipped = list(rig.lines)
    log.truncate()
    log.written = list(shipped)
    log.write("#Version: 1.0", "#Fields: date time")
    log.write_numbered(30)
    await rig.step(8)
    rig.assert_once(log)
    await rig.stop()
