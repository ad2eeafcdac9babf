"""StreamClient: the Kinesis API over one connection pool, against Headrace or AWS.

Owns the HTTP session, the signing and the mapping of errors. Sends every request once: what to do
about a failure is the caller's to know (`producer` and `consumer` know it).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import (
    ConfigError,
    EndpointUnreachable,
    InternalFailure,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
    ServiceUnavailable,
    service_errors,
)
from headrace.core.limits import MAX_RECORDS_PER_GET, MIB
from headrace.core.model.records import ProducerStamp, PutEntry, PutResult
from headrace.core.model.shards import ShardInfo
from headrace.core.part import StreamTarget
from headrace.core.shapes import (
    GetResult,
    decode_get,
    decode_put,
    decode_shards,
    encode_put,
)
from headrace.core.signing import Signer, is_aws

__all__ = ["GetResult", "StreamClient"]

_API = "Kinesis_20131202"
_EXTENSION = "Headrace_20261122"
_CONTENT_TYPE = "application/x-amz-json-1.1"
_KEEPALIVE_S = 20.0  # shorter than servers': never reuse what one is about to close
_EXPIRED_HEADER = "x-headrace-records-expired"
_POLL_MS = (20, 500)
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

T = TypeVar("T")


class _Reply(NamedTuple):
    body: bytes
    headers: Mapping[str, str]


class StreamClient:
    """One endpoint. Make it anywhere, use it within one event loop, close it at the end.

    Every method raises the ServiceError the endpoint answered with, or EndpointUnreachable when
    there was no (whole) answer: what was asked for may have happened all the same.
    """

    def __init__(
        self,
        target: StreamTarget,
        *,
        timeout_ms: int = 30_000,
        max_connections: int = 64,
        clock: Clock | None = None,
    ) -> None:
        """Raises ConfigError for an endpoint that is no http(s) URL."""
        parts = urlsplit(target.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"the endpoint {target.endpoint!r} is not a URL",
                hint="such as http://127.0.0.1:4567",
            )
        self._target = target
        self._url = target.endpoint.rstrip("/") + "/"
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._max_connections = max_connections
        self._clock = clock or SystemClock()
        self._signer = Signer(target)
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    @property
    def endpoint(self) -> str:
        return self._target.endpoint

    @property
    def is_headrace(self) -> bool:
        """Whether Headrace's additions to the API may be there: not on AWS, which knows none."""
        return not is_aws(self._target.endpoint)

    async def __aenter__(self) -> StreamClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls under way fail. It cannot be used again."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        operation: str,
        request: dict[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        extension: bool = False,
    ) -> dict[str, Any]:
        """Any operation by name: the request's members in, the answer's members out.

        bytes values are sent as base64; the answer's blobs stay base64 text. `extension` calls
        one of Headrace's own operations instead of one of Kinesis.
        """
        body = msgspec.json.encode(request)
        answer = await self._post(operation, body, headers, extension=extension)
        return self._decoded(operation, _decode_members, answer) if answer else {}

    async def put_records(
        self, stream: str, entries: Sequence[PutEntry], *, producer: ProducerStamp | None = None
    ) -> list[PutResult]:
        """One PutRecords of 1..500 entries; one result per entry, refused ones among them."""
        headers = producer.headers() if producer and self.is_headrace else None
        body = await self._post("PutRecords", encode_put(stream, entries), headers)
        results = self._decoded("PutRecords", decode_put, body)
        if len(results) != len(entries):
            raise self._nonsense("PutRecords", f"{len(results)} results for {len(entries)} records")
        return results

    async def get_shard_iterator(
        self,
        stream: str,
        shard_id: str,
        kind: str,
        *,
        sequence_number: str | None = None,
        at_ms: int | None = None,
    ) -> str:
        """An iterator of `kind` (ShardIteratorType); `at_ms` is Unix ms for AT_TIMESTAMP."""
        request: dict[str, Any] = {
            "StreamName": stream,
            "ShardId": shard_id,
            "ShardIteratorType": kind,
        }
        if sequence_number is not None:
            request["StartingSequenceNumber"] = sequence_number
        if at_ms is not None:
            request["Timestamp"] = at_ms / 1000
        answer = await self.call("GetShardIterator", request)
        iterator = answer.get("ShardIterator")
        if not isinstance(iterator, str):
            raise self._nonsense("GetShardIterator", "no ShardIterator in the answer")
        return iterator

    async def get_records(self, iterator: str, *, limit: int = MAX_RECORDS_PER_GET) -> GetResult:
        """Up to `limit` (1..10,000) records and 10 MiB from where an iterator points."""
        reply = await self._send(
            "GetRecords", msgspec.json.encode({"ShardIterator": iterator, "Limit": limit})
        )
        result = self._decoded("GetRecords", decode_get, reply.body)
        result.has_missed = _EXPIRED_HEADER in reply.headers
        return result

    async def list_shards(self, stream: str) -> list[ShardInfo]:
        """All shards of a stream, closed ones too, for as long as they hold records."""
        found: list[ShardInfo] = []
        request: dict[str, Any] = {"StreamName": stream}
        while True:
            body = await self._post("ListShards", msgspec.json.encode(request))
            page, token = self._decoded("ListShards", decode_shards, body)
            found += page
            if token is None:
                return found
            request = {"NextToken": token}

    async def wait_active(self, stream: str, *, timeout_ms: int = 60_000) -> None:
        """Wait until a stream is ACTIVE.

        Raises ResourceNotFound when there is no such stream (any more), ResourceInUse when it is
        still something else than ACTIVE after `timeout_ms`. An endpoint that is asked too often
        is asked again.
        """
        deadline_ms = self._clock.monotonic_ms() + timeout_ms
        pause_ms, max_pause_ms = _POLL_MS
        while True:
            try:
                answer = await self.call("DescribeStreamSummary", {"StreamName": stream})
                status = answer.get("StreamDescriptionSummary", {}).get("StreamStatus")
            except LimitExceeded:
                status = "not described, for too many ask"
            if status == "ACTIVE":
                return
            if self._clock.monotonic_ms() >= deadline_ms:
                raise ResourceInUse(
                    f"stream {stream} is still {status} after {timeout_ms / 1000:g} s",
                    hint=f"see what {self.endpoint} is busy with",
                )
            await self._clock.sleep_ms(pause_ms)
            pause_ms = min(2 * pause_ms, max_pause_ms)

    async def ensure_stream(self, stream: str, *, shards: int | None = None) -> None:
        """Create a stream unless it exists, and wait until it is ACTIVE.

        On-demand when `shards` is None. An existing stream is left as it is, whatever its shards.
        """
        try:
            return await self.wait_active(stream)
        except ResourceNotFound:
            pass
        request: dict[str, Any] = {"StreamName": stream}
        if shards is None:
            request["StreamModeDetails"] = {"StreamMode": "ON_DEMAND"}
        else:
            request["ShardCount"] = shards
        with contextlib.suppress(ResourceInUse):  # somebody else was a moment faster
            await self.call("CreateStream", request)
        await self.wait_active(stream)

    async def _post(
        self,
        operation: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        extension: bool = False,
    ) -> bytes:
        return (await self._send(operation, body, headers, extension=extension)).body

    async def _send(
        self,
        operation: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        extension: bool = False,
    ) -> _Reply:
        target = f"{_EXTENSION if extension else _API}.{operation}"
        signed = await self._signer.headers(
            self._url,
            {"content-type": _CONTENT_TYPE, "x-amz-target": target, **(headers or {})},
            body,
        )
        # large bodies as a file: aiohttp then sends them piece by piece instead of in one go
        data = body if len(body) < MIB else io.BytesIO(body)
        try:
            async with self._opened().post(
                self._url, data=data, headers=signed, allow_redirects=False
            ) as reply:
                answer = await reply.read()
                if reply.status == 200:
                    return _Reply(answer, reply.headers)
                kind = reply.headers.get("x-amzn-errortype", "")
                raise self._error(reply.status, kind, answer)
        except TimeoutError as error:
            raise EndpointUnreachable(
                f"{self.endpoint} did not answer {operation} within {self._timeout.total:g} s",
                endpoint=self.endpoint,
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise EndpointUnreachable(
                f"{self.endpoint} cannot be reached for {operation}: "
                f"{str(error) or type(error).__name__}",
                endpoint=self.endpoint,
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
            members = _decode_members(body)
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
            message or f"{self.endpoint} answered {status} {code}".rstrip(), hint=hint
        )
        error.wire_code = code or f"HTTP {status}"
        error.wire_status = status
        return error

    def _decoded(self, operation: str, decode: Callable[[bytes], T], body: bytes) -> T:
        try:
            return decode(body)
        except (msgspec.DecodeError, ValueError) as error:
            raise self._nonsense(operation, str(error)) from error

    def _nonsense(self, operation: str, what: str) -> EndpointUnreachable:
        return EndpointUnreachable(
            f"{self.endpoint} answered {operation} with something else than its answer: {what}",
            endpoint=self.endpoint,
            hint="is this the address of a Kinesis endpoint?",
        )


_decode_members: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


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
