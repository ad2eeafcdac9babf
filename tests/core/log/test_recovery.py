"""After a crash: a torn tail is cut off, damage is refused by name, nothing else ever happens."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import CorruptSegment, HeadraceError, StorageFull, UnknownFormatVersion
from headrace.core.log import format as fmt
from headrace.core.log import scan_notes
from headrace.core.log.files import SystemFiles
from headrace.core.testing.faulty_files import FAILING, FaultyFiles, io_error, no_space
from headrace.core.testing.power_cut import PowerCutFiles
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


# How much is written between notes on the segment being written: often, now and then, never.
NOTES_EVERY_BYTES = (1, 700, 4 << 20)


class _PowerFails(Exception):
    """Raised in place of the call at which the lights go out."""


@pytest.mark.parametrize("seed", range(80))
def test_no_acknowledged_record_is_lost_to_a_power_cut(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random puts until a random call to the disk, then what a cut there may leave, then a
    reading."""
    rng = random.Random(seed)
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", rng.choice(NOTES_EVERY_BYTES))
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    folder = tmp_path / "log"
    driver = Driver(folder, files, segment_bytes=rng.choice((1500, 4000, 100_000)))
    files.fail_at(rng.randint(1, 120), _PowerFails)
    acknowledged: dict[int, list[bytes]] = {shard: [] for shard in range(3)}
    sent: dict[int, list[bytes]] = {shard: [] for shard in range(3)}
    with contextlib.suppress(_PowerFails):
        for i in range(60):
            driver.now_ms += rng.randint(0, 3)
            for _ in range(rng.randint(1, 4)):
                shard = rng.randrange(3)
                data = [b"%d.%d" % (i, j) + b"." * rng.randint(0, 400) for j in range(3)]
                driver.append(shard, data)
                sent[shard] += data
            driver.commit()
            acknowledged = {shard: list(data) for shard, data in sent.items()}
            if rng.random() < 0.2:
                driver.log.write_mark()
    for n in range(5):
        left = tmp_path / f"left{n}"
        disk.leave(folder, left, rng)
        again = Driver(left, now_ms=driver.now_ms)
        for shard in range(3):
            got = [s.data for s in read_all(again.log, shard)]
            assert got == sent[shard][: len(got)], f"seed {seed}: not what was put, in order"
            assert len(got) >= len(acknowledged[shard]), f"seed {seed}: an acknowledged loss"
        again.put(0, [b"life goes on"])
        again.log.close()
        # and once more: recovery itself must have left a log that opens
        Driver(left, now_ms=driver.now_ms).log.close()


