"""StreamLog: what is put is read, in order, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core.errors import CorruptSegment
from headrace.core.model.sequence import BEGINNING, Position, parse
from log_harness import CREATED_S, START_MS, Driver, read, read_all


def test_records_come_back_in_order_with_their_numbers(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    first = driver.put(0, [b"a", b"b"], ["k1", "k2"])
    driver.now_ms += 5
    second = driver.put(0, [b"c"])
    stored = read_all(driver.log, 0)
    assert [s.data for s in stored] == [b"a", b"b", b"c"]
    assert [s.key for s in stored] == ["k1", "k2", "k"]
    assert [str(s.number) for s in stored] == first + second
    assert [s.arrival_ms for s in stored] == [START_MS, START_MS, START_MS + 5]


def test_what_is_not_committed_is_not_seen(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    driver.append(0, [b"a"])
    assert read_all(driver.log, 0) == []
    driver.commit()
    assert len(read_all(driver.log, 0)) == 1


def test_concurrent_puts_share_a_frame_and_keep_their_order(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    numbers = driver.append(0, [b"1"]) + driver.append(0, [b"2", b"3"]) + driver.append(0, [b"4"])
    driver.commit()
    assert [s.data for s in read_all(driver.log, 0)] == [b"1", b"2", b"3", b"4"]
    positions = [parse(n) for n in numbers]
    assert {p.position.frame_no for p in positions if p} == {2}


def test_shards_do_not_see_each_other(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    for i in range(50):
        driver.put(i % 5, [b"%d" % i])
    for shard in range(5):
        want = [b"%d" % i for i in range(50) if i % 5 == shard]
        assert [s.data for s in read_all(driver.log, shard, limit=3)] == want


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_any_limit_gives_the_same_records(tmp_path: Path, limit: int) -> None:
    driver = Driver(tmp_path / "log", segment_bytes=4000)
    want = []
    for i in range(40):
        data = [b"%d-%d" % (i, j) for j in range(i % 4 + 1)]
        driver.put(0, data)
        want += data
    assert [s.data for s in read_all(driver.log, 0, limit=limit)] == want


def test_a_read_gives_one_record_however_large_and_no_more_than_asked(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    driver.put(0, [b"x" * 5000, b"y" * 5000, b"z"])
    got, at = read(driver.log, 0, BEGINNING, max_bytes=100)
    assert [s.data[:1] for s in got] == [b"x"]
    got, at = read(driver.log, 0, at, max_bytes=8000)
    assert [s.data[:1] for s in got] == [b"y", b"z"]


def test_segments_roll_and_reading_crosses_them(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=2000)
    for i in range(30):
        driver.put(i % 2, [b"%03d" % i * 20])
    assert len(list(folder.glob("*.seg"))) > 3
    assert len(list(folder.glob("*.idx"))) == len(list(folder.glob("*.seg"))) - 1
    for shard in (0, 1):
        want = [b"%03d" % i * 20 for i in range(shard, 30, 2)]
        assert [s.data for s in read_all(driver.log, shard)] == want


def test_reopening_gives_the_same_records_and_goes_on_numbering(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=2000)
    for i in range(30):
        driver.put(0, [b"%03d" % i])
    before = read_all(driver.log, 0)
    driver.log.close()
    again = Driver(folder, segment_bytes=2000)
    assert read_all(again.log, 0) == before
    (number,) = again.put(0, [b"more"])
    assert int(number) > before[-1].number
    assert [s.data for s in read_all(again.log, 0)][-1] == b"more"


def test_arrival_never_goes_back_even_when_the_clock_does(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder)
    driver.put(0, [b"a"])
    driver.now_ms -= 60_000
    driver.put(0, [b"b"])
    driver.log.close()
    again = Driver(folder, now_ms=START_MS - 120_000)
    again.put(0, [b"c"])
    assert [s.arrival_ms for s in read_all(again.log, 0)] == [START_MS] * 3


def test_time_lookup_is_exact_to_the_millisecond_over_segments(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log", segment_bytes=1500)
    for i in range(40):
        driver.now_ms = START_MS + 10 * i
        driver.put(i % 3, [b"%d" % i])
    for shard in range(3):
        for at_ms in range(START_MS - 5, START_MS + 420, 5):
            position = driver.log.snapshot().find_time(shard, at_ms)
            got, _ = read(driver.log, shard, position)
            want = [b"%d" % i for i in range(40) if i % 3 == shard and START_MS + 10 * i >= at_ms]
            assert [s.data for s in got] == want


def test_every_sequence_number_finds_its_record(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log", segment_bytes=1500)
    numbers: list[str] = []
    for i in range(20):
        numbers += driver.put(0, [b"%d.%d" % (i, j) for j in range(3)])
    stored = read_all(driver.log, 0)
    for i, number in enumerate(numbers):
        fields = parse(number)
        assert fields is not None
        assert fields.created_s == CREATED_S
        assert read(driver.log, 0, fields.position, limit=1)[0] == [stored[i]]
        assert read(driver.log, 0, fields.position.after())[0] == stored[i + 1 :]


def test_the_next_frames_arrival_tells_how_far_behind_a_reader_is(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log", segment_bytes=1000)
    for i in range(10):
        driver.now_ms = START_MS + i
        driver.put(0, [b"x" * 50])
    for i in range(10):
        part = driver.log.snapshot().read(0, BEGINNING, max_records=i + 1, max_bytes=1 << 20)
        assert part.next_arrival_ms == (START_MS + i + 1 if i < 9 else None)


def test_trim_removes_whole_expired_segments_and_tells_who_missed_something(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=1000)
    for i in range(20):
        driver.now_ms = START_MS + i
        driver.put(i % 2, [b"%02d" % i * 30])
    files = len(list(folder.glob("*.seg")))
    assert driver.log.trim(START_MS + 10) > 0
    assert len(list(folder.glob("*.seg"))) < files
    rest = read_all(driver.log, 0)
    assert rest and rest[-1].data[:2] == b"18"
    assert rest[0].arrival_ms <= START_MS + 10  # only what is wholly expired is removed

    # a reader from the beginning has nothing to miss; one that was in the middle has
    behind = Position(3, 0)
    assert not driver.log.snapshot().read(0, BEGINNING, max_records=1, max_bytes=99).missed
    assert driver.log.snapshot().read(0, behind, max_records=1, max_bytes=99).missed
    first = parse(str(rest[0].number))
    assert first is not None
    # one who had read everything before what is left has missed nothing
    caught_up = Position(first.position.frame_no - 2, 1)
    assert not driver.log.snapshot().read(0, caught_up, max_records=1, max_bytes=99).missed


def test_a_floor_hides_what_has_expired_but_is_still_stored(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    for i in range(10):
        driver.now_ms = START_MS + i
        driver.put(0, [b"%d" % i])
    floor = driver.log.snapshot().find_time(0, START_MS + 4)
    part = driver.log.snapshot().read(0, BEGINNING, floor=floor, max_records=100, max_bytes=1 << 20)
    assert part.records == 6
    part = driver.log.snapshot().read(
        0, Position(3, 0), floor=floor, max_records=100, max_bytes=1 << 20
    )
    assert part.records == 6 and part.missed


def test_the_tail_is_after_everything(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    driver.put(0, [b"a"])
    tail = driver.log.tail
    assert read(driver.log, 0, tail)[0] == []
    driver.put(0, [b"b"])
    assert [s.data for s in read(driver.log, 0, tail)[0]] == [b"b"]


def test_a_removed_segment_in_the_middle_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=1000)
    for i in range(20):
        driver.put(0, [b"%02d" % i * 30])
    driver.log.close()
    victim = sorted(folder.glob("*.seg"))[2]
    victim.unlink()
    with pytest.raises(CorruptSegment, match="missing or damaged"):
        Driver(folder)


def test_a_lost_index_is_built_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    driver = Driver(folder, segment_bytes=1000)
    for i in range(20):
        driver.put(i % 3, [b"%02d" % i * 30])
    before = [read_all(driver.log, shard) for shard in range(3)]
    driver.log.close()
    for index in folder.glob("*.idx"):
        index.unlink()
    again = Driver(folder)
    assert [read_all(again.log, shard) for shard in range(3)] == before


def test_partition_keys_come_back_whatever_is_in_them(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "log")
    keys = ['"', "\\", "\n", "\x00", "é", "\U0001f600", "\u2028", "a" * 256, "\x7f", "</script>"]
    driver.put(0, [b""] * len(keys), keys)
    assert [s.key for s in read_all(driver.log, 0)] == keys


def test_the_tail_of_an_opened_log_does_not_lie_behind_a_mark(tmp_path: Path) -> None:
    """A MARK is not synced: when a power cut takes it, a record gets its number."""
    driver = Driver(tmp_path / "log")
    driver.put(0, [b"a"])
    tail = driver.log.tail
    driver.log.write_mark()
    driver.log.close()
    again = Driver(tmp_path / "log")
    assert again.log.tail == tail
    segment = next((tmp_path / "log").glob("*.seg"))
    again.log.close()
    with segment.open("r+b") as file:  # what is left without the mark
        file.truncate(segment.stat().st_size - 64)
    after = Driver(tmp_path / "log")
    after.put(0, [b"b"])
    assert [s.data for s in read(after.log, 0, tail)[0]] == [b"b"]
    after.log.close()
