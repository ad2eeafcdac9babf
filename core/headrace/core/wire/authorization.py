"""A signature's parts, found in the Authorization header or the query string.

Owns: the forms a SigV4 signature comes in, and AWS's errors for parts that are missing (each of
them named). What the parts say is judged in `auth`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from headrace.core.errors import IncompleteSignature, InvalidSignature, MissingAuthentication
from headrace.core.speedups import compiled
from headrace.core.wire import sigv4
from headrace.core.wire.sigv4 import HeaderPairs

BASIC_TIMESTAMP = "%Y%m%dT%H%M%SZ"

_USUAL_HEADER = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([^\s,=]+), ?SignedHeaders=([^\s,=]+), ?Signature=([^\s,=]+)"
)


class Credential(NamedTuple):
    """`key_id/date/region/service/aws4_request`, the parts of it."""

    key_id: str
    date: str
    region: str
    service: str
    terminator: str

    @property
    def scope(self) -> str:
        return "/".join(self[1:])


class Signed(NamedTuple):
    """The parts of a signature, from the header or the query, none of them checked yet."""

    algorithm: str
    credential: bytes
    signed_headers: bytes
    signature: bytes
    timestamp: str
    expires: str | None


def read_signature(query: bytes, headers: HeaderPairs) -> Signed:
    """The signature's parts, from wherever they are.

    Raises:
        MissingAuthentication, IncompleteSignature, InvalidSignature (both places have one).
    """
    authorization = _header(headers, b"authorization")
    parameters = dict(sigv4.query_parameters(query))
    if b"X-Amz-Algorithm" not in parameters:
        if authorization is None:
            raise MissingAuthentication("Missing Authentication Token")
        return _signed_header(authorization, headers)
    if authorization is not None:
        raise InvalidSignature(
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP "
            "header."
        )
    return _signed_query(parameters)


def _signed_header(authorization: bytes, headers: HeaderPairs) -> Signed:
    algorithm, *rest = re.split(rb"[, ]+", authorization.strip())
    parts = dict(part.partition(b"=")[::2] for part in rest if part)
    missing = [
        f"Authorization header requires '{name}' parameter. "
        for name in ("Credential", "Signature", "SignedHeaders")
        if not parts.get(name.encode())
    ]
    date = _header(headers, b"x-amz-date") or _header(headers, b"date")
    if not date:
        missing.append(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        )
    if missing or date is None:
        echo = authorization.decode("latin-1")
        raise IncompleteSignature(f"{''.join(missing)}Authorization={echo}")
    return Signed(
        algorithm=algorithm.decode("latin-1"),
        credential=parts[b"Credential"],
        signed_headers=parts[b"SignedHeaders"],
        signature=parts[b"Signature"],
        timestamp=_basic_timestamp(date.decode("latin-1")),
        expires=None,
    )


def _signed_query(parameters: Mapping[bytes, bytes]) -> Signed:
    names = ("Algorithm", "Credential", "Signature", "SignedHeaders", "Date")
    found = {name: parameters.get(f"X-Amz-{name}".encode(), b"") for name in names}
    missing = [
        f"AWS query-string parameters must include 'X-Amz-{name}'. "
        for name in names
        if not found[name]
    ]
    if missing:
        raise IncompleteSignature(f"{''.join(missing)}Re-examine the query-string parameters.")
    expires = parameters.get(b"X-Amz-Expires")
    return Signed(
        algorithm=found["Algorithm"].decode("latin-1"),
        credential=found["Credential"],
        signed_headers=found["SignedHeaders"],
        signature=found["Signature"],
        timestamp=found["Date"].decode("latin-1"),
        expires=None if expires is None else expires.decode("latin-1"),
    )


def _header(headers: HeaderPairs, wanted: bytes) -> bytes | None:
    for name, value in headers:
        if name == wanted:
            return value
    return None


@compiled
def usual_credential(headers: HeaderPairs, /) -> bytes | None:
    """The credential of a request whose headers are signed as every SDK does it; None when it
    needs a closer look."""
    credential = None
    is_dated = False
    for name, value in headers:
        if name == b"authorization":
            found = _USUAL_HEADER.fullmatch(value)
            if found is None:
                return None
            credential = found[1]
        elif name == b"x-amz-date" or name == b"date":
            is_dated = True
    return credential if is_dated else None


def parse_credential(text: bytes) -> Credential:
    decoded = text.decode("latin-1")
    parts = decoded.rstrip("/").split("/")
    if len(parts) != 5:
        raise IncompleteSignature(
            "Credential must have exactly 5 slash-delimited elements, e.g. "
            f"keyid/date/region/service/term, got '{decoded}'"
        )
    return Credential(*parts)


def _basic_timestamp(text: str) -> str:
    """A Date header (`Sun, 22 Nov 2026 …`) as ISO-8601 basic; other text as it is."""
    if "," not in text:
        return text
    try:
        return parsedate_to_datetime(text).astimezone(UTC).strftime(BASIC_TIMESTAMP)
    except (ValueError, OverflowError):
        return text
