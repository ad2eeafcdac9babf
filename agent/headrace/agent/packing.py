"""Lines of one file -> records with their keys and sequences. Pure: the same bytes at the same
place always become the same records, which is what makes putting them again harmless.

| record of             | sequence            | partition key (`line`)       | (`file`)   |
|-----------------------|---------------------|------------------------------|------------|
| a line                | offset of the line  | `IDENTITY.GENERATION.OFFSET` | `IDENTITY` |
| a part of a long line | offset of the part  | `IDENTITY.GENERATION.LINE+N` | `IDENTITY` |

N is the part's distance from the start of its line. The parts of one line go to one shard, in
order: each names the hash key of the line's own partition key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, count
from operator import add

from headrace.agent.config import FlowConfig
from headrace.agent.formats import make_format, wrap
from headrace.agent.identity import Head, Mark
from headrace.core.model.hashing import hash_key
from headrace.core.model.records import PutEntry

#: JSON makes at most six bytes of one (`\u0000`), and a wrapped part names its file beside.
_WRAPPED_GROWTH = 6
_WRAPPED_ROOM_BYTES = 512


@dataclass(slots=True)
class Span:
    """Bytes of a file that are ready to go: whole lines, or parts of one that is too long.

    `data` starts at byte `start` and what it stands for ends at `end`, its last newline
    included. `line_start` is where the over-long line began that the data starts inside of, or
    None; `next_line_start` the same for what follows. `is_cut` says that the end is no newline.
    """

    start: int
    data: bytes
    end: int
    mark: Mark
    head: Head | None = None  # the file's head, if more of it is known now
    line_start: int | None = None
    next_line_start: int | None = None
    is_cut: bool = False
    nul_count: int = 0  # bytes before `start` that were NULs and are left out


@dataclass(slots=True)
class Records:
    """What goes to one stream: entries and their sequences, in order."""

    entries: list[PutEntry] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """The records of one span, and what to count when they are acknowledged."""

    span: Span
    records: Records
    dead: Records = field(default_factory=Records)
    line_count: int = 0
    parse_error_count: int = 0
    dropped_count: int = 0
    long_line_count: int = 0


class Packer:
    """Makes the records of one flow."""

    def __init__(self, config: FlowConfig) -> None:
        self._format = make_format(config.format)
        self._by_file = config.partition_by == "file"
        self._on_parse_error = config.on_parse_error
        self.max_line = config.max_line
        #: Size of the parts an over-long line is cut into; parts begin at multiples of it.
        self.part_bytes = (
            self.max_line
            if self._format.is_raw
            else max(1, (self.max_line - _WRAPPED_ROOM_BYTES) // _WRAPPED_GROWTH)
        )

    def pack(self, span: Span, *, identity: str, generation: int, file: str) -> Batch:
        """The records of a span. `file` is the name that wrapped lines carry."""
        prefix = f"{identity}.{generation}."
        key_of = _constant(identity) if self._by_file else prefix.__add__
        data = span.data
        lines = (data[:-1] if data.endswith(b"\n") and not span.is_cut else data).split(b"\n")
        if (
            span.line_start is None
            and span.next_line_start is None
            and b"\n\0" not in data
            and max(map(len, lines)) <= self.max_line
        ):
            return self._pack_plain(span, lines, key_of, file)
        return self._pack_with_care(span, lines, key_of, file)

    def _pack_plain(
        self, span: Span, lines: list[bytes], key_of: Callable[[str], str], file: str
    ) -> Batch:
        """No line is too long and none starts with NULs: nearly always so."""
        # Each line starts where the ones before it end, their newlines counted: sum + index.
        starts = list(map(add, accumulate(map(len, lines), initial=0), count(span.start)))
        starts.pop()
        batch = Batch(span, Records(), line_count=len(lines))
        if self._format.is_raw:
            keys = map(key_of, map(str, starts))
            batch.records = Records(list(map(PutEntry, lines, keys)), starts)
            return batch
        encode = self._format.encode
        entries, sequences = batch.records.entries, batch.records.sequences
        for start, line in zip(starts, lines, strict=True):
            data = encode(line)
            if data is None or len(data) > self.max_line:
                self._add_odd(batch, line, start, data, key_of, file)
            else:
                entries.append(PutEntry(data, key_of(str(start))))
                sequences.append(start)
        return batch

    def _pack_with_care(
        self, span: Span, lines: list[bytes], key_of: Callable[[str], str], file: str
    ) -> Batch:
        batch = Batch(span, Records())
        start = span.start
        line_start = span.line_start
        last = len(lines) - 1
        for index, line in enumerate(lines):
            after = start + len(line) + 1
            if line_start is None and line.startswith(b"\0"):
                stripped = line.lstrip(b"\0")
                span.nul_count += len(line) - len(stripped)
                start += len(line) - len(stripped)
                line = stripped
            if line_start is not None or (index == last and span.next_line_start is not None):
                is_new = line_start is None
                self._add_parts(batch, line, start, start if is_new else line_start, key_of, file)
                batch.long_line_count += is_new
                batch.line_count += index != last or span.next_line_start is None
            else:
                batch.line_count += 1
                if len(line) > self.max_line:
                    batch.long_line_count += 1
                    self._add_parts(batch, line, start, start, key_of, file)
                else:
                    data = self._format.encode(line)
                    if data is None or len(data) > self.max_line:
                        self._add_odd(batch, line, start, data, key_of, file)
                    else:
                        batch.records.entries.append(PutEntry(data, key_of(str(start))))
                        batch.records.sequences.append(start)
            start, line_start = after, None
        return batch

    def _add_odd(
        self,
        batch: Batch,
        line: bytes,
        start: int,
        data: bytes | None,
        key_of: Callable[[str], str],
        file: str,
    ) -> None:
        """A line that is not in the format, or whose record would be larger than allowed."""
        if data is not None:
            batch.long_line_count += 1
            self._add_parts(batch, line, start, start, key_of, file)
            return
        if not line.strip(b"\r"):  # a blank line holds nothing to lose
            batch.line_count -= 1
            return
        batch.parse_error_count += 1
        if self._on_parse_error == "drop":
            batch.dropped_count += 1
            return
        data = wrap(line, f"not a {self._format.name} line", file=file, offset=start)
        target = batch.dead if self._on_parse_error == "dead-letter" else batch.records
        if len(data) > self.max_line:
            batch.long_line_count += 1
            self._add_parts(batch, line, start, start, key_of, file)
            return
        target.entries.append(PutEntry(data, key_of(str(start))))
        target.sequences.append(start)

    def _add_parts(
        self,
        batch: Batch,
        line: bytes,
        start: int,
        line_start: int | None,
        key_of: Callable[[str], str],
        file: str,
    ) -> None:
        """A line, or what is at hand of it, as records of `part_bytes` each."""
        assert line_start is not None
        line_key = key_of(str(line_start))
        shard_key = None if self._by_file else str(hash_key(line_key))
        records = batch.records
        if not self._format.is_raw and self._on_parse_error == "dead-letter":
            records = batch.dead
        for at in range(0, len(line), self.part_bytes):
            part = line[at : at + self.part_bytes]
            offset = start + at
            key = line_key if self._by_file else f"{line_key}+{offset - line_start}"
            if not self._format.is_raw:
                part = wrap(
                    part,
                    f"line longer than {self.max_line} bytes",
                    file=file,
                    offset=offset,
                    line_offset=line_start,
                )
            records.entries.append(PutEntry(part, key, shard_key))
            records.sequences.append(offset)


def _constant(key: str) -> Callable[[str], str]:
    return lambda _: key
