"""Line formats: the bytes of one line in, the data of one record out. Pure functions.

`encode` answers None for a line that is not in the format; what becomes of it is the flow's
`on_parse_error`. Fields of the Apache formats are named as the Kinesis Agent names them; `-` is
null, and `response` and `bytes` are integers. Unlike there, IPv6 clients, users with `@` or
spaces, escaped quotes and empty requests match, and what a line has beyond the format (a common
custom: `"$http_x_forwarded_for"` at the end) is kept as `extra`.
"""

from __future__ import annotations

import base64
import re
from typing import Protocol

import msgspec

from headrace.agent.config import FormatName

_encode = msgspec.json.Encoder().encode


class Format(Protocol):
    """How a line becomes the data of a record."""

    name: FormatName
    #: True when the data of a record is the line itself, byte for byte.
    is_raw: bool

    def encode(self, line: bytes) -> bytes | None:
        """The data for one line (without its newline), or None if it is not in the format."""


class RawFormat:
    """Each line as it is."""

    name: FormatName = "raw"
    is_raw = True

    def encode(self, line: bytes) -> bytes | None:
        return line


class JsonFormat:
    """Each line is a JSON object already; it is checked and shipped as it is."""

    name: FormatName = "json"
    is_raw = False

    def __init__(self) -> None:
        # Raw values are checked and skipped, not built: a third of the cost of decoding.
        self._check = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def encode(self, line: bytes) -> bytes | None:
        try:
            self._check(line)
            if not line.isascii():
                line.decode()  # skipped values are not looked at for what is no UTF-8
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return line.rstrip(b"\r")


class CommonEntry(msgspec.Struct, gc=False, omit_defaults=True):
    """A line of the common log format, as JSON has it."""

    host: str | None
    ident: str | None
    authuser: str | None
    datetime: str | None
    request: str | None
    response: int | None
    bytes: int | None
    extra: str | None = None


class CombinedEntry(msgspec.Struct, gc=False, omit_defaults=True):
    """A line of the combined log format, as JSON has it."""

    host: str | None
    ident: str | None
    authuser: str | None
    datetime: str | None
    request: str | None
    response: int | None
    bytes: int | None
    referer: str | None
    agent: str | None
    extra: str | None = None


# A quoted field; the second form, for lines with a backslash in them, knows escaped quotes. The
# first scans three times as fast, and nearly all lines are without one.
_PLAIN_QUOTED = r'"([^"]*)"'
_ESCAPED_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
# A user name may hold spaces, but only after the `-` of an absent ident: otherwise a line that
# begins with one field more (the virtual host, say) would pass, each field one off.
_COMMON = r"(\S+) (\S+) (\S+|(?<= - )[^\[]+?) \[([^\[\]]+)\] %s (\d{3}|-) (\d{1,19}|-)"
_REST = r"(?: (.*))?\r?"


def _pattern(quoted: str, quoted_fields: int) -> re.Pattern[str]:
    more = "".join(" " + quoted for _ in range(quoted_fields - 1))
    pattern = _COMMON.replace("%s", quoted) + more + _REST
    return re.compile(pattern, re.DOTALL | re.ASCII)


class ApacheFormat:
    """Access logs of Apache and nginx: the common format, or combined (with referer and agent)."""

    is_raw = False

    def __init__(self, name: FormatName) -> None:
        self.name = name
        self._is_combined = name == "combined-apache"
        quoted_fields = 3 if self._is_combined else 1
        self._match_plain = _pattern(_PLAIN_QUOTED, quoted_fields).fullmatch
        self._match_escaped = _pattern(_ESCAPED_QUOTED, quoted_fields).fullmatch

    def encode(self, line: bytes) -> bytes | None:
        # Decoded once, not field by field: that is a third of the cost of a line.
        text = line.decode("utf-8", "backslashreplace")
        found = self._match_escaped(text) if "\\" in text else self._match_plain(text)
        if found is None:
            return None
        # Written out for both: one form of it, however put, makes a line a third dearer.
        if self._is_combined:
            host, ident, user, time, request, response, size, referer, agent, extra = found.groups()
            return _encode(
                CombinedEntry(
                    None if host == "-" else host,
                    None if ident == "-" else ident,
                    None if user == "-" else user,
                    None if time == "-" else time,
                    None if request == "-" else request,
                    None if response == "-" else int(response),
                    None if size == "-" else int(size),
                    None if referer == "-" else referer,
                    None if agent == "-" else agent,
                    None if extra is None else extra.rstrip("\r"),
                )
            )
        host, ident, user, time, request, response, size, extra = found.groups()
        return _encode(
            CommonEntry(
                None if host == "-" else host,
                None if ident == "-" else ident,
                None if user == "-" else user,
                None if time == "-" else time,
                None if request == "-" else request,
                None if response == "-" else int(response),
                None if size == "-" else int(size),
                None if extra is None else extra.rstrip("\r"),
            )
        )


class Wrapped(msgspec.Struct, omit_defaults=True):
    """A line, or a part of an over-long one, that could not be shipped in its format.

    `raw` is its text; bytes that are not UTF-8 go as `raw_base64` instead, so none is changed.
    `offset` is where they stand in the file, `line_offset` where their line begins if that is
    another place.
    """

    error: str
    file: str
    offset: int
    raw: str | None = None
    raw_base64: str | None = None
    line_offset: int | None = None


def wrap(
    line: bytes, error: str, *, file: str, offset: int, line_offset: int | None = None
) -> bytes:
    """The data of a record that carries bytes which are not in the flow's format."""
    wrapped = Wrapped(error=error, file=file, offset=offset, line_offset=line_offset)
    try:
        wrapped.raw = line.decode()
    except UnicodeDecodeError:
        wrapped.raw_base64 = base64.b64encode(line).decode()
    return _encode(wrapped)


def make_format(name: FormatName) -> Format:
    """The format of that name."""
    if name == "raw":
        return RawFormat()
    if name == "json":
        return JsonFormat()
    return ApacheFormat(name)
