"""The reckoning finds what it is there to find: a missing row, a row too many."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.core.errors import HeadraceError
from headrace.pipeline.reckoning import Reckoning, ids_in_logs, ids_in_parquet, reckon

ID = re.compile(r"rid=(\d+)")


def write_logs(folder: Path, count: int) -> list[Path]:
    lines = [f'::1 - - [x] "GET /?rid={n} HTTP/1.1" 200 5 "-" "-"\n' for n in range(count)]
    rotated, current = folder / "access.log.1", folder / "access.log"
    rotated.write_text("".join(lines[: count // 2]))
    current.write_text("".join(lines[count // 2 :]))
    return [rotated, current]


def write_rows(file: Path, ids: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    requests = [f"GET /?rid={n} HTTP/1.1" for n in ids]
    pq.write_table(pa.table({"request": requests, "response": ["200"] * len(ids)}), file)


def take(tmp_path: Path) -> Reckoning:
    logs = sorted(tmp_path.glob("access.log*"))
    return reckon(ids_in_logs(logs, ID), ids_in_parquet(tmp_path / "lake", "request", ID))


def test_even(tmp_path: Path) -> None:
    write_logs(tmp_path, 10)
    write_rows(tmp_path / "lake/2026/a.parquet", list(range(6)))
    write_rows(tmp_path / "lake/2026/b.parquet", list(range(6, 10)))
    found = take(tmp_path)
    assert str(found) == "lines=10 rows=10 missing=0 duplicated=0"
    assert found.is_even


def test_a_missing_row(tmp_path: Path) -> None:
    write_logs(tmp_path, 10)
    write_rows(tmp_path / "lake/a.parquet", [0, 1, 2, 3, 4, 5, 6, 7, 9])
    assert str(take(tmp_path)) == "lines=10 rows=9 missing=1 duplicated=0"
    assert not take(tmp_path).is_even


def test_a_duplicated_row(tmp_path: Path) -> None:
    write_logs(tmp_path, 10)
    write_rows(tmp_path / "lake/a.parquet", list(range(10)))
    write_rows(tmp_path / "lake/b.parquet", [4])
    assert str(take(tmp_path)) == "lines=10 rows=11 missing=0 duplicated=1"
    assert not take(tmp_path).is_even


def test_one_missing_and_one_duplicated_do_not_cancel_out(tmp_path: Path) -> None:
    write_logs(tmp_path, 10)
    write_rows(tmp_path / "lake/a.parquet", [0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    assert str(take(tmp_path)) == "lines=10 rows=10 missing=1 duplicated=1"


def test_a_row_without_a_line_counts_as_one_too_many(tmp_path: Path) -> None:
    write_logs(tmp_path, 2)
    write_rows(tmp_path / "lake/a.parquet", [0, 1, 77])
    assert str(take(tmp_path)) == "lines=2 rows=3 missing=0 duplicated=1"


def test_files_that_are_not_visible_do_not_count(tmp_path: Path) -> None:
    write_logs(tmp_path, 2)
    write_rows(tmp_path / "lake/a.parquet", [0, 1])
    write_rows(tmp_path / "lake/_plans/b.parquet", [0])
    write_rows(tmp_path / "lake/.c.parquet", [1])
    assert take(tmp_path).is_even


def test_a_line_still_being_written_does_not_count(tmp_path: Path) -> None:
    logs = write_logs(tmp_path, 4)
    with logs[1].open("a") as log:
        log.write('::1 - - [x] "GET /?rid=4')
    assert ids_in_logs(logs, ID).total() == 4


def test_only_some_lines(tmp_path: Path) -> None:
    logs = write_logs(tmp_path, 4)
    found = ids_in_logs(logs, ID, only=re.compile("rid=[12] "))
    assert found == Counter({"1": 1, "2": 1})


def test_what_cannot_be_matched_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    logs = write_logs(tmp_path, 2)
    write_rows(tmp_path / "lake/a.parquet", [0])
    with pytest.raises(HeadraceError, match=r"access\.log\.1:1: no id in"):
        ids_in_logs(logs, re.compile("nothing=(.)"))
    with pytest.raises(HeadraceError, match=r"a\.parquet, row 0: no id in"):
        ids_in_parquet(tmp_path / "lake", "response", ID)
    with pytest.raises(HeadraceError, match="no column path, only request, response"):
        ids_in_parquet(tmp_path / "lake", "path", ID)
    (tmp_path / "lake" / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(HeadraceError, match="cannot be read as Parquet"):
        ids_in_parquet(tmp_path / "lake", "request", ID)


def test_files_seen_are_not_read_again_and_gone_ones_do_not_count(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    seen: dict[Path, Counter[str]] = {}
    write_rows(lake / "a.parquet", [1])
    write_rows(lake / "b.parquet", [2])
    assert ids_in_parquet(lake, "request", ID, seen=seen).total() == 2
    (lake / "a.parquet").write_bytes(b"would fail if it were read")
    (lake / "b.parquet").unlink()
    assert ids_in_parquet(lake, "request", ID, seen=seen) == Counter({"1": 1})
