"""What a plain head is, and that a parser understands the same by it."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core.listener.plain_head import plain_head
from headrace.core.speedups import PLAIN

START = b"POST / HTTP/1.1\r\n"


class Parsed:
    """What httptools tells of a request, as uvicorn takes it down."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_complete = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        assert not self.is_complete
        self.is_complete = True


ENDINGS = (b"Transfer-Encoding", b"Expect", b"Upgrade", b"Connection", b"Proxy-Connection")
NO_NAMES = (b"", b" x", b"x ", b"x\t", b"x\0", b"x(", b"\xe9")
NAMES = st.one_of(
    st.sampled_from((b"Host", b"host", b"x-!#$%&'*+-.^_`|~", b"Content-Length", b"Keep-Alive")),
    st.sampled_from(ENDINGS),
    st.sampled_from(NO_NAMES),
    st.binary(max_size=3),
)
NUMBERS = (b"", b"7", b"0", b"007", b"+7", b"7, 7", b"-1", b"9999999999")
WORDS = (b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"h2c", b"chunked", b"100-continue")
NO_VALUES = (b"a\tb", b"a\0b", b"a\rb", b"a\nb", b"a\x7fb", b"a\xe9b", b"a\r\n b")
VALUES = st.one_of(
    st.sampled_from((b"localhost:4567", b"a: b")),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.sampled_from(NO_VALUES),
    st.binary(max_size=3),
)
BLANKS = st.sampled_from([b"", b" ", b"  ", b"\t"])
LINES = st.tuples(NAMES, st.sampled_from([b":", b": ", b"", b":\t"]), BLANKS, VALUES, BLANKS).map(
    b"".join
)
PLAIN_LINES = st.sampled_from(
    (
        b"Host: localhost",
        b"X-Amz-Target:Kinesis_20131202.PutRecord",
        b"X-Empty:",
        b"A:  b",
        b"CONNECTION: Keep-Alive",
    )
)
REQUEST_LINES = st.just(START) | st.sampled_from(
    (
        b"GET / HTTP/1.1\r\n",
        b"POST /x HTTP/1.1\r\n",
        b"POST / HTTP/1.0\r\n",
        b"POST / HTTP/1.1\n",
        b"post / HTTP/1.1\r\n",
        b"POST  / HTTP/1.1\r\n",
        b"POST / HTTP/1.1 \r\n",
        b"\r\n" + START,
    )
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(PLAIN_LINES, max_size=4))
    if draw(st.integers(0, 3)):
        lines.append(b"Content-Length: 7")
    if draw(st.booleans()):
        lines += draw(st.lists(LINES, max_size=2))
    lines = draw(st.permutations(lines))
    ends = [draw(st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r"])) for _ in lines]
    head = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    return draw(REQUEST_LINES) + head + b"\r\n" + b"{\r\n\r\n}!"


@given(requests())
@example(START + b"\r\n")
@example(START + b"Content-Length: 7\r\n\r\n1234567")
@example(START + b"Content-Length: 7\r\nContent-Length: 7\r\n\r\n1234567")
@example(START + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n1234567")
def test_what_is_plain_a_parser_understands_in_the_same_way(data: bytes) -> None:
    found = plain_head(data)
    assert found == PLAIN["plain_head"](data)  # which is the same function without a compiler
    if found is None:
        return
    headers, body_at, body_bytes = found
    data = data[:body_at] + b"x" * body_bytes if body_bytes < 1_000 else data[:body_at]
    parsed = Parsed(data)
    assert parsed.url == b"/"
    assert parsed.parser.get_method() == b"POST"
    assert parsed.parser.get_http_version() == "1.1"
    assert parsed.parser.should_keep_alive() and not parsed.parser.should_upgrade()
    assert parsed.headers == headers
    assert parsed.body == data[body_at:]
    assert parsed.is_complete == (len(parsed.body) == body_bytes)


LENGTH = b"Content-Length: 2\r\n"


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        (b"", []),
        (b"X-Amz-Target: Kinesis_20131202.PutRecord\r\n",
         [(b"x-amz-target", b"Kinesis_20131202.PutRecord")]),
        (b"A:b\r\nC:   d e\r\nF:\r\n", [(b"a", b"b"), (b"c", b"d e"), (b"f", b"")]),
        (b"A: b\r\nA: c\r\n", [(b"a", b"b"), (b"a", b"c")]),
        (b"Connection: Keep-Alive\r\n", [(b"connection", b"Keep-Alive")]),
    ],
)  # fmt: skip
def test_what_is_plain(lines: bytes, headers: list[Any]) -> None:
    head = START + lines + LENGTH + b"\r\n"
    assert plain_head(head) == ([*headers, (b"content-length", b"2")], len(head), 2)
    assert plain_head(head + b"{}and more") == plain_head(head)


def test_a_length_has_nine_digits_at_most() -> None:
    head = START + b"Content-Length: 999999999\r\n\r\n"
    assert plain_head(head) == ([(b"content-length", b"999999999")], len(head), 999_999_999)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        START,
        START + b"\r\n",
        START + b"A: b\r\n\r\n",
        START + LENGTH,
        START + LENGTH + b"A: b\r\n",
        START + LENGTH + LENGTH + b"\r\n",
        START.replace(b"1.1", b"1.0") + LENGTH + b"\r\n",
        START.replace(b"POST", b"PUT") + LENGTH + b"\r\n",
        START.replace(b" / ", b" /? ") + LENGTH + b"\r\n",
        *(
            START + LENGTH + line + b"\r\n\r\n"
            for line in (
                b"Connection: close", b"Connection: keep-alive, close", b"Connection: upgrade",
                b"Transfer-Encoding: identity", b"Expect: 100-continue", b"Upgrade: h2c",
                b"Proxy-Connection: keep-alive", b"no colon", b": no name", b"A : b", b" A: b",
                b"A: b\r\n folded", b"A: b\tc", b"A: \xc3\xa9", b"A: b\rc", b"A: b\nc", b"A\0: b",
            )
        ),
        *(
            START + b"Content-Length: " + length + b"\r\n\r\n"
            for length in (b"", b"-1", b"+1", b"1 1", b"1,1", b"0x1", b"\xb2", b"1234567890")
        ),
    ],
)  # fmt: skip
def test_what_a_parser_must_look_at(head: bytes) -> None:
    assert plain_head(head) is None
