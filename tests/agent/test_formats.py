"""Line formats, by vectors of our own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.agent.formats import make_format, wrap

COMMON = make_format("common-apache")
COMBINED = make_format("combined-apache")
TIME = "22/Nov/2026:15:30:25 +0000"


def common(line: str | bytes) -> Any:
    data = COMMON.encode(line.encode() if isinstance(line, str) else line)
    return None if data is None else json.loads(data)


def combined(line: str | bytes) -> Any:
    data = COMBINED.encode(line.encode() if isinstance(line, str) else line)
    return None if data is None else json.loads(data)


def test_common_line() -> None:
    line = f'192.0.2.7 - frank [{TIME}] "GET /a.gif HTTP/1.0" 200 2326'
    assert COMMON.encode(line.encode()) == (
        b'{"host":"192.0.2.7","ident":null,"authuser":"frank",'
        b'"datetime":"22/Nov/2026:15:30:25 +0000","request":"GET /a.gif HTTP/1.0",'
        b'"response":200,"bytes":2326}'
    )


def test_combined_line() -> None:
    line = f'192.0.2.7 - - [{TIME}] "GET / HTTP/1.1" 304 - "https://x.example/" "Mozilla/5.0 (X)"'
    assert combined(line) == {
        "host": "192.0.2.7",
        "ident": None,
        "authuser": None,
        "datetime": TIME,
        "request": "GET / HTTP/1.1",
        "response": 304,
        "bytes": None,
        "referer": "https://x.example/",
        "agent": "Mozilla/5.0 (X)",
    }


@pytest.mark.parametrize("host", ["::1", "2001:db8::1", "fe80::1%eth0", "host.example", "-"])
def test_hosts(host: str) -> None:
    record = common(f'{host} - - [{TIME}] "GET / HTTP/1.1" 200 1')
    assert record["host"] == (None if host == "-" else host)


@pytest.mark.parametrize(
    "user", ["ann@example.org", 'a"b', "jürgen", "two words", "a b [c", "a\\b"]
)
def test_users(user: str) -> None:
    record = common(f'192.0.2.7 - {user} [{TIME}] "GET / HTTP/1.1" 200 1')
    if "[" in user:
        assert record is None, "an opening bracket begins the time"
    else:
        assert record["authuser"] == user
        assert record["datetime"] == TIME


@pytest.mark.parametrize(
    "request_text",
    ["", "-", "GET", r"GET /\"quoted\" HTTP/1.1", r"\x16\x03\x01", r"GET /\\", "GET /ü HTTP/1.1"],
)
def test_requests(request_text: str) -> None:
    expected = None if request_text == "-" else request_text
    line = f'192.0.2.7 - - [{TIME}] "{request_text}" 400 0'
    assert common(line)["request"] == expected
    line += r' "-" "agent \"with\" quotes"'
    record = combined(line)
    assert record["request"] == expected
    assert record["referer"] is None
    assert record["agent"] == r"agent \"with\" quotes"


def test_what_follows_the_format_is_kept() -> None:
    line = f'192.0.2.7 - - [{TIME}] "GET / HTTP/1.1" 200 5 "-" "curl" "203.0.113.9" 0.003'
    assert combined(line)["extra"] == '"203.0.113.9" 0.003'
    assert common(line)["extra"] == '"-" "curl" "203.0.113.9" 0.003'


def test_carriage_return_at_the_end() -> None:
    line = f'192.0.2.7 - - [{TIME}] "GET / HTTP/1.1" 200 5'
    assert common(line + "\r") == common(line)
    assert common(line + " x\r")["extra"] == "x"


def test_bytes_that_are_no_utf_8() -> None:
    line = f'192.0.2.7 - - [{TIME}] "GET /'.encode() + b'\xff HTTP/1.1" 200 5'
    assert common(line)["request"] == r"GET /\xff HTTP/1.1"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no log line at all",
        f"192.0.2.7 - - [{TIME}] GET / 200 1",
        f'192.0.2.7 - - [{TIME}] "GET /" 20 1',
        f'192.0.2.7 - - [{TIME}] "GET /" 200 many',
        f'192.0.2.7 - - [{TIME}] "GET /" 200 99999999999999999999',
        f'192.0.2.7 - - {TIME} "GET /" 200 1',
        f'192.0.2.7 - - [{TIME}] "GET / 200 1',
        # With the virtual host before it every field would be one off.
        f'www.example.org:80 192.0.2.7 - - [{TIME}] "GET /" 200 1',
    ],
)
def test_lines_that_are_not_in_the_format(line: str) -> None:
    assert common(line) is None
    assert combined(line) is None


def test_a_common_line_is_not_combined() -> None:
    assert combined(f'192.0.2.7 - - [{TIME}] "GET / HTTP/1.1" 200 5') is None


_WORD = st.text(
    st.characters(codec="utf-8", exclude_characters='"[]', exclude_categories=("C", "Z")),
    min_size=1,
).filter(lambda word: not any(c.isspace() for c in word))
_QUOTED = st.text(st.characters(codec="utf-8", exclude_characters="\n"))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@given(
    host=_WORD,
    ident=_WORD,
    user=_WORD,
    request=_QUOTED,
    response=st.integers(100, 999),
    size=st.none() | st.integers(0, 2**63),
    referer=_QUOTED,
    agent=_QUOTED,
)
def test_whatever_a_server_escapes_comes_through(
    host: str,
    ident: str,
    user: str,
    request: str,
    response: int,
    size: int | None,
    referer: str,
    agent: str,
) -> None:
    line = (
        f'{host} {ident} {user} [{TIME}] "{_escape(request)}" {response} '
        f'{"-" if size is None else size} "{_escape(referer)}" "{_escape(agent)}"'
    )

    def dash(text: str) -> str | None:
        return None if text == "-" else text

    assert combined(line) == {
        "host": dash(host),
        "ident": dash(ident),
        "authuser": dash(user),
        "datetime": TIME,
        "request": dash(_escape(request)),
        "response": response,
        "bytes": size,
        "referer": dash(_escape(referer)),
        "agent": dash(_escape(agent)),
    }


def test_json_lines_go_as_they_are() -> None:
    encode = make_format("json").encode
    for line in (b'{"a": 1}', b' { "b" : [1, {"c": null}] } ', '{"ü": "é"}'.encode()):
        assert encode(line) == line
    assert encode(b'{"a": 1}\r') == b'{"a": 1}'
    for line in (b"", b"1", b"[]", b"null", b'"x"', b'{"a": 1', b'{"a": 1} x', b"{'a': 1}"):
        assert encode(line) is None
    assert encode(b'{"a": "\xff"}') is None


@given(line=st.binary())
def test_wrapping_changes_no_byte(line: bytes) -> None:
    import base64

    record = json.loads(wrap(line, "why", file="/var/log/x", offset=7))
    raw = record.get("raw")
    assert (raw.encode() if raw is not None else base64.b64decode(record["raw_base64"])) == line
    assert record["offset"] == 7
