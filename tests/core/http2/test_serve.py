"""`headrace serve` over both protocols on one port, in the clear and over TLS."""

from __future__ import annotations

import asyncio
import base64
import http.client
import random
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.core.client import StreamClient
from headrace.core.testing.server_process import ServerProcess
from http2_support import connected, kinesis_headers

WAYS = ["clear", "tls with alpn", "tls without alpn"]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("clear") / "stream") as process:
        yield process


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tls") / "stream"
    with ServerProcess(folder, arguments=("--tls",)) as process:
        yield process


def boto3_over(server: ServerProcess) -> Any:
    """An unmodified boto3 client that trusts the server's certificate."""
    import boto3

    return boto3.client(
        "kinesis",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        verify=certificate(server),
    )


def certificate(server: ServerProcess) -> str | None:
    return server.target.certificate


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, clear: ServerProcess, tls: ServerProcess
) -> tuple[ServerProcess, dict[str, Any]]:
    """A server, and how to connect to it."""
    if request.param == "clear":
        return clear, {}
    alpn = ("h2",) if request.param == "tls with alpn" else ()
    return tls, {"cafile": certificate(tls), "alpn": alpn}


async def test_ten_mebibytes_there_and_back(way: tuple[ServerProcess, dict[str, Any]]) -> None:
    server, options = way
    async with StreamClient(server.target) as client:
        await client.ensure_stream("large", shards=1)
    data = random.Random(5).randbytes((1 << 20) - 16)
    records = [{"Data": base64.b64encode(data).decode(), "PartitionKey": "k"}] * 10
    async with connected(server.endpoint, **options) as client_2:
        if server.endpoint.startswith("https"):
            assert client_2.alpn == ("h2" if options["alpn"] else None)
        put = await client_2.call("PutRecords", {"StreamName": "large", "Records": records})
        assert put["FailedRecordCount"] == 0
        first = put["Records"][0]
        asked = {
            "StreamName": "large",
            "ShardId": first["ShardId"],
            "ShardIteratorType": "AT_SEQUENCE_NUMBER",
            "StartingSequenceNumber": first["SequenceNumber"],
        }
        iterator = (await client_2.call("GetShardIterator", asked))["ShardIterator"]
        got: list[dict[str, Any]] = []
        while len(got) < 10:  # 10 MiB an answer at most, of what the records take together
            page = await client_2.call("GetRecords", {"ShardIterator": iterator})
            got += page["Records"]
            iterator = page["NextShardIterator"]
    assert [base64.b64decode(r["Data"]) == data for r in got] == [True] * 10


async def test_two_hundred_streams_on_one_connection(
    way: tuple[ServerProcess, dict[str, Any]],
) -> None:
    server, options = way
    async with StreamClient(server.target) as client:
        await client.ensure_stream("many", shards=4)
    async with connected(server.endpoint, **options) as client_2:
        puts = [{"StreamName": "many", "PartitionKey": str(n), "Data": "QUJD"} for n in range(200)]
        answers = await asyncio.gather(*(client_2.call("PutRecord", put) for put in puts))
    assert len({answer["SequenceNumber"] for answer in answers}) == 200


