"""Log lines of several processes on one stream."""

from __future__ import annotations

import io

import pytest

from headrace.pipeline.logs import LineSplitter, Prefixed


def test_bytes_become_whole_lines_and_the_last_ones_are_kept() -> None:
    lines = LineSplitter()
    assert lines.feed(b"one\ntw") == ["one"]
    assert lines.feed(b"o\r\nthree \xff\nrest") == ["two", "three \ufffd"]
    assert lines.end() == ["rest"]
    assert lines.end() == []
    lines.feed(b"".join(b"%d\n" % n for n in range(100)))
    assert list(lines.tail) == [str(n) for n in range(80, 100)]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    lines = LineSplitter()
    out = [line for _ in range(100) for line in lines.feed(b"x" * 10_000)]
    assert sum(map(len, out)) + len("".join(lines.end())) == 1_000_000
    assert max(map(len, out)) <= 64 * 1024 + 10_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colors_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, terminal = io.StringIO(), Terminal()
    Prefixed(plain, ["agent"]).line("agent", "hello")
    Prefixed(terminal, ["agent"]).line("agent", "hello")
    assert plain.getvalue() == "agent    | hello\n"
    assert terminal.getvalue() == "\x1b[32magent    |\x1b[0m hello\n"
    monkeypatch.setenv("NO_COLOR", "1")
    quiet = Terminal()
    Prefixed(quiet, ["agent"]).line("agent", "hello")
    assert quiet.getvalue() == "agent    | hello\n"


def test_a_closed_stream_ends_no_pipeline() -> None:
    stream = io.StringIO()
    log = Prefixed(stream, ["agent"])
    stream.close()
    log.line("agent", "nobody reads this")
