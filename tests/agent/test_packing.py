"""Lines to records: the same bytes at the same place are the same records, however they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.agent.config import FlowConfig
from headrace.agent.identity import FileKey, Mark
from headrace.agent.packing import Packer
from headrace.agent.positions import Position
from headrace.agent.source import FileState
from headrace.agent.tailer import Tailer
from headrace.core.model.records import PutEntry

MAX_LINE = 1024
LINE = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", b"\0", b"\0\0x", b"\r", b'{"a": 1}', b'{"a": 1}\r']),
    st.sampled_from([1023, 1024, 1025, 2047, 2048, 2049, 5000]).map(lambda n: b"z" * n),
).map(lambda line: line.replace(b"\n", b"."))


class GrowingSource:
    """A file of which more and more is there."""

    key: FileKey = FileKey(1, 1)
    inode_generation: int | None = None
    is_compressed: bool = False

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = 0

    def read_at(self, offset: int, size: int) -> bytes:
        return self.content[: self.size][offset : offset + size]

    def state(self) -> FileState:
        return FileState(self.size, 0, True)

    def next_data(self, offset: int) -> int:
        return offset

    def current_path(self) -> str | None:
        return None

    def close(self) -> None:
        pass


def ship(
    content: bytes, sizes: list[int], restarts: list[bool], **flow: str
) -> list[tuple[int, PutEntry]]:
    """Records of a file that grows to each of `sizes`, the tailer made anew where told to."""
    config = FlowConfig.model_validate({"files": "x", "stream": "s", "max_line": MAX_LINE, **flow})
    packer = Packer(config)
    position = Position(identity="id", stream="s", home="/x", path="/x", device=1, inode=1)
    source = GrowingSource(content)
    tailer = Tailer(source, position, packer)
    records: list[tuple[int, PutEntry]] = []
    for size, is_restart in zip([*sizes, len(content)], [*restarts, False], strict=True):
        source.size = max(source.size, min(size, len(content)))
        if is_restart:
            tailer = Tailer(source, position, packer)
        while (span := tailer.read()) is not None:
            batch = packer.pack(span, identity="id", generation=0, file="/x")
            records += zip(batch.records.sequences, batch.records.entries, strict=True)
            if span.head is not None:
                position.head = span.head
            position.advance(span.end, span.mark, line_start=span.next_line_start)
    return records


GROWTH = st.lists(st.tuples(st.integers(0, 9000), st.booleans()), max_size=8)


@given(lines=st.lists(LINE, max_size=12), growth=GROWTH, by=st.sampled_from(["line", "file"]))
def test_raw_records_do_not_depend_on_when_they_are_read(
    lines: list[bytes], growth: list[tuple[int, bool]], by: str
) -> None:
    content = b"".join(line + b"\n" for line in lines)
    sizes = sorted(size for size, _ in growth)
    restarts = [is_restart for _, is_restart in growth]
    at_once = ship(content, [], [], partition_by=by)
    assert ship(content, sizes, restarts, partition_by=by) == at_once
    sequences = [sequence for sequence, _ in at_once]
    assert sequences == sorted(set(sequences))
    shipped = b"".join(
        entry.data + (b"\n" if content[at + len(entry.data)] == 10 else b"")
        for at, entry in at_once
    )
    expected = b"".join(line.lstrip(b"\0") + b"\n" for line in lines)
    assert shipped == expected
    assert all(len(entry.data) <= MAX_LINE for _, entry in at_once)


@given(lines=st.lists(LINE, max_size=12), growth=GROWTH)
def test_json_records_do_not_depend_on_when_they_are_read(
    lines: list[bytes], growth: list[tuple[int, bool]]
) -> None:
    content = b"".join(line + b"\n" for line in lines)
    sizes = sorted(size for size, _ in growth)
    restarts = [is_restart for _, is_restart in growth]
    at_once = ship(content, [], [], format="json")
    assert ship(content, sizes, restarts, format="json") == at_once


@given(content=st.binary(max_size=200).map(lambda data: data.replace(b"\0", b"0") + b"\n"))
def test_sequences_rise_and_keys_name_the_place(content: bytes) -> None:
    records = ship(content, [], [])
    sequences = [sequence for sequence, _ in records]
    assert sequences == sorted(set(sequences))
    assert [entry.partition_key for _, entry in records] == [f"id.0.{at}" for at in sequences]
    assert {entry.partition_key for _, entry in ship(content, [], [], partition_by="file")} == {
        "id"
    }


def test_a_mark_needs_no_more_than_what_is_before_it() -> None:
    assert Mark.at(3, b"abc") == Mark.at(3, b"zzabc")
