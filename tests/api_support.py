"""What the contract tests of the API share: raw requests, whole reads, the errors of boto3."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import cbor2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from headrace.core.model.hashing import MAX_HASH_KEY
from headrace.core.server import Server, ServerConfig
from headrace.core.testing.manual_clock import ManualClock

JSON = "application/x-amz-json-1.1"
CBOR = "application/x-amz-cbor-1.1"
ACCOUNT = "123456789012"
TOP = MAX_HASH_KEY
SIGNED = {
    "X-Amz-Date": "20261122T160000Z",
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/kinesis/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64,
}


def boto3_client(endpoint: str, *, region: str = "us-east-1", **config: Any) -> Any:
    """An unmodified boto3 client that does not retry."""
    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}, **config),
    )


def hash_range(shard: Mapping[str, Any]) -> tuple[int, int]:
    """Both ends of a described shard's hash key range."""
    both = shard["HashKeyRange"]
    return int(both["StartingHashKey"]), int(both["EndingHashKey"])


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cbor(self) -> Any:
        # AWS's timestamps are milliseconds, where CBOR's own are seconds: integers as they are
        decoder = cbor2.CBORDecoder(
            io.BytesIO(self.body), semantic_decoders={1: lambda value, immutable: value}
        )
        return decoder.decode()


class Raw:
    """Requests byte by byte as the test wants them, over one kept connection."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)

    def close(self) -> None:
        self._connection.close()

    def send(
        self,
        method: str,
        path: str = "/",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Any request, with no header but those given (and Host and Content-Length)."""
        self._connection.request(method, path, body, dict(headers or {}))
        answer = self._connection.getresponse()
        got = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, got, answer.read())

    def call(
        self,
        operation: str,
        body: object,
        *,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """A signed Kinesis request; `body` is bytes as they are, or a value to encode."""
        if not isinstance(body, bytes):
            body = cbor2.dumps(body) if content_type == CBOR else json.dumps(body).encode()
        sent = {
            **SIGNED,
            "Content-Type": content_type,
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            **(headers or {}),
        }
        return self.send("POST", "/", body, sent)


@contextmanager
def raw_to(endpoint: str) -> Iterator[Raw]:
    connection = Raw(endpoint)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def refused(code: str, message: str | None = None) -> Iterator[None]:
    """boto3 raises that code, and that message to the letter when one is given."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    if message is not None:
        assert error["Message"] == message


def reply_is(reply: Reply, code: str, message: str | None = None, *, status: int = 400) -> None:
    """The raw answer is that error; `message` None: it has none. Serialization spells it big."""
    spelling = "Message" if code == "SerializationException" else "message"
    expected = {"__type": code} if message is None else {"__type": code, spelling: message}
    assert (reply.status, reply.json) == (status, expected)


def create(kinesis: Any, name: str, shards: int = 1, **more: Any) -> str:
    """A stream with uniform shards; returns its name."""
    kinesis.create_stream(StreamName=name, ShardCount=shards, **more)
    return name


def shards_of(kinesis: Any, stream: str) -> list[dict[str, Any]]:
    """All shards as ListShards gives them."""
    return list_shards(kinesis, StreamName=stream)


def list_shards(kinesis: Any, **request: Any) -> list[dict[str, Any]]:
    """All pages of ListShards. boto3's paginator cannot do it, neither here nor on AWS."""
    found: list[dict[str, Any]] = []
    while True:
        answer = kinesis.list_shards(**request)
        found += answer["Shards"]
        if "NextToken" not in answer:
            return found
        more = {key: request[key] for key in ("MaxResults",) if key in request}
        request = {"NextToken": answer["NextToken"], **more}


def iterator(
    kinesis: Any, stream: str, shard: int | str = 0, kind: str = "TRIM_HORIZON", **more: Any
) -> str:
    shard_id = shard if isinstance(shard, str) else f"shardId-{shard:012d}"
    answer = kinesis.get_shard_iterator(
        StreamName=stream, ShardId=shard_id, ShardIteratorType=kind, **more
    )
    token: str = answer["ShardIterator"]
    return token


def read_from(kinesis: Any, token: str | None, limit: int = 10_000) -> list[dict[str, Any]]:
    """Records from an iterator to the tail, or to the end of a closed shard."""
    found: list[dict[str, Any]] = []
    while token is not None:
        answer = kinesis.get_records(ShardIterator=token, Limit=limit)
        found += answer["Records"]
        token = answer.get("NextShardIterator")
        if not answer["Records"] and answer["MillisBehindLatest"] == 0:
            break
    return found


def read_shard(kinesis: Any, stream: str, shard: int | str = 0) -> list[dict[str, Any]]:
    return read_from(kinesis, iterator(kinesis, stream, shard))


def read_stream(kinesis: Any, stream: str) -> dict[str, list[dict[str, Any]]]:
    """Shard id -> its records, of all shards in the order of their numbers."""
    return {
        shard["ShardId"]: read_shard(kinesis, stream, shard["ShardId"])
        for shard in shards_of(kinesis, stream)
    }


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@asynccontextmanager
async def server_here(
    data: Path, clock: ManualClock | None = None, **config: Any
) -> AsyncIterator[Server]:
    """A server in this event loop, for tests that own its clock or its files."""
    files, usage_store = config.pop("files", None), config.pop("usage_store", None)
    server = Server(
        ServerConfig(port=0, data=data, **config),
        clock=clock,
        files=files,
        usage_store=usage_store,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
