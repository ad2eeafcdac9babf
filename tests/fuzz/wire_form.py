"""Requests as bytes, also those no library would write: JSON and CBOR with oddities inside."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

JSON = "application/x-amz-json-1.1"
CBOR = "application/x-amz-cbor-1.1"


class Ms(int):
    """A timestamp, Unix milliseconds."""


@dataclass(frozen=True)
class Odd:
    """A value given as it stands on the wire, in each encoding."""

    json: bytes
    cbor: bytes


class Pairs(list[tuple[Any, Any]]):
    """A map as its entries in order, so that a key can come twice or be no text."""


def encode(value: Any, content_type: str) -> bytes:
    """A request's body in one of the two encodings."""
    return to_cbor(value) if content_type == CBOR else to_json(value)


def to_json(value: Any) -> bytes:
    if isinstance(value, Odd):
        return value.json
    if isinstance(value, Pairs | dict):
        pairs = value if isinstance(value, Pairs) else value.items()
        return b"{%s}" % b",".join(b"%s:%s" % (to_json(k), to_json(v)) for k, v in pairs)
    if isinstance(value, list):
        return b"[%s]" % b",".join(map(to_json, value))
    if isinstance(value, bytes):
        return b'"%s"' % base64.b64encode(value)
    if isinstance(value, Ms):
        return b"%d.%03d" % (value // 1000, value % 1000)
    return json.dumps(value).encode()  # NaN, and lone surrogates as \ud800


def to_cbor(value: Any) -> bytes:
    if isinstance(value, Odd):
        return value.cbor
    if isinstance(value, Pairs | dict):
        pairs = value if isinstance(value, Pairs) else list(value.items())
        return head(5, len(pairs)) + b"".join(to_cbor(k) + to_cbor(v) for k, v in pairs)
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(to_cbor, value))
    if isinstance(value, Ms):
        return head(6, 1) + to_cbor(int(value))
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return head(3, len(text)) + text
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    assert isinstance(value, int)
    if value.bit_length() > 64:
        size = (abs(value).bit_length() + 7) // 8
        return head(6, 2 if value >= 0 else 3) + to_cbor(abs(value).to_bytes(size, "big"))
    return head(0, value) if value >= 0 else head(1, -1 - value)


def head(kind: int, number: int) -> bytes:
    """A CBOR head: major type and its number, in the shortest form."""
    if number < 24:
        return bytes([kind << 5 | number])
    for width, form in enumerate(("B", "H", "I", "Q")):
        if number < 1 << (8 << width):
            return bytes([kind << 5 | 24 + width]) + struct.pack(f">{form}", number)
    raise ValueError(number)
