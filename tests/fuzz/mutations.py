"""What is done to requests: to their values, to their bytes, to their headers.

A mutation takes `chance` and what it changes, and gives the changed thing; it leaves the original.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

from fuzz.wire_form import Odd, Pairs, head

MIB = 1024 * 1024

STRINGS: list[Any] = [
    "", "a" * 129, "a" * 257, "a" * 2049, "\x00", "\ud800", "\udc00\ud800", "\ufeff", "\u202e",
    "é" * 128, "\U0001d4b3" * 64,
    "'; DROP TABLE", "../../etc/passwd", "${jndi:x}", "\r\nX: y", "null",
    "arn:aws:kinesis:us-east-1:123456789012:stream/" + "a" * 3_000, ":" * 500, "9" * 129,
    "340282366920938463463374607431768211456", "-1", "1e999", "NaN", "Infinity", "0x10", "٣",
]  # fmt: skip
NUMBERS: list[Any] = [
    0, 1, -1, 10_000, 10_001, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    -(2**64) - 1, 10**400, -(10**400), 0.5, 1e308, -1e308, 5e-324, -0.0,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"": ""}, b"", b"\xff\xfe", [{}]]
ODD = [
    Odd(b"1" + b"0" * 5_000, b"\xc2\x5a\x00\x00\x08\x00" + b"\xff" * 2_048),  # a number, a bignum
    Odd(b"1e400", b"\xf9\x7c\x00"),  # half-precision infinity
    Odd(b"-0", b"\xf9\x80\x00"),
    Odd(b"01", b"\xf7"),  # undefined
    Odd(b"nul", b"\xf8\xff"),  # a simple value nobody knows
    Odd(b"\xff\xfe", b"\x63\xff\xfe\xfd"),  # text that is not UTF-8
    Odd(b'"\xed\xa0\x80"', b"\x63\xed\xa0\x80"),  # a surrogate in UTF-8
    Odd(b'"\\ud800"', b"\x7f\x61a\x61b\xff"),  # text in pieces
    Odd(b'"\\u00"', b"\x5f\x41a\x41b\xff"),
    Odd(b'"\x01"', b"\x7f\x41a\xff"),  # bytes in text in pieces
    Odd(b"'a'", b"\x9f\xff"),
    Odd(b"[1,]", b"\xbf\x61a\x01\xff"),
    Odd(b'{"a"}', b"\x9f"),  # without an end
    Odd(b"/**/1", b"\xff"),  # the end of nothing
    Odd(b"1 2", b"\xc1\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00"),  # a timestamp at infinity
    Odd(b"1.5e10", b"\xc1\xfb\x41\xda\x00\x00\x00\x00\x00\x00"),  # a float timestamp
    Odd(b"true", b"\xc1\x61x"),
    Odd(b"1e18", b"\xc1\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
    Odd(b"-1e18", b"\xc1\x3b\xff\xff\xff\xff\xff\xff\xff\xff"),
    Odd(b"[", b"\x5b\x00\x00\x01\x00\x00\x00\x00\x00abc"),  # 2^40 bytes, of which three come
    Odd(b"{", b"\x7b\x00\x00\x01\x00\x00\x00\x00\x00abc"),
    Odd(b'"', b"\x9b\x00\x00\x01\x00\x00\x00\x00\x00\x01"),  # 2^40 items
    Odd(b'{"a":', b"\xbb\x00\x00\x01\x00\x00\x00\x00\x00\x61a\x01"),
    Odd(b"\\", b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),  # a length that is negative if signed
    Odd(b"\x00", b"\x1c"),  # a reserved form
    Odd(b'{"a":1,"a":2}', b"\xa2\x61a\x01\x61a\x02"),
    Odd(b"{1:2}", b"\xa1\x80\x01"),  # a list as a key
    Odd(b"{null:2}", b"\xa1\xa0\x01"),
    Odd(b"0.1", b"\xd8\x23\x78\x02(+"),  # a regular expression
    Odd(b"1E+2", b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01"),  # ten to a high power
    Odd(b"1.", b"\xd8\x1d\x00"),  # a reference to a value
    Odd(b".1", b"\xd8\x1c\x81\xd8\x1d\x00"),  # a list that holds itself
    Odd(b"-", b"\xd9\x01\x00\x81\x61a"),  # a string reference
]


def nested(depth: int) -> Odd:
    """Lists within lists."""
    return Odd(b"[" * depth + b"]" * depth, b"\x81" * depth + b"\x01")


def nested_maps(depth: int) -> Odd:
    return Odd(b'{"a":' * depth + b"1" + b"}" * depth, b"\xa1\x61a" * depth + b"\x01")


def wrong_value(chance: random.Random) -> Any:
    """Something that does not belong, of any type."""
    return chance.choice(chance.choice([STRINGS, NUMBERS, OTHERS, ODD]))


# -- values ----------------------------------------------------------------------------------------


def mutate_value(chance: random.Random, request: Any) -> Any:
    """The request with one thing wrong in it, at any depth."""
    changed = copy.deepcopy(request)
    places = list(_places(changed))
    if not places or chance.random() < 0.03:
        return chance.choice([*NUMBERS, *OTHERS, *ODD, "x"])  # the whole request is something else
    holder, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder["Unknown"] = wrong_value(chance)
        case 2:
            holder[key] = [holder[key]] * chance.choice([1, 2, 600])
        case 3:
            holder[key] = {"a": holder[key]}
        case _:
            holder[key] = wrong_value(chance)
    if changed and chance.random() < 0.1:  # a member twice, or a key that is no text
        twice = Pairs(changed.items())
        twice.insert(0, (chance.choice([*changed, 5, None]), wrong_value(chance)))
        return twice
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        items: Any = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))[:5]
    else:
        return
    for key, inner in items:
        yield value, key
        yield from _places(inner)


# -- bytes -----------------------------------------------------------------------------------------


def mutate_bytes(chance: random.Random, body: bytes) -> bytes:
    """The body damaged on its way."""
    at = chance.randrange(len(body) + 1)
    match chance.randrange(8):
        case 0 | 1:
            return body[:at]
        case 2:
            return body[:at] + chance.randbytes(chance.randint(1, 8)) + body[at:]
        case 3:
            return body[:at] + chance.randbytes(1) + body[at + 1 :]
        case 4:
            return body[:at] + body[at + chance.randint(1, 9) :]
        case 5:
            return (
                chance.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b" \n", b"[", b"\xd9"]) + body
            )
        case 6:
            return body + chance.choice([b"\x00", b"{}", b" ", b"}", b"\xff", b"\xa0"])
    return body[at:] + body[:at]


def truncations(body: bytes) -> Iterator[bytes]:
    """The body cut off at each byte."""
    for at in range(len(body)):
        yield body[:at]


# -- headers ---------------------------------------------------------------------------------------

Headers = list[tuple[bytes, bytes]]

VALUES = [
    b"", b" ", b"\xff\xfe", b"\xc3\xa9", b"a" * 8_000, b",", b";", b"=", b'"', b"%00", b"0",
    b"-1", b"9" * 100, b"9" * 5_000, b"1_0", b"+1", b"1.5", b"NaN", b"a,b", b"1,-2", b"\t",
    b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA256 Credential=a/b/c/kinesis/aws4_request, SignedHeaders=,"
    b" Signature=", b"Basic eDp5", b"AWS4-HMAC-SHA256 Credential=////, SignedHeaders=host, "
    b"Signature=0", b"20261399T999999Z", b"Sun, 31 Feb 0001 99:99:99 +9999", b"Mon, 01 Jan 99999",
    b"Sun, 22 Nov 2026 16:00:00", b"Sun, , ,", b",,,,", b"Kinesis_20131202.", b"Kinesis_20131202",
    b"Kinesis_20131202.PutRecord.PutRecord", b"Headrace_20261122.__class__",
    b"Kinesis_20131202.\xff",
    b"application/json", b"application/x-amz-json-1.0", b"application/x-amz-cbor-1.1;;;",
    b"text/plain", b"multipart/form-data; boundary=x", b"chunked", b"gzip", b"http://[::1",
]  # fmt: skip
NAMES = [
    b"Authorization", b"X-Amz-Date", b"Date", b"X-Amz-Target", b"Content-Type", b"Origin",
    b"X-Headrace-Producer", b"X-Headrace-Producer-Epoch", b"X-Headrace-Producer-Sequences",
    b"X-Amz-Security-Token", b"X-Amz-Content-Sha256", b"Accept", b"Content-Encoding", b"Host",
    b"Access-Control-Request-Headers", b"X-Amz-User-Agent", b"Amz-Sdk-Request", b"Cookie",
]  # fmt: skip


def mutate_headers(chance: random.Random, headers: Headers) -> Headers:
    """The headers with one of them wrong, gone, doubled or new."""
    changed = list(headers)
    at = chance.randrange(len(changed))
    name, value = changed[at]
    match chance.randrange(5):
        case 0:
            del changed[at]
        case 1:
            changed.append((name, chance.choice([value, *VALUES])))
        case 2:
            cut = chance.randrange(len(value) + 1)
            changed[at] = (name, value[:cut] + chance.choice(VALUES)[:50] + value[cut + 1 :])
        case 3:
            changed.append((chance.choice(NAMES), chance.choice(VALUES)))
        case _:
            changed[at] = (name, chance.choice(VALUES))
    return changed


# -- large ones ------------------------------------------------------------------------------------

Large = tuple[str, Callable[[], Any]]


def large_values() -> list[Large]:
    """Values that are large on the wire, or would be in memory: by name, made when called."""
    return [
        ("text of 10 MiB", lambda: "a" * (10 * MIB)),
        ("text of 10 MiB that is no base64", lambda: "é" * (5 * MIB)),
        ("colons", lambda: ":" * (4 * MIB)),
        ("digits", lambda: "9" * (4 * MIB)),
        (
            "a number of a million digits",
            lambda: Odd(b"1" * MIB, b"\xc2" + head(2, MIB) + b"x" * MIB),
        ),
        ("a fraction of a million digits", lambda: Odd(b"0." + b"1" * MIB, b"\xf6")),
        ("a power", lambda: Odd(b"1e" + b"9" * MIB, b"\xf6")),
        (
            "escapes",
            lambda: Odd(b'"' + b"\\u0041" * 2_000_000 + b'"', b"\x7f" + b"\x61a" * 4_000_000),
        ),
        ("nested 100,000 deep", lambda: nested(100_000)),
        ("nested 6,000,000 deep", lambda: nested(6_000_000)),
        ("maps 100,000 deep", lambda: nested_maps(100_000)),
        ("a million nulls", lambda: [None] * MIB),
        ("260,000 texts", lambda: ["a"] * 260_000),
        ("260,000 empty maps", lambda: [{}] * 130_000),
        ("a map of 130,000", lambda: {f"k{n}": "" for n in range(130_000)}),
        (
            "maps that say 2^40 items",
            lambda: Odd(b"[]", b"\xbb\x00\x00\x01\x00\x00\x00\x00\x00" * 30),
        ),
        (
            "lists that say 2^40 items",
            lambda: Odd(b"[]", b"\x9b\x00\x00\x01\x00\x00\x00\x00\x00" * 30),
        ),
        ("the same key", lambda: Pairs([("a", 1)] * 200_000)),
        ("blank", lambda: Odd(b" " * (12 * MIB) + b"1", b"\x5f" + b"\x40" * 200_000 + b"\xff")),
    ]
