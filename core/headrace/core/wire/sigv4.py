"""AWS Signature Version 4: the canonical form of a request, and its signature.

Owns: the arithmetic, as pure functions on bytes. Headers are (name, value) pairs with lower-case
names, as ASGI servers hand them over; path and query are raw, as they stood on the request line.

Does not: decide who may do what (`auth`). Chunk-signed bodies (`STREAMING-…`) are not for Kinesis.

Source: "Create a signed AWS API request", AWS IAM user guide; botocore is the oracle of the tests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
UNSIGNED_PAYLOAD = b"UNSIGNED-PAYLOAD"

HeaderPairs = Sequence[tuple[bytes, bytes]]


def signature(*, signing_key: bytes, timestamp: str, scope: str, canonical_request: bytes) -> bytes:
    """The signature in hex. `timestamp` is `YYYYMMDDTHHMMSSZ`, `scope` is without the key id."""
    digest = hashlib.sha256(canonical_request).hexdigest()
    to_sign = f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
    return hmac.digest(signing_key, to_sign.encode(), "sha256").hex().encode()


@lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of one day: four HMACs, worth keeping."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_request(
    *,
    method: str,
    path: bytes,
    query: bytes,
    headers: HeaderPairs,
    signed_headers: Collection[bytes],
    payload_hash: bytes,
) -> bytes:
    """What is hashed and signed. `signed_headers` are lower-case names, in any order."""
    return b"\n".join(
        (
            method.upper().encode(),
            canonical_path(path),
            canonical_query(query),
            *_canonical_headers(headers, signed_headers),
            b"",
            b";".join(sorted(signed_headers)),
            payload_hash,
        )
    )


def payload_hash(headers: HeaderPairs, body: bytes) -> bytes:
    """The last line of the canonical request: the body's hash, unless its sender leaves it out.

    What a sender claims the hash to be is not taken from it: of a changed body the signature would
    still be right.
    """
    for name, value in headers:
        if name == b"x-amz-content-sha256" and value == UNSIGNED_PAYLOAD:
            return UNSIGNED_PAYLOAD
    return hashlib.sha256(body).hexdigest().encode()


def canonical_path(path: bytes) -> bytes:
    """Without dot segments and empty ones, percent-encoded once more."""
    if path in (b"/", b""):
        return b"/"
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    end = "/" if path.endswith(b"/") and kept else ""
    return ("/" + quote_from_bytes(b"/".join(kept), safe="/~") + end).encode()


def canonical_query(query: bytes) -> bytes:
    """Sorted parameters in one spelling, the signature itself left out."""
    if not query:
        return b""
    pairs = [
        (quote_from_bytes(name, safe="-_.~"), quote_from_bytes(value, safe="-_.~"))
        for name, value in query_parameters(query)
        if name != b"X-Amz-Signature"
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs)).encode()


def query_parameters(query: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Names and values, decoded. A plus sign is a plus sign."""
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            yield unquote_to_bytes(name), unquote_to_bytes(value)


def _canonical_headers(headers: HeaderPairs, signed: Collection[bytes]) -> list[bytes]:
    """`name:value` sorted by name; values of one name joined by commas, their blanks trimmed."""
    values: dict[bytes, list[bytes]] = {name: [] for name in sorted(signed)}
    for name, value in headers:
        if name in values:
            values[name].append(b" ".join(value.split()))
    return [name + b":" + b",".join(found) for name, found in values.items()]
