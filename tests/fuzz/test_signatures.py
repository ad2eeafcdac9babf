"""Signatures with something wrong in them, against a server that has keys and one that has none."""

from __future__ import annotations

import random
from urllib.parse import quote_from_bytes

import pytest

from fuzz.exchange import Headers, usual_headers
from fuzz.mutations import NAMES, VALUES, mutate_headers
from fuzz.wire_form import JSON
from headrace.core.access_key import AccessKey
from headrace.core.clock import SystemClock
from headrace.core.errors import ServiceError
from headrace.core.wire.auth import Authenticator

AUTHENTICATORS = [
    Authenticator({}, SystemClock()),
    Authenticator({"test": AccessKey("secret")}, SystemClock()),
]


def signed_query(chance: random.Random) -> bytes:
    """A presigned request's query string, some of it odd."""
    pairs = [
        (b"X-Amz-Algorithm", b"AWS4-HMAC-SHA256"),
        (b"X-Amz-Credential", b"test/20261122/us-east-1/kinesis/aws4_request"),
        (b"X-Amz-Date", b"20261122T160000Z"),
        (b"X-Amz-Expires", b"60"),
        (b"X-Amz-SignedHeaders", b"host"),
        (b"X-Amz-Signature", b"0" * 64),
    ]
    changed = mutate_headers(chance, pairs)
    text = b"&".join(b"%s=%s" % (k, quote_from_bytes(v).encode()) for k, v in changed)
    return text if chance.random() < 0.8 else text.replace(b"%", b"%%", 1)


def check(chance: random.Random, rounds: int) -> None:
    for _ in range(rounds):
        headers: Headers = [
            (name.lower(), value) for name, value in usual_headers("Kinesis_20131202.X", JSON)
        ]
        for _ in range(chance.randint(1, 3)):
            headers = [(n.lower(), v) for n, v in mutate_headers(chance, headers or [(b"a", b"")])]
        query = signed_query(chance) if chance.random() < 0.3 else chance.choice([b"", *VALUES])
        if chance.random() < 0.3:
            headers = [(n, v) for n, v in headers if n != b"authorization"]
        path = chance.choice([b"/", b"", b"/%", b"//", *NAMES])
        for authenticator in AUTHENTICATORS:
            try:
                authenticator.authenticate("POST", path, query, headers, b"{}")
            except ServiceError as error:
                assert error.status == 400, (error, headers, query)
                assert len(str(error)) < 100_000


def test_signatures_at_random(chance: random.Random) -> None:
    check(chance, 5_000)


@pytest.mark.slow
def test_signatures_at_random_for_long(chance: random.Random) -> None:
    check(chance, 500_000)