@pytest.mark.parametrize("seed", range(60))
def test_a_producer_never_believes_more_is_stored_than_is(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cut the remembered sequence is that of the last record that is there."""
    rng = random.Random(seed)
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", rng.choice(NOTES_EVERY_BYTES))
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    folder = tmp_path / "log"
    driver = Driver(folder, files, segment_bytes=rng.choice((1200, 3000)))
    files.fail_at(rng.randint(1, 100), _PowerFails)
    sequence = 0
    with contextlib.suppress(_PowerFails):
        for _ in range(40):
            _stamped(driver, sequence := sequence + rng.randint(1, 9))
            if rng.random() < 0.3:
                _stamped(driver, sequence := sequence + 1)
            driver.commit()
    for n in range(5):
        left = tmp_path / f"left{n}"
        disk.leave(folder, left, rng)
        again = Driver(left, now_ms=driver.now_ms)
        stored = read_all(again.log, 0)
        known = again.log.memory.piece_of(7).producers.get("p")
        assert (known.sequence if known else 0) == (int(stored[-1].data) if stored else 0)
        again.log.close()


def _stamped(driver: Driver, sequence: int) -> None:
    """One record of producer `p`, as the engine appends it."""
    log = driver.log
    text = b64encode(b"%d" % sequence).decode()
    frame, numbers = log.append(0, 1_700_000_000, [text], ["k"], driver.now_ms)
    piece = log.memory.piece_of(7)
    assert log.window is not None
    log.window.undos.append(log.memory.remember(piece, "p", 0, sequence, numbers[0], driver.now_ms))
    frame.mark(piece, "p", 0, sequence)


@pytest.mark.parametrize("at", range(1, 26))
def test_a_full_disk_at_any_call_loses_and_doubles_nothing(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_notes, "EVERY_BYTES", NOTES_EVERY_BYTES[at % 3])
    files = FaultyFiles()
    folder = tmp_path / "log"
    driver = Driver(folder, files, segment_bytes=1500)
    files.fail_at(at, no_space)
    stored: list[bytes] = []
    refused = 0
    for i in range(14):
        data = [b"%02d" % i * 40, b"b%d" % i]
        try:
            driver.put(0, data)
        except StorageFull:
            refused += 1
            # nothing of it was stored, and the next try is as good as the first
            driver.put(0, data)
        except OSError:
            return  # not a call that a full disk can fail: the process stops there
        stored += data
    assert [s.data for s in read_all(driver.log, 0)] == stored
    driver.log.close()
    again = Driver(folder, SystemFiles(), segment_bytes=1500)
    assert [s.data for s in read_all(again.log, 0)] == stored


@pytest.mark.parametrize("call", [c for c in FAILING if c.startswith("sync") or c == "write_at"])
def test_an_io_error_is_never_taken_for_a_success(tmp_path: Path, call: str) -> None:
    files = FaultyFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=1500)
    driver.put(0, [b"before"])
    files.fail_always(call, io_error)
    with pytest.raises((OSError, HeadraceError)):
        for i in range(20):  # some calls come only when a segment is sealed
            driver.put(0, [b"%d" % i * 100])


@settings(max_examples=100, deadline=None)
@given(
    records=st.lists(st.binary(max_size=60), max_size=8),
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
    pieces = fmt.encode_body(records, table)
    body = b"".join(pieces)
    raw = fmt.encode_header(
        *pieces, records=len(records), shard=shard, frame_no=frame_no, arrival_ms=START_MS,
        durable_upto=7, previous=9, producers_bytes=len(table),
    )  # fmt: skip
    header = fmt.decode_header(raw + body)
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


def test_a_segment_that_could_not_be_begun_does_not_come_back_in_a_power_cut(
    tmp_path: Path,
) -> None:
    disk = PowerCutFiles()
    files = FaultyFiles(disk)
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    driver.put(0, [b"x" * 200])
    refused = 0
    for i in range(12):
        files.fail_always("allocate", no_space) if i % 2 else files.heal()
        try:
            driver.put(0, [b"%02d" % i + b"y" * 200])
        except StorageFull:
            refused += 1
    assert refused or len(list((tmp_path / "log").glob("*.seg"))) > 1
    stored = [s.data for s in read_all(driver.log, 0)]
    for seed in range(20):
        left = tmp_path / f"left-{seed}"
        disk.leave(tmp_path / "log", left, random.Random(seed))
        again = Driver(left)
        assert [s.data for s in read_all(again.log, 0)][: len(stored)] == stored
        again.log.close()
    driver.log.close()


def test_too_many_open_files_when_a_segment_is_full_fail_no_put(tmp_path: Path) -> None:
    """Not to be open for the folder, nor for an index: the log stays in its segment, or goes on."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    driver = Driver(tmp_path / "log", segment_bytes=600)
    stored = []
    for i in range(24):
        driver.log.release()
        in_use = len(os.listdir("/proc/self/fd"))
        spare = i % 4
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (in_use - 1 + spare, limit[1]))
            driver.put(0, [b"%02d" % i + b"y" * 200])
            stored.append(i)
        except StorageFull:
            assert spare == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(stored) >= 18
    assert [int(s.data[:2]) for s in read_all(driver.log, 0)] == stored
    driver.log.close()
    again = Driver(tmp_path / "log", segment_bytes=600)
    assert [int(s.data[:2]) for s in read_all(again.log, 0)] == stored
    again.log.close()


@pytest.mark.parametrize("seed", range(10))
def test_what_is_served_after_a_failed_sync_survives_a_power_cut(tmp_path: Path, seed: int) -> None:
    """The restart reads it from the page cache, which takes it for written."""
    disk = PowerCutFiles()
    driver = Driver(tmp_path / "log", disk)
    for i in range(3):
        driver.put(0, [b"%d" % i])
    disk.fails_next_sync = True
    with pytest.raises(OSError, match="error"):
        driver.put(0, [b"3"])
    driver.log.close()
    again = Driver(tmp_path / "log", disk)
    served = read_all(again.log, 0)
    assert [s.data for s in served] == [b"0", b"1", b"2", b"3"]
    again.put(0, [b"4"])
    disk.leave(tmp_path / "log", tmp_path / "left", random.Random(seed))
    again.log.close()
    left = Driver(tmp_path / "left")
    assert [s.data for s in read_all(left.log, 0)] == [b"0", b"1", b"2", b"3", b"4"]
    left.log.close()


class _StubbornFiles(SystemFiles):
    """Removes nothing whose name is in `kept`."""

    def __init__(self) -> None:
        self.kept: set[str] = set()

    def unlink(self, path: Path) -> None:
        if path.name in self.kept:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        super().unlink(path)


def test_a_segment_that_could_not_be_removed_goes_before_the_next(tmp_path: Path) -> None:
    files = _StubbornFiles()
    driver = Driver(tmp_path / "log", files, segment_bytes=600)
    for i in range(12):
        driver.now_ms = START_MS + i * 1000
        driver.put(0, [b"%02d" % i + b"y" * 200])
    paths = sorted((tmp_path / "log").glob("*.seg"))
    assert len(paths) > 4
    files.kept = {paths[0].name}
    for upto in (4, 9):  # the second time nothing younger goes before it either
        with pytest.raises(OSError, match="not permitted"):
            driver.log.trim(START_MS + upto * 1000)
    assert sorted((tmp_path / "log").glob("*.seg")) == paths
    Driver(tmp_path / "log", segment_bytes=600).log.close()  # no gap
    files.kept = set()
    assert driver.log.trim(START_MS + 9 * 1000) > 1
    assert len(list((tmp_path / "log").glob("*.seg"))) < len(paths) - 1
    driver.log.close()
    again = Driver(tmp_path / "log", segment_bytes=600)
    assert int(read_all(again.log, 0)[-1].data[:2]) == 11
    again.log.close()
