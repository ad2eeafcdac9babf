"""Web pages: who may use a server with keys, and who one without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_support import CBOR, JSON, SIGNED, Raw, boto3_client, create, raw_to, read_shard
from headrace.core.testing.server_process import ServerProcess
from headrace.core.wire.cors import Cors, check_origin

ELSEWHERE = "https://example.com"
MANAGEMENT = ["/healthz", "/usage", "/nothing"]
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-amz-target,authorization",
}


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raw]:
    """A server with a key."""
    data = tmp_path_factory.mktemp("keys") / "stream"
    with (
        ServerProcess(data, env={"HEADRACE_KEYS": "AKID:secret"}) as server,
        raw_to(server.endpoint) as connection,
    ):
        yield connection


def allowed(cors: Cors, origin: str) -> str | None:
    """The origin an answer names; None when the page is refused."""
    headers = cors.headers(origin.encode("latin-1"))
    return None if headers is None else dict(headers)[b"access-control-allow-origin"].decode()


# With keys: as AWS


def test_wire_33_a_preflight(with_keys: Raw) -> None:
    reply = with_keys.send("OPTIONS", "/", None, {"Origin": ELSEWHERE, **PREFLIGHT})
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["access-control-allow-methods"] == "POST"
    assert reply.headers["access-control-allow-headers"] == "x-amz-target,authorization"
    assert reply.headers["access-control-max-age"] == "172800"
    assert "x-amzn-requestid" in reply.headers


@pytest.mark.parametrize("operation", ["ListStreams", "Nothing"])
def test_wire_33_answers_to_a_page(with_keys: Raw, operation: str) -> None:
    reply = with_keys.call(operation, {}, headers={"Origin": ELSEWHERE})
    assert reply.headers["access-control-allow-origin"] == "*"
    exposed = reply.headers["access-control-expose-headers"].lower().split(",")
    assert {"x-amzn-requestid", "x-amz-id-2"} <= set(exposed)


def test_with_keys_a_get_is_answered_for_any_host(with_keys: Raw) -> None:
    headers = {"Host": "streams.example.com", "Origin": ELSEWHERE}
    assert with_keys.send("GET", "/healthz", None, headers).status == 200


@pytest.mark.parametrize("path", MANAGEMENT)
def test_a_page_reads_what_is_beside_the_api_too(with_keys: Raw, path: str) -> None:
    """Also why it is refused: /usage wants a signature, there is no /nothing."""
    reply = with_keys.send("GET", path, None, {"Origin": ELSEWHERE})
    assert reply.status == {"/healthz": 200, "/usage": 400, "/nothing": 403}[path]
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "x-amzn-requestid" in reply.headers["access-control-expose-headers"].lower()
    asked = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,x-amz-date",
    }
    reply = with_keys.send("OPTIONS", path, None, {"Origin": ELSEWHERE, **asked})
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["access-control-allow-methods"] == "GET"
    assert reply.headers["access-control-allow-headers"] == "authorization,x-amz-date"
    assert reply.headers["access-control-max-age"] == "172800"


def test_programs_get_no_headers_for_pages(with_keys: Raw) -> None:
    for path in MANAGEMENT:
        reply = with_keys.send("GET", path)
        assert not [name for name in reply.headers if name.startswith("access-control")]
    # without an origin it is no preflight, but a method that there is not
    assert with_keys.send("OPTIONS", "/usage").status == 403


# Without keys: this machine's pages


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"]
)
def test_a_page_of_this_machine(raw: Raw, origin: str) -> None:
    for reply in (
        raw.send("OPTIONS", "/", None, {"Origin": origin, **PREFLIGHT}),
        raw.call("ListStreams", {}, headers={"Origin": origin}),
        raw.send("GET", "/healthz", None, {"Origin": origin}),
    ):
        assert reply.status == 200
    for reply in (
        raw.call("ListStreams", {}, headers={"Origin": origin}),
        raw.send("GET", "/healthz", None, {"Origin": origin}),
        raw.send("GET", "/usage", None, {"Origin": origin}),
    ):
        assert reply.headers["access-control-allow-origin"] == origin
        assert reply.headers["vary"] == "Origin"
        assert "x-amzn-requestid" in reply.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize(
    "origin",
    [ELSEWHERE, "null", "http://localhost.example.com", "http://127.0.0.1.example.com", "http://"],
)
def test_a_page_elsewhere_is_refused_and_nothing_done(
    kinesis: Any, server: ServerProcess, raw: Raw, name: str, origin: str
) -> None:
    create(kinesis, name)
    put = {"StreamName": name, "Data": "eA==", "PartitionKey": "k"}
    for reply in (
        raw.send("OPTIONS", "/", None, {"Origin": origin, **PREFLIGHT}),
        raw.call("PutRecord", put, headers={"Origin": origin}),
        raw.send("OPTIONS", "/usage", None, {"Origin": origin, **PREFLIGHT}),
        raw.send("GET", "/usage", None, {"Origin": origin}),
        raw.send("GET", "/healthz", None, {"Origin": origin}),
    ):
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers
        assert b"--cors-origin" in reply.body
    assert read_shard(kinesis, name) == []
    assert server.log_text.count(f"Pages of '{origin}' may not") == 1  # once, not per request


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_post_that_a_browser_sends_without_asking_does_nothing(
    kinesis: Any, raw: Raw, name: str, content_type: str
) -> None:
    """Also from a page that may use the server: that one asks first, as all SDKs do."""
    create(kinesis, name)
    body = f'{{"StreamName":"{name}","Data":"eA==","PartitionKey":"k"}}'.encode()
    for origin in (ELSEWHERE, "http://localhost:3000"):
        headers = {**SIGNED, "Content-Type": content_type, "Origin": origin}
        headers["X-Amz-Target"] = "Kinesis_20131202.PutRecord"
        assert raw.send("POST", "/", body, headers).status == 403
    assert read_shard(kinesis, name) == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:4567", 200),
        ("127.0.0.1:4567", 200),
        ("[::1]", 200),
        ("192.168.1.7", 200),
        ("headrace:4567", 200),  # what a container network calls it
        ("attacker.example.com:4567", 403),
        ("attacker.example.com.", 403),
        ("127.0.0.1.example.com", 403),
        ("a b", 403),
    ],
)
def test_a_name_that_was_turned_to_point_here_reads_nothing(
    raw: Raw, host: str, status: int
) -> None:
    """DNS rebinding: a GET to its own origin is the one request of a page without an Origin."""
    assert raw.send("GET", "/healthz", None, {"Host": host}).status == status


@pytest.mark.parametrize("content_type", [JSON, CBOR])
def test_programs_call_by_any_name(raw: Raw, content_type: str) -> None:
    headers = {"Host": "kinesis.compose.internal.example.com"}
    # no such route, but that is all that is wrong with it
    assert b"Unable to determine" in raw.send("POST", "/x", b"", headers).body
    assert raw.call("ListStreams", {}, content_type=content_type, headers=headers).status == 200


# Named origins


def test_a_named_origin_and_no_other(tmp_path: Path) -> None:
    arguments = ("--cors-origin", "https://App.example.com:443")
    with (
        ServerProcess(tmp_path / "stream", arguments=arguments) as server,
        raw_to(server.endpoint) as raw,
    ):
        reply = raw.call("ListStreams", {}, headers={"Origin": "https://app.example.com"})
        assert reply.headers["access-control-allow-origin"] == "https://app.example.com"
        assert raw.call("ListStreams", {}, headers={"Origin": ELSEWHERE}).status == 403
        for path in ("/healthz", "/usage"):
            reply = raw.send("GET", path, None, {"Origin": "https://app.example.com"})
            assert reply.status == 200
            assert reply.headers["access-control-allow-origin"] == "https://app.example.com"
        assert raw.send("GET", "/healthz", None, {"Host": "app.example.com"}).status == 200
        assert boto3_client(server.endpoint).list_streams()["StreamNames"] == []


def test_what_is_taken_by_what_was_named() -> None:
    local, port = "http://localhost:1", "https://a.example.com:8443"
    named = [check_origin("https://a.example.com"), check_origin(port)]
    for has_keys in (False, True):
        cors = Cors(named, has_keys=has_keys)
        assert allowed(cors, "https://a.example.com") == "https://a.example.com"
        assert allowed(cors, port) == port
        for other in (ELSEWHERE, "http://a.example.com", "https://a.example.com:1", "null"):
            assert allowed(cors, other) is None
        assert allowed(cors, local) == (None if has_keys else local)
        assert allowed(Cors(["*"], has_keys=has_keys), ELSEWHERE) == "*"
    assert Cors(["*"], has_keys=False).takes_host(b"a.example.com")


@pytest.mark.parametrize("text", ["example.com", "https://a/b", "ftp://a", "https://*", "", "null"])
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="an origin such as"):
        check_origin(text)
