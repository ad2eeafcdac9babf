"""Who is let in, and AWS's words for who is not."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import errors
from headrace.core.access_key import AccessKey
from headrace.core.testing.manual_clock import ManualClock
from headrace.core.wire import sigv4
from headrace.core.wire.auth import Authenticator, Caller

NOW = "20261122T154000Z"
NOW_MS = 1_795_362_000_000
DAY = NOW[:8]
KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ACCOUNT = "210987654321"
SCOPE = f"{DAY}/eu-west-1/kinesis/aws4_request"
BODY = b'{"Limit":5}'

Headers = list[tuple[bytes, bytes]]


def keyed(clock: ManualClock | None = None) -> Authenticator:
    return Authenticator({KEY: AccessKey(SECRET, ACCOUNT)}, clock or ManualClock(NOW_MS))


def keyless() -> Authenticator:
    return Authenticator({}, ManualClock(NOW_MS))


def signed(
    *,
    secret: str = SECRET,
    credential: str = f"{KEY}/{SCOPE}",
    timestamp: str = NOW,
    body: bytes = BODY,
    names: Sequence[bytes] = (b"host", b"x-amz-date", b"x-amz-target"),
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> Headers:
    """Headers of a POST / that is signed by hand, with whatever is asked to be wrong in it."""
    headers: Headers = [
        (b"host", b"127.0.0.1:4567"),
        (b"x-amz-date", timestamp.encode()),
        (b"x-amz-target", b"Kinesis_20131202.ListStreams"),
        *extra,
    ]
    scope = credential.partition("/")[2]
    date, region, service = (*scope.split("/"), "", "", "")[:3]
    request = sigv4.canonical_request(
        method="POST",
        path=b"/",
        query=b"",
        headers=headers,
        signed_headers=names,
        payload_hash=sigv4.payload_hash(headers, body),
    )
    signature = sigv4.signature(
        signing_key=sigv4.signing_key(secret, date, region, service),
        timestamp=timestamp,
        scope=scope,
        canonical_request=request,
    )
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credential}, "
        f"SignedHeaders={b';'.join(names).decode()}, Signature={signature.decode()}"
    )
    return [*headers, (b"authorization", authorization.encode())]


def ask(
    authenticator: Authenticator, headers: Headers, *, query: bytes = b"", body: bytes = BODY
) -> Caller:
    return authenticator.authenticate("POST", b"/", query, headers, body)


def refusal(
    authenticator: Authenticator, headers: Headers, *, query: bytes = b"", body: bytes = BODY
) -> tuple[str, str]:
    with pytest.raises(errors.ServiceError) as caught:
        ask(authenticator, headers, query=query, body=body)
    assert caught.value.status == 400
    return caught.value.code, caught.value.message


def test_a_good_signature_names_account_region_and_key() -> None:
    assert ask(keyed(), signed()) == Caller(ACCOUNT, "eu-west-1", KEY)


def test_without_keys_any_whole_signature_passes_and_its_scope_names_the_region() -> None:
    headers = signed(secret="whatever", credential=f"test/{SCOPE}", timestamp="20200101T000000Z")
    assert ask(keyless(), headers, body=b"changed") == Caller("123456789012", "eu-west-1", "test")


@pytest.mark.parametrize("make", [keyed, keyless])
def test_wire_32_no_authentication(make: Callable[[], Authenticator]) -> None:
    assert refusal(make(), []) == (
        "MissingAuthenticationTokenException",
        "Missing Authentication Token",
    )
    query = b"X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-SignedHeaders=c&X-Amz-Date=d"
    assert refusal(make(), [], query=query)[0] == "MissingAuthenticationTokenException"


NO_CREDENTIAL = "Authorization header requires 'Credential' parameter. "
NO_SIGNATURE = "Authorization header requires 'Signature' parameter. "
NO_HEADERS = "Authorization header requires 'SignedHeaders' parameter. "
NO_DATE = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "


@pytest.mark.parametrize("make", [keyed, keyless])
@pytest.mark.parametrize(
    ("authorization", "date", "missing"),
    [
        ("X", None, NO_CREDENTIAL + NO_SIGNATURE + NO_HEADERS + NO_DATE),
        ("", None, NO_CREDENTIAL + NO_SIGNATURE + NO_HEADERS + NO_DATE),
        ("Bearer abc", "a", NO_CREDENTIAL + NO_SIGNATURE + NO_HEADERS),
        ("AWS4- Signature=b Credential=a", "a", NO_HEADERS),
        ("AWS4- Signature=b,Credential=a", "a", NO_HEADERS),
        ("AWS4- Signature=b, Credential=a", "a", NO_HEADERS),
        ("AWS4-HMAC-SHA256 Credential=, SignedHeaders=host, Signature=a", "a", NO_CREDENTIAL),
        (f"AWS4-HMAC-SHA256 Credential={KEY}/{SCOPE}, SignedHeaders=host, Signature=a", None,
         NO_DATE),
    ],
)  # fmt: skip
def test_wire_32_every_missing_part_is_listed(
    make: Callable[[], Authenticator], authorization: str, date: str | None, missing: str
) -> None:
    headers = [(b"authorization", authorization.encode())]
    if date is not None:
        headers.append((b"date", date.encode()))
    expected = f"{missing}Authorization={authorization}"
    assert refusal(make(), headers) == ("IncompleteSignatureException", expected)


@pytest.mark.parametrize("make", [keyed, keyless])
def test_wire_32_every_missing_query_parameter_is_listed(make: Callable[[], Authenticator]) -> None:
    code, told = refusal(make(), [], query=b"X-Amz-Algorithm")
    assert code == "IncompleteSignatureException"
    assert told == (
        "AWS query-string parameters must include 'X-Amz-Algorithm'. "
        "AWS query-string parameters must include 'X-Amz-Credential'. "
        "AWS query-string parameters must include 'X-Amz-Signature'. "
        "AWS query-string parameters must include 'X-Amz-SignedHeaders'. "
        "AWS query-string parameters must include 'X-Amz-Date'. "
        "Re-examine the query-string parameters."
    )
    query = b"X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Signature=c&X-Amz-Date=d"
    assert refusal(make(), [], query=query)[1] == (
        "AWS query-string parameters must include 'X-Amz-SignedHeaders'. "
        "Re-examine the query-string parameters."
    )


@pytest.mark.parametrize("make", [keyed, keyless])
def test_wire_32_a_signature_in_both_places(make: Callable[[], Authenticator]) -> None:
    assert refusal(make(), signed(), query=b"X-Amz-Algorithm=AWS4-HMAC-SHA256") == (
        "InvalidSignatureException",
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    )


MISMATCH = (
    "InvalidSignatureException",
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details.",
)


def test_a_wrong_secret() -> None:
    assert refusal(keyed(), signed(secret="other")) == MISMATCH


def test_a_changed_body() -> None:
    assert refusal(keyed(), signed(), body=b"{}") == MISMATCH


def test_a_changed_query() -> None:
    assert refusal(keyed(), signed(), query=b"a=1") == MISMATCH


def test_a_changed_signed_header() -> None:
    headers = [
        (name, b"Kinesis_20131202.DeleteStream" if name == b"x-amz-target" else value)
        for name, value in signed()
    ]
    assert refusal(keyed(), headers) == MISMATCH


def test_a_signed_header_sent_twice() -> None:
    headers = [(b"x-amz-target", b"Kinesis_20131202.DeleteStream"), *signed()]
    assert refusal(keyed(), headers) == MISMATCH


def test_a_hash_that_is_claimed_is_not_believed() -> None:
    claimed = (b"x-amz-content-sha256", sigv4.payload_hash([], BODY))
    headers = signed(extra=[claimed])
    assert ask(keyed(), headers).key_id == KEY
    assert refusal(keyed(), headers, body=b"changed") == MISMATCH


def test_an_unsigned_payload_is_left_out_of_the_signature() -> None:
    headers = signed(extra=[(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")])
    assert ask(keyed(), headers, body=b"anything").key_id == KEY
    kept = [header for header in headers if header[0] != b"x-amz-content-sha256"]
    assert refusal(keyed(), kept, body=BODY) == MISMATCH


def test_an_unknown_key() -> None:
    assert refusal(keyed(), signed(credential=f"AKIDOTHER/{SCOPE}")) == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )


def test_a_clock_that_is_16_minutes_slow() -> None:
    assert refusal(keyed(), signed(timestamp=f"{DAY}T152359Z")) == (
        "InvalidSignatureException",
        f"Signature expired: {DAY}T152359Z is now earlier than {DAY}T152500Z "
        f"({DAY}T154000Z - 15 min.)",
    )


def test_a_clock_that_is_16_minutes_fast() -> None:
    assert refusal(keyed(), signed(timestamp=f"{DAY}T155601Z")) == (
        "InvalidSignatureException",
        f"Signature not yet current: {DAY}T155601Z is still later than {DAY}T155500Z "
        f"({DAY}T154000Z + 15 min.)",
    )


@pytest.mark.parametrize("timestamp", [f"{DAY}T152500Z", f"{DAY}T155500Z"])
def test_fifteen_minutes_either_way_are_forgiven(timestamp: str) -> None:
    assert ask(keyed(), signed(timestamp=timestamp)).key_id == KEY


def test_a_signature_expires_while_the_clock_moves() -> None:
    clock = ManualClock(NOW_MS)
    authenticator = keyed(clock)
    headers = signed()
    ask(authenticator, headers)
    asyncio.run(clock.advance(15 * 60_000))
    ask(authenticator, headers)
    asyncio.run(clock.advance(1000))
    assert refusal(authenticator, headers)[1].startswith("Signature expired: ")


@pytest.mark.parametrize("timestamp", ["201", f"{DAY}T250000Z", f"{DAY}T15400Z", "2026-11-22"])
def test_a_date_of_another_form(timestamp: str) -> None:
    headers = [
        (name, timestamp.encode() if name == b"x-amz-date" else value) for name, value in signed()
    ]
    assert refusal(keyed(), headers) == (
        "IncompleteSignatureException",
        f"Date must be in ISO-8601 'basic format'. Got '{timestamp}'. "
        "See http://en.wikipedia.org/wiki/ISO_8601",
    )


def test_a_signature_that_leaves_the_host_out() -> None:
    assert refusal(keyed(), signed(names=[b"x-amz-date"])) == (
        "InvalidSignatureException",
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
    )


@pytest.mark.parametrize("make", [keyed, keyless])
def test_another_algorithm(make: Callable[[], Authenticator]) -> None:
    headers = [
        (name, value.replace(b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA25")) for name, value in signed()
    ]
    assert refusal(make(), headers) == (
        "IncompleteSignatureException",
        "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA25' (only AWS4-HMAC-SHA256 for now). ",
    )


@pytest.mark.parametrize("make", [keyed, keyless])
def test_a_credential_of_another_form(make: Callable[[], Authenticator]) -> None:
    assert refusal(make(), signed(credential="a/b/c/d")) == (
        "IncompleteSignatureException",
        "Credential must have exactly 5 slash-delimited elements, e.g. "
        "keyid/date/region/service/term, got 'a/b/c/d'",
    )


def test_everything_wrong_in_a_scope_is_listed() -> None:
    assert refusal(keyed(), signed(credential=f"{KEY}/b/C!/d/e")) == (
        "InvalidSignatureException",
        "Credential should be scoped to a valid region, not 'C!'. "
        "Credential should be scoped to correct service: 'kinesis'. "
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'e'. "
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
        f"HTTP: 'b' != '{DAY}', from '{NOW}'.",
    )


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        (f"{DAY}//kinesis/aws4_request", "Credential should be scoped to a valid region, not ''."),
        (
            f"{DAY}/eu-west-1/kinesis/aws5",
            "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws5'.",
        ),
    ],
)
def test_without_keys_a_scope_still_has_its_form(scope: str, told: str) -> None:
    assert refusal(keyless(), signed(credential=f"test/{scope}"))[1] == told


def test_other_protocols_of_a_server_have_their_own_service() -> None:
    headers = signed(credential=f"{KEY}/{DAY}/eu-west-1/firehose/aws4_request")
    assert "correct service: 'kinesis'" in refusal(keyed(), headers)[1]
    both = Authenticator(
        {KEY: AccessKey(SECRET)}, ManualClock(NOW_MS), services=("kinesis", "firehose")
    )
    assert ask(both, headers).account == "123456789012"


def test_a_secret_is_not_printed() -> None:
    assert SECRET not in repr(AccessKey(SECRET))


@settings(max_examples=500, deadline=None)
@given(
    authorization=st.text(st.characters(max_codepoint=255), max_size=60)
    | st.from_regex(r"AWS4-HMAC-SHA256 Credential=[^ ]{0,40}, SignedHeaders=host, Signature=.{1,5}")
    | st.none(),
    date=st.text(st.characters(max_codepoint=255), max_size=40)
    | st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ [+-]?\w+", fullmatch=True),
    query=st.binary(max_size=60)
    | st.just(b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/d/e&X-Amz-Date=x"),
)
def test_garbage_is_refused_in_words(authorization: str | None, date: str, query: bytes) -> None:
    headers: Headers = [(b"date", date.encode("latin-1", "replace"))]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode("latin-1", "replace")))
    with pytest.raises(errors.ServiceError) as caught:
        ask(keyed(), headers, query=query)
    assert caught.value.message
