"""Endpoint: one address that answers operations, over one connection pool.

Owns the HTTP session, the signatures, whom to believe over TLS, and what an answer that refuses
means. Knows no operation: bodies go in and out as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec

from headrace.core.errors import (
    ConfigError,
    EndpointUnreachable,
    InternalFailure,
    ServiceError,
    ServiceUnavailable,
    service_errors,
)
from headrace.core.limits import MIB
from headrace.core.part import StreamTarget
from headrace.core.shapes import decode_members
from headrace.core.signing import Signer

_API = "Kinesis_20131202"
_EXTENSION = "Headrace_20261122"
_CONTENT_TYPE = "application/x-amz-json-1.1"
_KEEPALIVE_S = 20.0  # shorter than servers': never reuse what one is about to close
_KEY_ERRORS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "IncompleteSignatureException",
        "AccessDeniedException",
    }
)
_CLASSES = service_errors()


class Reply(NamedTuple):
    """An answer of status 200."""

    body: bytes
    headers: Mapping[str, str]


class Endpoint:
    """What a StreamTarget names. Use it within one event loop, close it at the end."""

    def __init__(self, target: StreamTarget, *, timeout_ms: int, max_connections: int) -> None:
        """Raises ConfigError for an endpoint that is no http(s) URL."""
        parts = urlsplit(target.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"the endpoint {target.endpoint!r} is not a URL",
                hint="such as http://127.0.0.1:4567",
            )
        self._target = target
        self._address = target.endpoint.rstrip("/") + "/"
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._max_connections = max_connections
        self._signer = Signer(target)
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def url(self) -> str:
        """As it was given."""
        return self._target.endpoint

    async def close(self) -> None:
        """Close all connections; what is under way fails. It cannot be used again."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self,
        operation: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        extension: bool = False,
    ) -> Reply:
        """Send one request once, signed, and return the answer of status 200.

        Raises the ServiceError of any other answer, EndpointUnreachable when there was no (whole)
        answer.
        """
        target = f"{_EXTENSION if extension else _API}.{operation}"
        signed = await self._signer.headers(
            self._address,
            {"content-type": _CONTENT_TYPE, "x-amz-target": target, **(headers or {})},
            body,
        )
        # large bodies as a file: aiohttp then sends them piece by piece instead of in one go
        data = body if len(body) < MIB else io.BytesIO(body)
        try:
            async with self._opened().post(
                self._address, data=data, headers=signed, allow_redirects=False
            ) as reply:
                answer = await reply.read()
                if reply.status == 200:
                    return Reply(answer, reply.headers)
                kind = reply.headers.get("x-amzn-errortype", "")
                raise self._error(reply.status, kind, answer)
        except TimeoutError as error:
            raise EndpointUnreachable(
                f"{self.url} did not answer {operation} within {self._timeout.total:g} s",
                endpoint=self.url,
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise EndpointUnreachable(
                f"{self.url} cannot be reached for {operation}: "
                f"{str(error) or type(error).__name__}",
                endpoint=self.url,
                hint="is the stream running, and is this its address?",
            ) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._is_closed:
                raise RuntimeError("this StreamClient is closed")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._max_connections,
                    keepalive_timeout=_KEEPALIVE_S,
                    ssl=_trust(self._target),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                headers={"user-agent": "headrace"},
            )
        return self._session

    def _error(self, status: int, kind: str, body: bytes) -> ServiceError:
        """What an answer other than 200 means. Codes come as `Code`, `ns#Code` or `Code:url`."""
        try:
            members = decode_members(body)
        except msgspec.DecodeError:
            members = {}  # a proxy's page, or nothing
        code = str(members.get("__type") or kind).split("#")[-1].split(":")[0]
        message = str(members.get("message") or members.get("Message") or "")
        cls = _CLASSES.get(code)
        if cls is None:
            cls = {503: ServiceUnavailable}.get(status, InternalFailure if status >= 500 else None)
        hint = None
        if self._signer.is_open and code in _KEY_ERRORS:
            hint = "this endpoint checks keys: give an access key id and its secret"
        error = (cls or ServiceError)(
            message or f"{self.url} answered {status} {code}".rstrip(), hint=hint
        )
        error.wire_code = code or f"HTTP {status}"
        error.wire_status = status
        return error

    def nonsense(self, operation: str, what: str) -> EndpointUnreachable:
        """The error to raise for an answer of status 200 that is none."""
        return EndpointUnreachable(
            f"{self.url} answered {operation} with something else than its answer: {what}",
            endpoint=self.url,
            hint="is this the address of a Kinesis endpoint?",
        )


def _trust(target: StreamTarget) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
    """Whom to believe over TLS. Raises OSError when the file that says so is not there (yet)."""
    if target.certificate is not None:
        first, end, _ = Path(target.certificate).read_text().partition(ssl.PEM_FOOTER)
        der = ssl.PEM_cert_to_DER_cert(first[max(first.find(ssl.PEM_HEADER), 0) :] + end)
        return aiohttp.Fingerprint(hashlib.sha256(der).digest())
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and target.endpoint.startswith("https:"):
        return ssl.create_default_context(cafile=bundle)
    return True
