"""Who is asking: SigV4 as header or query string, checked against the configured keys.

Owns: `Authenticator`, and AWS's errors for a request it does not let in. Two ways of working:

* with keys, a request's signature is verified in full, and its key names the account;
* without keys (loopback only; the server sees to that), the secret cannot be checked, so whatever
  is a whole signature passes. Its scope still names the region, and an unsigned request is refused,
  as at AWS: a client that is wrongly set up should learn it here. A key id of twelve digits is an
  account, so that tests over several accounts need no configuration (LocalStack's convention).

The checks come in AWS's order, as the author of dynalite found it: missing parts, date, clock,
signed host, algorithm, form of the credential, its scope, its key, the signature.

Unknown about AWS: its words for the query parameter X-Amz-Expires (here: those of S3).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from headrace.core.access_key import AccessKey, is_account
from headrace.core.clock import Clock
from headrace.core.errors import (
    IncompleteSignature,
    InvalidSignature,
    UnrecognizedClient,
)
from headrace.core.limits import DEFAULT_ACCOUNT
from headrace.core.wire import sigv4
from headrace.core.wire.authorization import (
    BASIC_TIMESTAMP,
    Credential,
    Signed,
    parse_credential,
    read_signature,
    usual_credential,
)
from headrace.core.wire.sigv4 import ALGORITHM, TERMINATOR, HeaderPairs

MAX_SKEW_S = 15 * 60
# a key id has at most 128 characters at AWS; what is let in is remembered, so it is bounded here
MAX_CREDENTIAL_BYTES = 256
MAX_EXPIRES_S = 7 * 24 * 3600

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_UNKNOWN_KEY = "The security token included in the request is invalid."
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")


class Caller(NamedTuple):
    """On whose behalf a request works: streams are named within an account and region."""

    account: str
    region: str
    key_id: str


class Authenticator:
    """Checks requests against `keys`: key id -> AccessKey. An empty mapping lets all keys in.

    `services` are the names a scope may be for (other protocols that a server speaks beside
    Kinesis have their own).
    """

    def __init__(
        self,
        keys: Mapping[str, AccessKey],
        clock: Clock,
        *,
        services: Collection[str] = ("kinesis",),
    ) -> None:
        self._keys = dict(keys)
        self._clock = clock
        self._services = tuple(services)

    def authenticate(
        self, method: str, path: bytes, query: bytes, headers: HeaderPairs, body: bytes
    ) -> Caller:
        """Who sent this request.

        Args:
            path: raw, as on the request line (ASGI `raw_path`).
            query: raw, without the question mark (ASGI `query_string`).
            headers: names in lower case, in the order received.
            body: whole; its hash is part of the signature.

        Raises:
            MissingAuthentication: not signed.
            IncompleteSignature: parts are missing, or not of the form they must have.
            InvalidSignature: for another time, region, service, or secret; or changed on its way.
            UnrecognizedClient: no such access key id.
        """
        if not self._keys and b"X-Amz-Algorithm" not in query:
            usual = usual_credential(headers)
            if usual is not None:
                return _open_caller(usual)
        signed = read_signature(query, headers)
        if not self._keys:
            _check_algorithm(signed)
            return _open_caller(signed.credential)
        self._check_time(signed)
        _check_host(signed)
        _check_algorithm(signed)
        credential = self._check_scope(signed)
        key = self._keys.get(credential.key_id)
        if key is None:
            raise UnrecognizedClient(_UNKNOWN_KEY)
        names = frozenset(signed.signed_headers.lower().split(b";"))
        request = sigv4.canonical_request(
            method=method,
            path=path,
            query=query,
            headers=headers,
            signed_headers=names,
            payload_hash=sigv4.payload_hash(headers, body),
        )
        wanted = sigv4.signature(
            signing_key=sigv4.signing_key(
                key.secret, credential.date, credential.region, credential.service
            ),
            timestamp=signed.timestamp,
            scope=credential.scope,
            canonical_request=request,
        )
        if not hmac.compare_digest(wanted, signed.signature):
            raise InvalidSignature(_MISMATCH)
        return Caller(key.account, credential.region, credential.key_id)

    def _check_time(self, signed: Signed) -> None:
        """A signature is good from 15 minutes early to 15 minutes (or its own term) late."""
        now_s = self._clock.now_ms() // 1000
        late_s = now_s - _unix_s(signed.timestamp)
        term_s = MAX_SKEW_S if signed.expires is None else _term_s(signed.expires)
        if late_s > term_s:
            raise InvalidSignature(
                f"Signature expired: {signed.timestamp} is now earlier than "
                f"{_basic(now_s - term_s)} ({_basic(now_s)} - {_length(term_s)})"
            )
        if late_s < -MAX_SKEW_S:
            raise InvalidSignature(
                f"Signature not yet current: {signed.timestamp} is still later than "
                f"{_basic(now_s + MAX_SKEW_S)} ({_basic(now_s)} + {_length(MAX_SKEW_S)})"
            )

    def _check_scope(self, signed: Signed) -> Credential:
        credential = parse_credential(signed.credential)
        day = signed.timestamp[:8]
        wrong = []
        if not _REGION.fullmatch(credential.region):
            wrong.append(
                f"Credential should be scoped to a valid region, not '{credential.region}'."
            )
        if credential.service not in self._services:
            expected = "' or '".join(self._services)
            wrong.append(f"Credential should be scoped to correct service: '{expected}'.")
        if credential.terminator != TERMINATOR:
            wrong.append(_wrong_terminator(credential))
        if credential.date != day:
            wrong.append(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
                f"from HTTP: '{credential.date}' != '{day}', from '{signed.timestamp}'."
            )
        if wrong:
            raise InvalidSignature(" ".join(wrong))
        return credential


@lru_cache(maxsize=4096)
def _open_caller(text: bytes) -> Caller:
    """The caller when there are no keys: whoever the credential says."""
    credential = parse_credential(text)
    if not credential.key_id or len(text) > MAX_CREDENTIAL_BYTES:
        raise UnrecognizedClient(_UNKNOWN_KEY)
    if credential.terminator != TERMINATOR:
        raise InvalidSignature(_wrong_terminator(credential))
    if not _REGION.fullmatch(credential.region):
        raise InvalidSignature(
            f"Credential should be scoped to a valid region, not '{credential.region}'."
        )
    account = credential.key_id if is_account(credential.key_id) else DEFAULT_ACCOUNT
    return Caller(account, credential.region, credential.key_id)


def _wrong_terminator(credential: Credential) -> str:
    return (
        f"Credential should be scoped with a valid terminator: '{TERMINATOR}', "
        f"not '{credential.terminator}'."
    )


def _check_algorithm(signed: Signed) -> None:
    if signed.algorithm != ALGORITHM:
        raise IncompleteSignature(
            f"Unsupported AWS 'algorithm': '{signed.algorithm}' (only {ALGORITHM} for now). "
        )


def _check_host(signed: Signed) -> None:
    if b"host" not in signed.signed_headers.lower().split(b";"):
        raise InvalidSignature(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        )


@lru_cache(maxsize=1024)
def _unix_s(timestamp: str) -> int:
    """`20261122T154033Z` -> Unix seconds. Requests of one second share it."""
    try:
        if _TIMESTAMP.fullmatch(timestamp):
            parsed = datetime.strptime(timestamp, BASIC_TIMESTAMP)
            return int(parsed.replace(tzinfo=UTC).timestamp())
    except ValueError:
        pass  # digits in the right places, but no such hour or day
    raise IncompleteSignature(
        f"Date must be in ISO-8601 'basic format'. Got '{timestamp}'. "
        "See http://en.wikipedia.org/wiki/ISO_8601"
    )


def _term_s(expires: str) -> int:
    """Seconds a query-string signature is good for."""
    if not re.fullmatch(r"[0-9]{1,9}", expires):
        raise IncompleteSignature("X-Amz-Expires should be a number")
    if int(expires) > MAX_EXPIRES_S:
        raise IncompleteSignature(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            f"X-Amz-Expires must be less than {MAX_EXPIRES_S} seconds"
        )
    return int(expires)


def _basic(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime(BASIC_TIMESTAMP)


def _length(seconds: int) -> str:
    return f"{seconds // 60} min." if seconds % 60 == 0 else f"{seconds} sec."
