"""A memory of producers larger than a segment: what its snapshots cost is bounded by the puts."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from headrace.core.log import format as fmt
from headrace.core.testing.faulty_files import FaultyFiles, no_space
from log_harness import CREATED_S, Driver, read_all

SEGMENT_BYTES = 2000
PRODUCERS = 200


def remember_many(driver: Driver) -> None:
    """One record of each of many producers: a snapshot takes several segments' size then."""
    log = driver.log
    for n in range(PRODUCERS):
        text = b64encode(b"first of %d" % n).decode()
        frame, numbers = log.append(0, CREATED_S, [text], ["k"], driver.now_ms)
        piece = log.memory.piece_of(7)
        log.memory.remember(piece, f"producer-{n}", 0, 1, numbers[0], driver.now_ms)
        frame.mark(piece, f"producer-{n}", 0, 1)
        driver.commit()


def frames(folder: Path) -> list[fmt.FrameHeader]:
    found = []
    for path in sorted(folder.glob("*.seg")):
        raw, at = path.read_bytes(), 0
        while (header := fmt.decode_header(raw, at)) is not None:
            found.append(header)
            at += header.frame_bytes
    return found


def test_snapshots_take_no_more_than_what_is_put(tmp_path: Path) -> None:
    """Every put wrote one as soon as it alone filled a segment."""
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    remember_many(driver)
    before = len(frames(folder))
    for n in range(300):
        driver.put(0, [b"%d" % n])
        if n % 100 == 50:  # how large the snapshot was is known after a start, too
            driver.log.close()
            driver = Driver(folder, segment_bytes=SEGMENT_BYTES, now_ms=driver.now_ms)
    since = frames(folder)[before:]
    snapshots = [frame.frame_bytes for frame in since if frame.flags & fmt.FLAG_SNAPSHOT]
    records = [frame.frame_bytes for frame in since if not frame.is_control]
    assert min(snapshots) > 3 * SEGMENT_BYTES
    assert 2 <= len(snapshots) <= 1 + sum(records) / min(snapshots)
    driver.log.close()
    again = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert len(again.log.memory.piece_of(7).producers) == PRODUCERS
    assert len(read_all(again.log, 0)) == PRODUCERS + 300
    again.log.close()


def test_one_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    monkeypatch.setattr(fmt, "MAX_BODY_BYTES", 3000)
    remember_many(driver)
    for n in range(30):
        driver.put(0, [b"%d" % n])
    driver.log.close()
    again = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert len(again.log.memory.piece_of(7).producers) == PRODUCERS
    assert len(read_all(again.log, 0)) == PRODUCERS + 30
    again.log.close()


def test_a_full_disk_does_not_have_one_made_for_every_put(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FaultyFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=SEGMENT_BYTES)
    remember_many(driver)
    caplog.clear()
    files.fail_always("allocate", no_space)  # what is reserved is enough for the puts
    for n in range(300):
        driver.put(0, [b"%d" % n])
    assert 1 <= len(caplog.messages) <= 5
    files.heal()
    segments = len(list((tmp_path / "log").glob("*.seg")))
    for n in range(300):
        driver.put(0, [b"%d" % n])
    assert len(list((tmp_path / "log").glob("*.seg"))) > segments
    driver.log.close()
