"""HTTP/2 frames made by hand, right or wrong."""

from __future__ import annotations

import random
from functools import cache

from hpack import Encoder

from fuzz.exchange import SIGNATURE
from fuzz.mutations import NAMES, VALUES

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    payload = b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs)
    return frame(SETTINGS, 0, 0, payload)


def window(stream: int, size: int) -> bytes:
    return frame(WINDOW, 0, stream, size.to_bytes(4, "big"))


HELLO = PREFACE + settings()


@cache
def fields(operation: str) -> bytes:
    """The header block of a Kinesis request; it leaves the peer's tables as they were."""
    pairs = [
        (":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", f"Kinesis_20131202.{operation}"),
        ("x-amz-date", "20261122T160000Z"), ("authorization", SIGNATURE.decode()),
    ]  # fmt: skip
    return Encoder().encode([(name, value, True) for name, value in pairs])


def odd_fields(chance: random.Random) -> bytes:
    """A header block with one thing wrong in it: gone, doubled, in the wrong place, or odd."""
    pairs: list[tuple[bytes, bytes]] = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", b"/"),
        (b"content-type", b"application/x-amz-json-1.1"),
        (b"x-amz-target", b"Kinesis_20131202.ListStreams"),
        (b"x-amz-date", b"20261122T160000Z"), (b"authorization", SIGNATURE),
    ]  # fmt: skip
    at = chance.randrange(len(pairs))
    match chance.randrange(5):
        case 0:
            del pairs[at]
        case 1:
            pairs.append(pairs[at])
        case 2:
            chance.shuffle(pairs)
        case 3:
            pairs[at] = (pairs[at][0], chance.choice([*VALUES, b"*", b"//", b"/%", b"http://[/"]))
        case _:
            names = [b"", b":x", b"X", b"te", b"connection", b"content-length", b"a b", b"\x00"]
            pairs.insert(at, (chance.choice([*names, *NAMES]), chance.choice(VALUES)))
    return Encoder().encode([(name, value, True) for name, value in pairs])


def request(stream: int, operation: str, body: bytes = b"{}") -> bytes:
    return frame(HEADERS, END_HEADERS, stream, fields(operation)) + frame(
        DATA, END_STREAM, stream, body
    )


def any_frame(chance: random.Random) -> bytes:
    """A frame of any kind on any stream, its payload right or at random."""
    if chance.random() < 0.2:
        whole = frame(HEADERS, 5, chance.choice([3, 5, 7]), odd_fields(chance))
        return whole + frame(DATA, END_STREAM, 3, b"{}")
    stream = chance.choice([0, 1, 3, 5, 2, 7, 2**31 - 1, 2**32 - 1, chance.randrange(1, 40)])
    kind = chance.choice([*range(10), chance.randrange(256)])
    flags = chance.choice([0, 1, 4, 5, 8, 0x20, 0x2D, chance.randrange(256)])
    payload = chance.choice(
        [
            b"",
            fields("ListStreams"),
            odd_fields(chance),
            b"{}",
            (2**31 - 1).to_bytes(4, "big"),
            b"\x00" * 8,
            b"\x00\x04\xff\xff\xff\xff",
            b"\x00\x05\x00\x00\x00\x01",
            b"\x00\x01\x7f\xff\xff\xff" * 3,
            chance.randbytes(chance.randrange(60)),
        ]
    )
    made = bytearray(frame(kind, flags, stream, payload))
    if chance.random() < 0.1:
        made[chance.randrange(len(made))] = chance.randrange(256)
    return bytes(made)