async def test_both_protocols_on_one_port(clear: ServerProcess, tls: ServerProcess) -> None:
    for server in (clear, tls):
        kinesis = boto3_over(server)
        assert kinesis.list_streams()["ResponseMetadata"]["HTTPStatusCode"] == 200
        async with connected(server.endpoint, cafile=certificate(server)) as client:
            assert "StreamNames" in await client.call("ListStreams", {})
        assert kinesis.list_streams()["ResponseMetadata"]["HTTPStatusCode"] == 200
        kinesis.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_http_1_connection_is_kept(
    clear: ServerProcess, tls: ServerProcess, scheme: str
) -> None:
    server = clear if scheme == "http" else tls
    parts = urlsplit(server.endpoint)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if scheme == "http":
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
    else:
        context = ssl.create_default_context(cafile=certificate(server))
        context.set_alpn_protocols(["http/1.1"])
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context)
    connection.connect()
    socket_at_first = connection.sock
    for _ in range(5):
        connection.request("POST", "/", "{}", dict(kinesis_headers("ListStreams")))
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.version) == (200, 11)
        assert connection.sock is socket_at_first
    connection.close()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(clear: ServerProcess, tls: ServerProcess) -> None:
    if "HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout:
        pytest.skip("this curl speaks no HTTP/2")

    def version(server: ServerProcess, *options: str) -> str:
        headers = [f"-H{name}: {value}" for name, value in kinesis_headers("ListStreams")]
        said = ["-s", "-o", "-", "-w", " %{http_version} %{http_code}", "-d", "{}", "-m", "20"]
        ran = subprocess.run(
            ["curl", *said, *headers, *options, server.endpoint], capture_output=True, text=True
        )
        assert ran.returncode == 0, ran
        assert "StreamNames" in ran.stdout and ran.stdout.endswith(" 200")
        return ran.stdout.split()[-2]

    trust = ("--cacert", certificate(tls) or "")
    assert version(clear, "--http2-prior-knowledge") == "2"
    assert version(clear, "--http1.1") == "1.1"
    assert version(clear, "--http2") == "1.1"  # Upgrade: h2c is not taken up, and does no harm
    assert version(tls, *trust) == "2"
    assert version(tls, *trust, "--http1.1") == "1.1"
    assert version(tls, *trust, "--no-alpn", "--http2-prior-knowledge") == "2"


async def test_a_client_that_disappears_in_the_middle_of_a_body(
    way: tuple[ServerProcess, dict[str, Any]],
) -> None:
    server, options = way
    async with StreamClient(server.target) as client:
        await client.ensure_stream("half", shards=1)
        for _ in range(5):
            async with connected(server.endpoint, **options) as client_2:
                stream_id = client_2.open(kinesis_headers("PutRecord"))
                half = b'{"StreamName":"half","PartitionKey":"k","Data":"' + b"A" * 300_000
                await client_2.send(stream_id, half, is_last=False)
                client_2.writer.transport.abort()
        shard = (await client.list_shards("half"))[0].shard_id
        iterator = await client.get_shard_iterator("half", shard, "TRIM_HORIZON")
        assert (await client.get_records(iterator)).records == []
    assert "Traceback" not in server.log_text


async def test_a_body_that_is_too_large(clear: ServerProcess) -> None:
    async with connected(clear.endpoint) as client:
        answer = await client.request(body=b" " * (20 << 20), headers=kinesis_headers("PutRecord"))
        assert answer.status == 413
        assert "StreamNames" in await client.call("ListStreams", {})


async def test_sigterm_lets_what_is_under_way_be_answered(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "stream") as server:
        async with StreamClient(server.target) as stream_client:
            await stream_client.ensure_stream("s", shards=1)
        async with connected(server.endpoint) as client:
            record = {"StreamName": "s", "PartitionKey": "k", "Data": "QUJD"}
            await client.call("PutRecord", record)
            under_way = client.open(kinesis_headers("PutRecord"))
            await client.send(under_way, b'{"StreamName":"s",', is_last=False)
            server.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while client.goaway is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (client.goaway.error_code, client.goaway.last_stream_id) == (0, under_way)
            await client.send(under_way, b'"PartitionKey":"k","Data":"REVG"}')
            answer = await client.answer(under_way)
            assert answer.status == 200, bytes(answer.body)
        assert await asyncio.to_thread(server.wait) == 0
        server.stop()
        server.start()
        async with StreamClient(server.target) as stream_client:
            shard = (await stream_client.list_shards("s"))[0].shard_id
            iterator = await stream_client.get_shard_iterator("s", shard, "TRIM_HORIZON")
            got = (await stream_client.get_records(iterator)).records
        assert [record.data for record in got] == [b"ABC", b"DEF"]
