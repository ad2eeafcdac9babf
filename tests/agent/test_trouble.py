"""Rights, full disks, streams that are away or refuse: nothing lost, and said in words."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_support import Rig
from headrace.agent.position_store import PositionStore
from headrace.core.errors import ProducerFenced, StorageError, ValidationError
from small_disk import small_disk


@pytest.fixture
def plain_user() -> Iterator[Path]:
    """A folder, and rights that can be taken away: root reads everything."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield folder
    else:
        nobody = 65534
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
        yield folder
        os.seteuid(0)
    shutil.rmtree(folder)


async def test_a_file_without_the_right_to_read_it(
    plain_user: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(plain_user)
    log, other = rig.log("secret.log"), rig.log("open.log")
    log.write_numbered(5)
    other.write_numbered(5)
    log.path.chmod(0)
    with caplog.at_level(logging.WARNING):
        await rig.step(29)
        rig.assert_once(other)
        (problem,) = rig.running.health().problems
        assert problem.startswith(f"cannot read {log.path}: Permission denied; give user ")
        assert "setfacl" in problem
        assert len(caplog.records) == 1
        await rig.step(30)
        assert len(caplog.records) == 2, "once in 30 s"
    log.path.chmod(0o644)
    await rig.step()
    rig.assert_once(log, other)
    assert rig.running.health().ok
    await rig.stop()


async def test_a_folder_without_the_right_to_read_it(plain_user: Path) -> None:
    rig = Rig(plain_user, files="*/a.log")
    log = rig.log("inner/a.log")
    log.write_numbered(5)
    log.path.parent.chmod(0)
    await rig.step()
    (problem,) = rig.running.health().problems
    assert problem.startswith(f"cannot read {log.path}: Permission denied")
    log.path.parent.chmod(0o755)
    await rig.step()
    rig.assert_once(log)
    assert rig.running.health().ok
    await rig.stop()


async def test_rights_taken_away_from_a_file_that_is_tailed(plain_user: Path) -> None:
    rig = Rig(plain_user)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    await rig.stop()
    log.path.chmod(0o200)
    log.write_numbered(5)
    await rig.step(2)
    (problem,) = rig.running.health().problems
    assert problem.startswith(f"cannot read {log.path}: Permission denied")
    log.path.chmod(0o644)
    await rig.step(3)
    rig.assert_once(log)
    assert rig.running.health().ok
    await rig.stop()


async def test_a_full_disk_under_the_positions(tmp_path: Path) -> None:
    """Shipping goes on, with an alarm; when there is space again, all is stored."""
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    connection = rig.running.store._connection
    connection.execute("PRAGMA max_page_count = 1")
    pad = {f"pad {number}": "x" * 4000 for number in range(8)}
    for key, value in pad.items():
        rig.running.store.put_note(key, value)
    log.write_numbered(5)
    log.rotate()
    log.write_numbered(5)
    await rig.step(2)
    rig.assert_once(log)
    assert any("cannot store positions" in text for text in rig.running.health().problems)
    assert any("free space" in text for text in rig.running.health().problems)
    connection.execute("PRAGMA max_page_count = 1000000")
    await rig.step()
    assert rig.running.health().ok
    await rig.crash()
    log.write_numbered(5)
    await rig.step()
    rig.assert_once(log)
    assert rig.sink.repeated_count == 0
    await rig.stop()


async def test_a_start_on_a_full_disk_sets_no_positions_aside(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        path = disk.folder / "positions.db"
        PositionStore.open(path).abandon()
        stored = path.read_bytes()
        disk.fill()
        with pytest.raises(StorageError, match=r"cannot use the positions.*free space"):
            PositionStore.open(path)
        disk.make_room()
        assert path.read_bytes() == stored
        store = PositionStore.open(path)
        assert store.notice is None
        store.abandon()


async def test_a_read_only_store_and_a_crash_repeat_nothing_of_known_files(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    rig.running.store._connection.execute("PRAGMA query_only = 1")
    log.write_numbered(50)
    await rig.step(2)
    rig.assert_once(log)
    assert not rig.running.health().ok
    await rig.crash()
    await rig.step()
    rig.assert_once(log)
    assert rig.sink.repeated_count == 50
    await rig.stop()


async def test_the_stream_is_away_while_logs_rotate(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.settings["concurrency"] = 2
    logs = [rig.log(f"{name}.log") for name in "abcd"]
    agent = await rig.start()
    rig.sink.go_away()
    workers = [asyncio.create_task(agent.shipper.turns.work()) for _ in range(2)]
    written_bytes = 0
    for round_ in range(12):
        for number, log in enumerate(logs):
            log.write_numbered(2000, tail=" " + "x" * 500)
            if round_ % 3 == number % 3:
                (log.rotate if number % 2 else log.copytruncate)()
        await agent.scan()
        for _ in range(20):
            await asyncio.sleep(0.005)
        await agent.shipper.commit()
        await rig.clock.advance(6000)
    for path in rig.logs.iterdir():
        written_bytes += path.stat().st_size
    await agent.scan()
    lag_bytes = agent.health().figures["lag_bytes"]
    assert isinstance(lag_bytes, int)
    assert lag_bytes == written_bytes
    rig.sink.come_back()
    async with asyncio.timeout(60):
        while agent.health().figures["lag_bytes"] != 0:
            await agent.scan()
            await rig.clock.advance(1000)
            await asyncio.sleep(0.02)
    rig.assert_once(*logs)
    assert rig.losses() == []
    agent.shipper.turns.is_stopping = True
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    await rig.stop()


async def test_refused_records_and_lost_answers(tmp_path: Path) -> None:
    rig = Rig(tmp_path, partition_by="file")
    rig.sink.refused_share, rig.sink.lost_answer_share = 0.3, 0.2
    logs = [rig.log(f"{name}.log") for name in "ab"]
    for _ in range(5):
        for log in logs:
            log.write_numbered(40)
        await rig.step()
    await rig.stop()
    rig.assert_once(*logs)
    for log in logs:
        assert [line for line in rig.lines if line in log.written] == log.written
    assert rig.sink.repeated_count > 0


async def test_a_stream_that_refuses_for_good_keeps_the_lines(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    rig.sink.error = ValidationError("the record is larger than the stream allows")
    await rig.step(30)
    (problem,) = rig.running.health().problems
    assert f"refuses lines of {log.path} from byte 0 on" in problem
    assert rig.sink.put_count == 3, "tried again every 10 s, no more"
    rig.sink.error = None
    await rig.step(11)
    rig.assert_once(log)
    assert rig.running.health().ok
    await rig.stop()


async def test_a_copied_data_folder_is_found_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.write_numbered(5)
    await rig.step()
    rig.sink.error = ProducerFenced("a newer epoch has written")
    log.write_numbered(5)
    await rig.step()
    (problem,) = rig.running.health().problems
    assert "another agent under the same identity" in problem
    rig.sink.error = None
    await rig.step(11)
    rig.assert_once(log)
    await rig.stop()


async def test_one_file_does_not_starve_the_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    big = rig.log("big.log")
    big.write_numbered(30_000, tail=" " + "x" * 1000)
    quiet = [rig.log(f"quiet-{number}.log") for number in range(10)]
    for log in quiet:
        log.write_numbered(1)
    await rig.start()
    await rig.running.scan()
    await rig.running.drain()
    positions = [index for index, line in enumerate(rig.lines) if line.startswith(b"quiet")]
    assert len(positions) == 10
    assert max(positions) < 6000, "each has its turn before the big one is through"
    await rig.stop()
