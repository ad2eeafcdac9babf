"""JSON as its standard has it, and nothing else: what this reads, it can give back unchanged.

Python's reader takes NaN, repeated keys (the last wins), numbers beyond any double, lone
surrogates. Each would lose something on the way into a column, so a record that has one is no
JSON here and is kept as the bytes it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: Deeper than any real document, and well below where Python's own reader gives up, which
#: depends on the caller's stack and so would not be the same answer every time.
MAX_DEPTH = 256

_BOM = b"\xef\xbb\xbf"
_WHITESPACE = b" \t\r\n"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def load_object(data: bytes) -> dict[str, Any] | None:
    """The object a record holds, or None if it is not exactly one.

    A byte order mark and white space around it are allowed. Values are dict, list, str, int,
    float (finite), bool and None.
    """
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    if data.lstrip(_WHITESPACE)[:1] != b"{":
        return None
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        return None
    try:
        text = data.decode()
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            dump(value).encode()
    except ValueError:  # UnicodeError and JSONDecodeError are ValueErrors
        return None
    return value if isinstance(value, dict) else None


def dump(value: object) -> str:
    """Compact JSON text that reads back as the same value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _depth(data: bytes) -> int:
    deepest = depth = 0
    for found in _NESTING.finditer(data):
        token = found[0]
        if token in (b"{", b"["):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"}", b"]"):
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:  # infinity: the number is no double
        raise ValueError("a number beyond any double")
    return value


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse)
