"""After a crash: a torn tail is cut off, damage is refused by name, nothing else ever happens."""

from __future__ import annotations

import shutil
import tempfile
from array import array
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import CorruptSegment, UnknownFormatVersion
from headrace.core.log import format as fmt
from log_harness import START_MS, Driver, read_all


def _fill(folder: Path, puts: int = 12, segment_bytes: int = 1 << 20) -> list[bytes]:
    """A log of one shard, closed as a killed process leaves it (no closing mark)."""
    driver = Driver(folder, segment_bytes=segment_bytes)
    data = [b"%04d" % i * 10 for i in range(puts)]
    for piece in data:
        driver.put(0, [piece])
    driver.log.close()
    return data


def _segment(folder: Path) -> Path:
    (path,) = folder.glob("*.seg")
    return path


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 6000))
def test_a_segment_cut_anywhere_gives_a_prefix_or_is_refused(cut: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "log"
        data = _fill(folder)
        path = _segment(folder)
        whole = path.read_bytes().rstrip(b"\0")
        path.write_bytes(whole[:cut])
        try:
            driver = Driver(folder)
        except CorruptSegment as error:
            assert str(path) in str(error)
            return
        got = [s.data for s in read_all(driver.log, 0)]
        assert got == data[: len(got)]
        # a cut takes away what vouches for the rest as well: the log is a whole prefix
        driver.put(0, [b"after"])
        assert [s.data for s in read_all(driver.log, 0)] == [*got, b"after"]
        driver.log.close()


@settings(max_examples=300, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused_or_was_in_the_last_write(at: float, bit: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "log"
        data = _fill(folder)
        path = _segment(folder)
        raw = bytearray(path.read_bytes().rstrip(b"\0"))
        offset = int(at * len(raw))
        raw[offset] ^= 1 << bit
        path.write_bytes(raw)
        last_frame = raw.rfind(fmt.MAGIC_BYTES)
        try:
            driver = Driver(folder)
        except (CorruptSegment, UnknownFormatVersion) as error:
            assert str(path) in str(error) or path.name in str(error)
            assert path.read_bytes() == raw, "a refused file must be left as it is"
            return
        # only the last frame has no later one to vouch for it
        assert offset >= last_frame - fmt.HEADER_BYTES
        assert [s.data for s in read_all(driver.log, 0)] == data[:-1]
        driver.log.close()


def test_with_a_mark_after_it_the_last_frame_is_vouched_for_too(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder)
    driver.put(0, [b"a"])
    driver.put(0, [b"b" * 100])
    driver.log.write_mark()
    driver.log.close()
    path = _segment(folder)
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(b"YmJiYmJi")] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptSegment, match=r"damaged at byte \d+: frame 3") as caught:
        Driver(folder)
    assert caught.value.hint and "copy" in caught.value.hint


def test_a_torn_tail_is_kept_beside_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    data = _fill(folder)
    path = _segment(folder)
    raw = path.read_bytes().rstrip(b"\0")
    torn = b"HRF1\x01 this was being written"
    path.write_bytes(raw + torn)
    driver = Driver(folder)
    assert [s.data for s in read_all(driver.log, 0)] == data
    assert path.with_suffix(".broken").read_bytes() == torn
    assert "unfinished write" in caplog.text and "acknowledged" in caplog.text


def test_damage_in_a_sealed_segment_is_refused_when_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    data = _fill(folder, 40, segment_bytes=1500)
    victim = sorted(folder.glob("*.seg"))[2]
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 4
    victim.write_bytes(raw)
    driver = Driver(folder, segment_bytes=1500)
    with pytest.raises(CorruptSegment, match=r"frame \d+ at byte \d+") as caught:
        read_all(driver.log, 0, limit=1)
    assert victim.name in str(caught.value)
    # what comes after it can still be read, and puts go on
    (number,) = driver.put(0, [b"more"])
    tail = driver.log.snapshot().find_time(0, START_MS)
    assert tail.frame_no > 0 and number
    assert len(data) == 40


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    _fill(folder)
    path = _segment(folder)
    raw = bytearray(path.read_bytes())
    last = raw.rfind(fmt.MAGIC_BYTES)
    raw[last + 4] = fmt.VERSION + 1
    path.write_bytes(raw)
    with pytest.raises(UnknownFormatVersion):
        Driver(folder)
    assert path.read_bytes() == raw


@settings(max_examples=100, deadline=None)
@given(
    records=st.lists(st.binary(max_size=60), min_size=1, max_size=8),
    producers=st.lists(
        st.tuples(
            st.integers(0, 2**128 - 1),
            st.integers(0, 2**128 - 1),
            st.text(min_size=1, max_size=8),
            st.integers(0, 2**40),
            st.integers(0, 2**200),
        ),
        max_size=3,
    ),
    frame_no=st.integers(1, 2**49),
    shard=st.integers(0, 2**32 - 2),
)
def test_a_frame_is_decoded_to_what_was_encoded(
    records: list[bytes],
    producers: list[tuple[int, int, str, int, int]],
    frame_no: int,
    shard: int,
) -> None:
    marks = [fmt.ProducerMark(*p) for p in producers]
    table = fmt.encode_producers(marks)
    ends = array("I", accumulate(map(len, records), lambda end, size: end + 1 + size))
    raw = b"".join(fmt.encode_frame(ends, records, table, shard, frame_no, START_MS, 7, 9))
    header, body = fmt.decode_header(raw), raw[fmt.HEADER_BYTES :]
    assert header is not None
    assert (header.frame_no, header.shard, header.records) == (frame_no, shard, len(records))
    assert (header.arrival_ms, header.durable_upto, header.previous) == (START_MS, 7, 9)
    assert fmt.body_is_valid(header, body)
    start, end = fmt.records_region(header)
    region = body[start:end]
    begin = 0
    for record, stop in zip(records, fmt.record_ends(header, body), strict=True):
        assert region[begin:stop] == record
        begin = stop + 1
    assert fmt.decode_producers(body[len(body) - len(table) :]) == marks


def test_two_processes_cannot_have_one_folder(tmp_path: Path) -> None:
    from headrace.core.errors import StorageLocked
    from headrace.core.log.files import FolderLock

    lock = FolderLock(tmp_path / "data")
    with pytest.raises(StorageLocked, match="in use by process") as caught:
        FolderLock(tmp_path / "data")
    assert caught.value.hint
    lock.release()
    FolderLock(tmp_path / "data").release()


def test_the_broken_tail_of_one_crash_does_not_hide_that_of_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    _fill(folder, 3)
    for _ in range(2):
        path = _segment(folder)
        path.write_bytes(path.read_bytes().rstrip(b"\0") + b"torn")
        driver = Driver(folder)
        driver.put(0, [b"x"])
        driver.log.close()
    shutil.rmtree(folder)
