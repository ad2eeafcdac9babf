"""The reckoning: what was written against what landed, line by line, from the files themselves.

Counters can agree while records differ, so nothing here trusts one: every line of every log file
and every row of every Parquet file is read, and matched by an id that each line carries.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    import pyarrow.parquet


@dataclass(frozen=True, slots=True)
class Reckoning:
    """`missing`: lines without a row. `duplicated`: rows beyond one for each line."""

    lines: int
    rows: int
    missing: int
    duplicated: int

    @property
    def is_even(self) -> bool:
        return self.missing == 0 and self.duplicated == 0

    def __str__(self) -> str:
        return (
            f"lines={self.lines} rows={self.rows} "
            f"missing={self.missing} duplicated={self.duplicated}"
        )


def reckon(written: Counter[str], landed: Counter[str]) -> Reckoning:
    """Compare the ids written with the ids landed, each with how often it occurs."""
    return Reckoning(
        lines=written.total(),
        rows=landed.total(),
        missing=(written - landed).total(),
        duplicated=(landed - written).total(),
    )


def ids_in_logs(
    files: Iterable[Path], pattern: re.Pattern[str], *, only: re.Pattern[str] | None = None
) -> Counter[str]:
    """The id of every line of some log files: the first group of `pattern`.

    With `only`, lines it is not found in are left out. A last line without its newline is still
    being written and does not count.

    Raises:
        HeadraceError: a line has no id, so it could not be found again.
    """
    found: Counter[str] = Counter()
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n")[:-1], 1):
            if only is None or only.search(line):
                found[_id(line, pattern, f"{file}:{number}")] += 1
    return found


def ids_in_parquet(
    folder: Path,
    column: str,
    pattern: re.Pattern[str],
    *,
    seen: dict[Path, Counter[str]] | None = None,
) -> Counter[str]:
    """The id of every row below a folder, read from one text column.

    `seen` keeps what was read for the next call: a Parquet file never changes once it is visible.

    Raises:
        HeadraceError: a row has no id, or a file no such column.
    """
    cache = {} if seen is None else seen
    found: Counter[str] = Counter()
    for file in parquet_files(folder):
        if file not in cache:
            values = enumerate(column_values(file, column))
            cache[file] = Counter(_id(v, pattern, f"{file}, row {n}") for n, v in values)
        found += cache[file]
    return found


def parquet_files(folder: Path) -> list[Path]:
    """The visible Parquet files below a folder: not those whose path has a part in . or _."""
    return sorted(
        file
        for file in folder.rglob("*.parquet")
        if not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    )


def column_values(file: Path, column: str) -> Iterator[str]:
    """One text column of a Parquet file, row by row; null is the empty text.

    Raises:
        HeadraceError: the file cannot be read, or has no such column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened: pyarrow.parquet.ParquetFile = pq.ParquetFile(file)
        with opened:
            if column not in opened.schema_arrow.names:
                names = ", ".join(opened.schema_arrow.names)
                raise HeadraceError(f"{file} has no column {column}, only {names}")
            for batch in opened.iter_batches(columns=[column]):
                for value in batch.column(0).cast(pa.string()).to_pylist():
                    yield value or ""
    except (pa.ArrowException, OSError) as error:
        raise HeadraceError(f"{file} cannot be read as Parquet: {error}") from error


def _id(text: str, pattern: re.Pattern[str], where: str) -> str:
    found = pattern.search(text)
    if found is None:
        raise HeadraceError(f"{where}: no id in {text[:120]!r}")
    return found[1]
