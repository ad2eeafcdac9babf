"""Shard iterators: signed, stateless, good for five minutes.

A token is 60 bytes in base64: version u8 · stream uid 8 · shard u32 · frame u64 · ordinal u16 ·
issued ms u64 · nonce u32, then 16 bytes of keyed BLAKE2b over all that. Clients treat it as
opaque; the nonce makes every one differ from the last, as AWS's do. What those issued last say is
remembered: whoever polls sends one back at once, and to read it costs as much as to issue it.
"""

from __future__ import annotations

import binascii
import itertools
import struct
from datetime import UTC, datetime
from hashlib import blake2b
from hmac import compare_digest

import msgspec
import pybase64

from headrace.core.errors import ExpiredIterator, InvalidArgument
from headrace.core.limits import ITERATOR_LIFETIME_MS
from headrace.core.model.sequence import Position

_TOKEN = struct.Struct(">B8sIQHQI")
_VERSION = 1
_MAC_BYTES = 16
MAX_REMEMBERED = 1024


class ShardIterator(msgspec.Struct, frozen=True, gc=False):
    """What a token says."""

    uid: str
    shard: int
    position: Position
    issued_ms: int


class IteratorCodec:
    """Issues and reads tokens with the store's secret."""

    def __init__(self, secret: bytes) -> None:
        self._mac = blake2b(key=secret, digest_size=_MAC_BYTES)
        self._nonce = itertools.count()
        self._issued: dict[str, ShardIterator] = {}  # the newest, by token

    def _sign(self, body: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(body)
        return mac.digest()

    def issue(self, uid: str, shard: int, position: Position, now_ms: int) -> str:
        body = _TOKEN.pack(
            _VERSION,
            bytes.fromhex(uid),
            shard,
            position.frame_no,
            position.ordinal,
            now_ms,
            next(self._nonce) & 0xFFFF_FFFF,
        )
        token = pybase64.b64encode_as_string(body + self._sign(body))
        if len(self._issued) >= MAX_REMEMBERED:
            self._issued.clear()
        self._issued[token] = ShardIterator(uid, shard, position, now_ms)
        return token

    def read(self, token: str, now_ms: int) -> ShardIterator:
        """Raises InvalidArgument for what was not issued here, ExpiredIterator after 5 minutes."""
        known = self._issued.get(token)
        if known is not None and now_ms - known.issued_ms <= ITERATOR_LIFETIME_MS:
            return known
        if len(token) > 2 and token[0] == token[-1] == '"':
            token = token[1:-1]  # AWS takes a token in the quotes it was printed with
        try:
            raw = pybase64.b64decode(token, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidArgument("Invalid ShardIterator.") from None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) != _TOKEN.size or not compare_digest(self._sign(body), mac):
            raise InvalidArgument("Invalid ShardIterator.")
        _, uid, shard, frame_no, ordinal, issued_ms, _ = _TOKEN.unpack(body)
        if now_ms - issued_ms > ITERATOR_LIFETIME_MS:
            raise ExpiredIterator(
                f"Iterator expired. The iterator was created at time {_readable(issued_ms)} while "
                f"right now it is {_readable(now_ms)} which is further in the future than the "
                f"tolerated delay of {ITERATOR_LIFETIME_MS} milliseconds."
            )
        return ShardIterator(uid.hex(), shard, Position(frame_no, ordinal), issued_ms)


def _readable(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
