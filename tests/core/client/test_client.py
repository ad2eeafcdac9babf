"""StreamClient against the real server, and against endpoints that misbehave."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from client_support import read_all, through
from headrace.core.client import StreamClient
from headrace.core.errors import (
    AccessDenied,
    ConfigError,
    EndpointUnreachable,
    InternalFailure,
    InvalidArgument,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
    ServiceUnavailable,
    ThroughputExceeded,
    UnknownOperation,
    ValidationError,
)
from headrace.core.model.records import ProducerStamp, PutEntry
from headrace.core.part import StreamTarget
from headrace.core.signing import is_aws
from headrace.core.testing.faulty_proxy import (
    CUT_REPLY,
    DROP_REPLY,
    ERROR_500,
    ERROR_503,
    HANG,
    RESET,
    FaultyProxy,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """An endpoint that answers everything by `handler`."""
    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("size_bytes", [0, 1, 100, 511, 512, 5000, 1_000_000])
async def test_data_comes_back_as_it_went(
    direct: StreamClient, stream: str, size_bytes: int
) -> None:
    data = bytes(n * 7 % 256 for n in range(min(size_bytes, 997))) * (size_bytes // 997 + 1)
    entries = [
        PutEntry(data[:size_bytes], 'ключ\u2028"\\\n'),
        PutEntry(b"", "k" * 256, str(2**128 - 1)),
    ]
    results = await direct.put_records(stream, entries)
    assert [result.shard_id for result in results][1] == "shardId-000000000001"
    for entry, result in zip(entries, results, strict=True):
        assert result.shard_id is not None
        iterator = await direct.get_shard_iterator(
            stream,
            result.shard_id,
            "AT_SEQUENCE_NUMBER",
            sequence_number=result.sequence_number,
        )
        got = await direct.get_records(iterator, limit=1)
        assert (got.records[0].data, got.records[0].partition_key) == (
            entry.data,
            entry.partition_key,
        )
        assert got.records[0].sequence_number == result.sequence_number


async def test_iterators_of_every_kind(direct: StreamClient, stream: str) -> None:
    put = await direct.put_records(stream, [PutEntry(b"%d" % n, "k") for n in range(3)])
    shard_id = put[0].shard_id or ""
    oldest = await direct.get_shard_iterator(stream, shard_id, "TRIM_HORIZON")
    records = (await direct.get_records(oldest)).records
    assert [record.data for record in records] == [b"0", b"1", b"2"]
    for kind, options, expected in [
        ("AFTER_SEQUENCE_NUMBER", {"sequence_number": put[0].sequence_number}, 2),
        ("AT_TIMESTAMP", {"at_ms": records[0].approximate_arrival_ms}, 3),
        ("LATEST", {}, 0),
    ]:
        iterator = await direct.get_shard_iterator(stream, shard_id, kind, **options)  # type: ignore[arg-type]
        assert len((await direct.get_records(iterator)).records) == expected


async def test_many_shards_come_in_pages(direct: StreamClient) -> None:
    await direct.ensure_stream("wide", shards=1100)
    shards = await direct.list_shards("wide")
    assert len(shards) == 1100
    assert shards[0].hash_key_range.start == 0
    assert all(
        a.hash_key_range.is_adjacent_to(b.hash_key_range) for a, b in itertools.pairwise(shards)
    )


async def test_ensuring_a_stream_many_times_at_once(direct: StreamClient) -> None:
    await asyncio.gather(*(direct.ensure_stream("wanted", shards=3) for _ in range(5)))
    await direct.ensure_stream("wanted")
    assert len(await direct.list_shards("wanted")) == 3


async def test_errors_are_of_their_class(direct: StreamClient, stream: str) -> None:
    with pytest.raises(ResourceNotFound, match="Stream nowhere under account"):
        await direct.list_shards("nowhere")
    with pytest.raises(ResourceNotFound):
        await direct.wait_active("nowhere")
    with pytest.raises(InvalidArgument):
        await direct.get_records("nonsense")
    with pytest.raises(ValidationError):
        await direct.put_records(stream, [])
    with pytest.raises(UnknownOperation):
        await direct.call("Nonsense", {})
    with pytest.raises(UnknownOperation):
        await direct.call("Nonsense", {}, extension=True)
    with pytest.raises(ResourceInUse):
        await direct.call("CreateStream", {"StreamName": stream, "ShardCount": 1})


async def test_a_record_too_large_is_refused_by_the_service(
    direct: StreamClient, stream: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        await direct.put_records(stream, [PutEntry(bytes(11 << 20), "k")])
    assert caught.value.wire_status is not None and caught.value.wire_status < 500


async def test_ten_mebibytes_each_way(direct: StreamClient, stream: str) -> None:
    entries = [PutEntry(bytes([n]) * 1_048_575, "k") for n in range(9)]
    results = await direct.put_records(stream, entries)
    assert [result.error_code for result in results] == [None] * 9
    records = [record for records in await read_all(direct, stream) for record in records]
    assert [record.data for record in records] == [entry.data for entry in entries]


@pytest.mark.parametrize("fault", [DROP_REPLY, CUT_REPLY, RESET])
async def test_half_an_answer_is_no_answer(
    proxy: FaultyProxy, stream: str, fault: Callable[..., Awaitable[None]]
) -> None:
    async with through(proxy.endpoint) as client:
        await client.list_shards(stream)
        proxy.plan(fault, 1)  # type: ignore[arg-type]
        with pytest.raises(EndpointUnreachable) as caught:
            await client.list_shards(stream)
        assert caught.value.endpoint == proxy.endpoint
        assert len(await client.list_shards(stream)) == 2


async def test_silence_ends_with_the_timeout(proxy: FaultyProxy, stream: str) -> None:
    proxy.plan(HANG)
    async with through(proxy.endpoint, timeout_ms=200) as client:
        with pytest.raises(EndpointUnreachable, match=r"did not answer ListShards within 0\.2 s"):
            await client.list_shards(stream)


async def test_a_refused_connection_says_where(proxy: FaultyProxy) -> None:
    async with through(proxy.endpoint) as client:
        await proxy.refuse()
        with pytest.raises(EndpointUnreachable, match=proxy.endpoint):
            await client.list_shards("s")
        await proxy.accept()
        with pytest.raises(ResourceNotFound):
            await client.list_shards("nowhere")


async def test_server_errors_are_retryable(proxy: FaultyProxy, stream: str) -> None:
    async with through(proxy.endpoint) as client:
        proxy.plan(ERROR_500)
        with pytest.raises(InternalFailure) as caught:
            await client.list_shards(stream)
        assert caught.value.retryable and caught.value.wire_status == 500
        proxy.plan(ERROR_503)
        with pytest.raises(ServiceUnavailable) as page:
            await client.list_shards(stream)
        assert page.value.retryable and page.value.wire_code == "HTTP 503"


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "code"),
    [
        (400, {}, '{"__type":"com.amazonaws.kinesis#ResourceNotFoundException","message":"m"}',
         ResourceNotFound, "ResourceNotFoundException"),
        (400, {}, '{"__type":"ProvisionedThroughputExceededException","Message":"m"}',
         ThroughputExceeded, "ProvisionedThroughputExceededException"),
        (400, {"x-amzn-ErrorType": "ValidationException:http://x/"}, '{"message":"m"}',
         ValidationError, "ValidationException"),
        (400, {}, '{"__type":"KMSDisabledException","message":"m"}',
         ServiceError, "KMSDisabledException"),
        (413, {}, "too large", ServiceError, "HTTP 413"),
        (502, {}, "", InternalFailure, "HTTP 502"),
    ],
)  # fmt: skip
async def test_error_bodies_as_found_in_the_wild(
    status: int, headers: dict[str, str], body: str, kind: type[ServiceError], code: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text=body)

    async with answering(handler) as endpoint, through(endpoint) as client:
        with pytest.raises(kind) as caught:
            await client.call("ListShards", {})
        assert type(caught.value) is kind
        assert (caught.value.wire_code, caught.value.wire_status) == (code, status)


@pytest.mark.parametrize("body", ["<html>hello</html>", '{"Records":[{}]}', "[]", ""])
async def test_an_answer_that_is_none_is_not_taken_for_one(body: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=body)

    async with answering(handler) as endpoint, through(endpoint) as client:
        with pytest.raises(EndpointUnreachable, match="something else than its answer"):
            await client.put_records("s", [PutEntry(b"a", "k"), PutEntry(b"b", "k")])


async def test_requests_carry_a_signature_and_the_producer() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({"Records": [{"SequenceNumber": "1", "ShardId": "s"}]})

    async with answering(handler) as endpoint, through(endpoint) as client:
        stamp = ProducerStamp("file:1", 3, [17])
        await client.put_records("s", [PutEntry(b"a", "k")], producer=stamp)
    headers = seen[0].headers
    assert headers["x-amz-target"] == "Kinesis_20131202.PutRecords"
    assert "/us-east-1/kinesis/aws4_request" in headers["Authorization"]
    assert headers["x-headrace-producer"] == "file:1"
    assert headers["x-headrace-producer-epoch"] == "3"
    assert headers["x-headrace-producer-sequences"] == "17"


async def test_keys_that_are_needed_and_missing_are_asked_for() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(
            {"__type": "UnrecognizedClientException", "message": "The token is invalid."},
            status=400,
        )

    async with answering(handler) as endpoint, through(endpoint) as client:
        with pytest.raises(ServiceError, match="give an access key id and its secret"):
            await client.call("ListStreams", {})


def test_aws_is_told_from_what_only_looks_like_it() -> None:
    assert is_aws("https://kinesis.eu-central-1.amazonaws.com")
    assert is_aws("https://kinesis.cn-north-1.amazonaws.com.cn")
    assert not is_aws("http://127.0.0.1:4567")
    assert not is_aws("https://amazonaws.com.example.org")
    assert not is_aws("https://notamazonaws.com.")


async def test_aws_without_credentials_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    target = StreamTarget(endpoint="https://kinesis.us-east-1.amazonaws.com")
    async with StreamClient(target) as client:
        with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
            await client.list_shards("s")


@pytest.mark.parametrize("endpoint", ["", "localhost:4567", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_url_is_refused_at_once(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="http://127"):
        StreamClient(StreamTarget(endpoint=endpoint))


async def test_a_closed_client_stays_closed(direct: StreamClient) -> None:
    await direct.close()
    with pytest.raises(RuntimeError, match="closed"):
        await direct.list_shards("s")


def test_a_secret_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    target = StreamTarget(access_key_id="id", secret_access_key="hush")
    assert "hush" not in repr(target) + repr(StreamClient(target)) + caplog.text
