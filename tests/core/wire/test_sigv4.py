"""The signature against botocore's own signers, and against real boto3 over a socket."""

import datetime
import http.server
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.access_key import AccessKey
from headrace.core.clock import SystemClock
from headrace.core.errors import InvalidSignature, ServiceError
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.wire.auth import Authenticator, Caller
from headrace.core.wire.codec import JSON, encode_error, encode_response

KEY, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1"
CALLER = Caller("123456789012", REGION, KEY)
SIGNED = datetime.datetime(2026, 11, 22, 15, 40, 7, tzinfo=datetime.UTC)
NOW_MS = int(SIGNED.timestamp() * 1000)

names = st.from_regex(r"x-[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: not name.startswith("x-amz") and name != "x-amzn-trace-id"
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\t"), max_size=30)
headers = st.lists(st.tuples(names, values), max_size=6)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
paths = st.lists(any_text | st.sampled_from(["", ".", "..", "a b", "~", "%2F"]), max_size=5).map(
    lambda parts: "/" + "/".join(quote(part, safe="~.") for part in parts)
)
queries = st.lists(st.tuples(any_text.filter(bool), any_text), max_size=5).map(
    lambda pairs: "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
)
secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def sign(signer: Any, request: AWSRequest) -> AWSRequest:
    """Sign as of `SIGNED`, not of now."""
    before = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda: SIGNED
    try:
        signer.add_auth(request)
    finally:
        botocore.auth.get_current_datetime = before
    return request


def received(request: AWSRequest, body: bytes) -> tuple[str, bytes, bytes, list[Any], bytes]:
    """What a server gets of a request, in the form ASGI hands it over."""
    url = urlsplit(request.url)
    pairs = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    if not any(name == b"host" for name, _ in pairs):
        pairs.append((b"host", url.netloc.encode()))
    return request.method, url.path.encode(), url.query.encode(), pairs, body


def authenticator(secret: str = SECRET) -> Authenticator:
    return Authenticator({KEY: AccessKey(secret)}, ManualClock(NOW_MS))


def request_of(
    path: str, query: str, extra: list[tuple[str, str]], body: bytes, *, scheme: str = "http"
) -> AWSRequest:
    url = f"{scheme}://127.0.0.1:4567{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method="POST", url=url, data=body)
    for name, value in extra:
        request.headers.add_header(name, value)
    return request


@settings(max_examples=400, deadline=None)
@given(paths, queries, headers, st.binary(max_size=100), secrets, st.booleans())
def test_what_botocore_signs_is_verified(
    path: str,
    query: str,
    extra: list[tuple[str, str]],
    body: bytes,
    secret: str,
    with_date_header: bool,
) -> None:
    request = request_of(path, query, extra, body)
    if with_date_header:
        request.headers["Date"] = "now"  # the signer then writes a Date instead of X-Amz-Date
    sign(botocore.auth.SigV4Auth(Credentials(KEY, secret), "kinesis", REGION), request)
    assert authenticator(secret).authenticate(*received(request, body)) == CALLER
    with pytest.raises(InvalidSignature):
        authenticator(secret + "x").authenticate(*received(request, body))
    with pytest.raises(InvalidSignature):
        authenticator(secret).authenticate(*received(request, body + b"x"))


@settings(max_examples=200, deadline=None)
@given(paths, headers, secrets, st.integers(1, 604_800), st.none() | st.just("token/+="))
def test_what_botocore_signs_in_the_query_is_verified_until_it_expires(
    path: str, extra: list[tuple[str, str]], secret: str, expires_s: int, token: str | None
) -> None:
    request = request_of(path, "Action=a%20b&empty=", extra, b"")
    credentials = Credentials(KEY, secret, token)
    sign(botocore.auth.SigV4QueryAuth(credentials, "kinesis", REGION, expires_s), request)
    asked = received(request, b"")
    keys = {KEY: AccessKey(secret)}
    last_ms = NOW_MS // 1000 * 1000 + expires_s * 1000
    assert Authenticator(keys, ManualClock(last_ms)).authenticate(*asked) == CALLER
    with pytest.raises(InvalidSignature, match="Signature expired"):
        Authenticator(keys, ManualClock(last_ms + 1000)).authenticate(*asked)
    with pytest.raises(InvalidSignature):
        Authenticator({KEY: AccessKey(secret + "x")}, ManualClock(NOW_MS)).authenticate(*asked)


def test_botocore_with_an_unsigned_payload_is_verified() -> None:
    request = request_of("/", "", [], b"body", scheme="https")
    request.context["payload_signing_enabled"] = False
    sign(botocore.auth.SigV4Auth(Credentials(KEY, SECRET), "kinesis", REGION), request)
    assert request.headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    assert authenticator().authenticate(*received(request, b"other")) == CALLER


@pytest.mark.parametrize(
    ("expires", "told"), [("soon", "should be a number"), ("604801", "less than a week")]
)
def test_a_term_must_be_a_number_of_at_most_a_week(expires: str, told: str) -> None:
    request = request_of("/", "", [], b"")
    signer = botocore.auth.SigV4QueryAuth(Credentials(KEY, SECRET), "kinesis", REGION, expires)
    with pytest.raises(ServiceError, match=told):
        authenticator().authenticate(*received(sign(signer, request), b""))


class _Endpoint(http.server.BaseHTTPRequestHandler):
    """Authenticates what it gets and answers as ListStreams would."""

    protocol_version = "HTTP/1.1"
    authenticator: Authenticator

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        path, _, query = self.path.partition("?")
        pairs = [(k.lower().encode(), v.encode("latin-1")) for k, v in self.headers.items()]
        answer = {"StreamNames": [], "HasMoreStreams": False}
        try:
            caller = self.authenticator.authenticate(
                "POST", path.encode(), query.encode(), pairs, body
            )
            answer["StreamNames"] = [caller.account, caller.region, caller.key_id]
            status, out = 200, encode_response("ListStreams", answer, JSON)
        except ServiceError as error:
            status, _, out = encode_error(error, JSON)
        self.send_response(status)
        self.send_header("content-type", JSON)
        self.send_header("content-length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    class Endpoint(_Endpoint):
        authenticator = Authenticator({KEY: AccessKey(SECRET, "210987654321")}, SystemClock())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def list_streams(endpoint: str, key: str, secret: str) -> Any:
    client = boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token="a/token+=",
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        return client.list_streams(Limit=5)["StreamNames"]
    finally:
        client.close()


def test_boto3_is_let_in(endpoint: str) -> None:
    assert list_streams(endpoint, KEY, SECRET) == ["210987654321", REGION, KEY]


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [
        (KEY, "wrong", "InvalidSignatureException"),
        ("AKIDOTHER", SECRET, "UnrecognizedClientException"),
    ],
)
def test_boto3_is_told_why_it_is_not(endpoint: str, key: str, secret: str, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        list_streams(endpoint, key, secret)
    assert caught.value.response["Error"]["Code"] == code
