"""An index is derived: whatever becomes of its file, the segment's records are read and kept."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from crc32c import crc32c

from log_harness import START_MS, Driver, read_all

SEGMENT_BYTES = 2_000
HOUR_MS = 3_600_000


def _filled(folder: Path) -> list[bytes]:
    """A log of one shard and several segments, closed."""
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    data = [b"%02d" % i * 100 for i in range(20)]
    for piece in data:
        driver.put(0, [piece])
        driver.now_ms += 10
    driver.log.write_mark()
    driver.log.close()
    assert len(list(folder.glob("*.idx"))) > 2
    return data


def _indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.idx"))


def _in_the_old_format(index: bytes) -> bytes:
    """As version 1 had it: a footer that one checksum over all of the file covered."""
    _, _, *frames_and_times, _end, entries, shards, _, _ = struct.unpack(
        "<IIQQQQQIIII", index[-64:]
    )
    footer = struct.pack(
        "<4sIQQQQQQI", b"HRX1", 1, *frames_and_times, entries, shards, 0
    )  # fmt: skip
    content = index[:-64] + footer
    return content + crc32c(content).to_bytes(4, "little")


@pytest.mark.parametrize("at", range(64))
def test_a_flipped_bit_in_a_footer_deletes_nothing_and_dates_nothing(
    tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    index = _indexes(folder)[at % 2 - 1]  # the first one or the last
    raw = index.read_bytes()
    damaged = bytearray(raw)
    damaged[at - 64] ^= 1 << at % 8
    index.write_bytes(damaged)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES, now_ms=START_MS + HOUR_MS)
    assert index.with_suffix(".seg").name in caplog.text
    assert driver.log.oldest_arrival_ms == START_MS
    assert driver.log.trim(START_MS) == 0
    driver.put(0, [b"next"])
    stored = read_all(driver.log, 0)
    assert [s.data for s in stored] == [*data, b"next"]
    assert stored[-1].arrival_ms == START_MS + HOUR_MS
    assert index.read_bytes() == raw
    driver.log.close()


@pytest.mark.parametrize("what", ["old format", "cut", "empty", "of another segment", "longer"])
def test_an_index_that_is_none_of_this_segment_is_made_again(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _filled(folder)
    index, other, *_ = _indexes(folder)
    raw = index.read_bytes()
    match what:
        case "old format":
            index.write_bytes(_in_the_old_format(raw))
        case "cut":
            index.write_bytes(raw[:-70])
        case "empty":
            index.write_bytes(b"")
        case "of another segment":
            index.write_bytes(other.read_bytes())
        case _:
            index.write_bytes(bytes(32) + raw)
    driver = Driver(folder, segment_bytes=SEGMENT_BYTES)
    assert [s.data for s in read_all(driver.log, 0)] == data
    driver.log.close()
    assert index.read_bytes() == raw
    caplog.clear()
    Driver(folder, segment_bytes=SEGMENT_BYTES).log.close()
    assert not caplog.text, "the one made again is used"
