"""One file under the reader's hands: content that changes between two reads of a turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.agent.config import FlowConfig
from headrace.agent.packing import Packer
from headrace.agent.positions import Position
from headrace.agent.source import PlainSource
from headrace.agent.tailer import CHUNK_BYTES, ContentReplaced, Tailer


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_bytes(b"".join(b"old line %d\n" % number for number in range(200_000)))
    assert path.stat().st_size > 2 * CHUNK_BYTES
    return path


@pytest.fixture
def tailer(log: Path) -> Iterator[Tailer]:
    source = PlainSource(str(log))
    position = Position(identity="i", stream="s", home=str(log), path=str(log), device=1, inode=1)
    yield Tailer(source, position, Packer(FlowConfig(files=str(log), stream="s")))
    source.close()


def test_truncated_and_grown_past_the_offset_between_two_reads(log: Path, tailer: Tailer) -> None:
    first = tailer.read()
    assert first is not None
    with log.open("r+b") as file:
        file.truncate(0)
        file.write(b"".join(b"new line %d\n" % number for number in range(300_000)))
    with pytest.raises(ContentReplaced):
        tailer.read()


def test_truncated_below_the_offset_between_two_reads(log: Path, tailer: Tailer) -> None:
    assert tailer.read() is not None
    with log.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ContentReplaced):
        tailer.read()


def test_every_read_ends_with_a_line_and_goes_on_from_there(log: Path, tailer: Tailer) -> None:
    data, end = b"", 0
    while (span := tailer.read()) is not None:
        assert span.start == end
        assert span.data.endswith(b"\n")
        end = span.end
        data += span.data
    assert data == log.read_bytes()


def test_a_rewound_tailer_reads_the_same_again(log: Path, tailer: Tailer) -> None:
    first = tailer.read()
    tailer.read()
    tailer.rewind(
        Position(identity="i", stream="s", home=str(log), path=str(log), device=1, inode=1)
    )
    assert tailer.read() == first
