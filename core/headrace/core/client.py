"""StreamClient: the Kinesis API over one connection pool, against Headrace or AWS.

Owns what a request and its answer look like; how they travel is `endpoint`'s. Sends every request
once: what to do about a failure is the caller's to know (`producer` and `consumer` know it).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from headrace.core.clock import Clock, SystemClock
from headrace.core.endpoint import Endpoint
from headrace.core.errors import LimitExceeded, ResourceInUse, ResourceNotFound
from headrace.core.limits import MAX_RECORDS_PER_GET
from headrace.core.model.records import ProducerStamp, PutEntry, PutResult
from headrace.core.model.shards import ShardInfo
from headrace.core.part import StreamTarget
from headrace.core.shapes import (
    GetResult,
    decode_get,
    decode_members,
    decode_put,
    decode_shards,
    encode_put,
)
from headrace.core.signing import is_aws

__all__ = ["GetResult", "StreamClient"]

_EXPIRED_HEADER = "x-headrace-records-expired"
_POLL_MS = (20, 500)

T = TypeVar("T")


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
        self._endpoint = Endpoint(target, timeout_ms=timeout_ms, max_connections=max_connections)
        self._clock = clock or SystemClock()

    @property
    def endpoint(self) -> str:
        return self._endpoint.url

    @property
    def is_headrace(self) -> bool:
        """Whether Headrace's additions to the API may be there: not on AWS, which knows none."""
        return not is_aws(self._endpoint.url)

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
        await self._endpoint.close()

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
        answer = await self._endpoint.send(operation, body, headers, extension=extension)
        return self._decoded(operation, decode_members, answer.body) if answer.body else {}

    async def put_records(
        self, stream: str, entries: Sequence[PutEntry], *, producer: ProducerStamp | None = None
    ) -> list[PutResult]:
        """One PutRecords of 1..500 entries; one result per entry, refused ones among them."""
        headers = producer.headers() if producer and self.is_headrace else None
        answer = await self._endpoint.send("PutRecords", encode_put(stream, entries), headers)
        results = self._decoded("PutRecords", decode_put, answer.body)
        if len(results) != len(entries):
            raise self._endpoint.nonsense(
                "PutRecords", f"{len(results)} results for {len(entries)} records"
            )
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
            raise self._endpoint.nonsense("GetShardIterator", "no ShardIterator in the answer")
        return iterator

    async def get_records(self, iterator: str, *, limit: int = MAX_RECORDS_PER_GET) -> GetResult:
        """Up to `limit` (1..10,000) records and 10 MiB from where an iterator points."""
        answer = await self._endpoint.send(
            "GetRecords", msgspec.json.encode({"ShardIterator": iterator, "Limit": limit})
        )
        result = self._decoded("GetRecords", decode_get, answer.body)
        result.has_missed = _EXPIRED_HEADER in answer.headers
        return result

    async def list_shards(self, stream: str) -> list[ShardInfo]:
        """All shards of a stream, closed ones too, for as long as they hold records.

        None while it is CREATING or DELETING.
        """
        found: list[ShardInfo] = []
        request: dict[str, Any] = {"StreamName": stream}
        while True:
            try:
                answer = await self._endpoint.send("ListShards", msgspec.json.encode(request))
            except ResourceInUse:
                return []
            page, token = self._decoded("ListShards", decode_shards, answer.body)
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

    def _decoded(self, operation: str, decode: Callable[[bytes], T], body: bytes) -> T:
        try:
            return decode(body)
        except (msgspec.DecodeError, ValueError) as error:
            raise self._endpoint.nonsense(operation, str(error)) from error
