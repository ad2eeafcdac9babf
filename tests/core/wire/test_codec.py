"""Bodies both ways: round trips by shape, and that no bytes whatever do harm."""

import base64
import time
import tracemalloc
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import errors
from headrace.core.wire.codec import (
    CBOR,
    JSON,
    MAX_DEPTH,
    MAX_VALUES,
    decode,
    decode_cbor,
    decode_json,
    encode_error,
    encode_plain,
    encode_response,
    encode_shape,
    media_type,
)
from headrace.core.wire.conversion import EpochMs
from headrace.core.wire.service_model import Shape, service_model

OUTPUTS = {name: op.output for name, op in service_model().operations.items() if op.output}
RECORD = {
    "SequenceNumber": "49",
    "ApproximateArrivalTimestamp": 1_700_000_000_123,
    "Data": b"\x00\xff",
    "PartitionKey": "k",
    "EncryptionType": None,
}
ANSWER = {"Records": [RECORD], "NextShardIterator": None, "MillisBehindLatest": 0}
NAN = float("nan")


# Answers


def test_wire_34_json_answers_carry_base64_seconds_and_no_nulls() -> None:
    assert encode_response("GetRecords", ANSWER, JSON) == (
        b'{"Records":[{"SequenceNumber":"49","ApproximateArrivalTimestamp":1700000000.123,'
        b'"Data":"AP8=","PartitionKey":"k"}],"MillisBehindLatest":0}'
    )


def test_cbor_answers_carry_byte_strings_and_integer_milliseconds_under_tag_1() -> None:
    body = encode_response("GetRecords", ANSWER, CBOR)
    # c1: tag 1; 1b: an eight-byte unsigned integer
    assert bytes.fromhex("c11b0000018bcfe5687b") in body
    assert decode_cbor(body)["Records"][0] == {
        "SequenceNumber": "49",
        "ApproximateArrivalTimestamp": 1_700_000_000_123,
        "Data": b"\x00\xff",
        "PartitionKey": "k",
    }


@pytest.mark.parametrize("content_type", [JSON, CBOR])
def test_an_operation_without_output_answers_an_empty_body(content_type: str) -> None:
    assert encode_response("DeleteStream", None, content_type) == b""


def test_a_member_the_model_has_not_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="GetRecordsOutput has no member 'Recods'"):
        encode_response("GetRecords", {"Recods": []}, JSON)


def test_an_event_of_a_subscription_is_encoded_by_its_shape() -> None:
    shape = service_model().shapes["SubscribeToShardEvent"]
    body = encode_shape(shape, {"Records": [RECORD], "MillisBehindLatest": 0}, JSON)
    assert b'"ApproximateArrivalTimestamp":1700000000.123' in body


def test_answers_outside_the_model_go_by_their_python_types() -> None:
    value = {"Leases": [{"State": b"\x01", "Owner": None}], "Next": None}
    assert encode_plain(value, JSON) == b'{"Leases":[{"State":"AQ=="}]}'
    assert decode_cbor(encode_plain(value, CBOR)) == {"Leases": [{"State": b"\x01"}]}
    with pytest.raises(errors.UnknownOperation):
        encode_response("ListLeases", value, JSON)


def answers(shape: Shape) -> st.SearchStrategy[Any]:
    """Any value of a shape, bounds and patterns aside."""
    if shape.kind == "structure":
        members = {m.wire_name: st.none() | answers(m.shape) for m in shape.members}
        return st.fixed_dictionaries({}, optional=members)
    if shape.kind == "list":
        assert shape.element is not None
        return st.lists(answers(shape.element), max_size=3)
    if shape.kind == "map":
        assert shape.element is not None
        return st.dictionaries(st.text(max_size=5), answers(shape.element), max_size=3)
    if shape.kind == "blob":
        return st.binary(max_size=20)
    if shape.kind == "boolean":
        return st.booleans()
    if shape.kind == "timestamp":
        return st.integers(10**11, 4 * 10**12)
    if shape.kind in ("integer", "long"):
        return st.integers(-(2**53), 2**53)
    return st.text(max_size=10)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def from_json(shape: Shape, value: Any) -> Any:
    """What a client makes of a JSON answer."""
    if shape.kind == "structure":
        shapes = {member.wire_name: member.shape for member in shape.members}
        return {name: from_json(shapes[name], item) for name, item in value.items()}
    if shape.kind == "list" and shape.element is not None:
        return [from_json(shape.element, item) for item in value]
    if shape.kind == "timestamp":
        assert isinstance(value, float)
        return round(value * 1000)
    return base64.b64decode(value) if shape.kind == "blob" else value


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(OUTPUTS)), st.data())
def test_answers_come_back_as_they_went_out(operation: str, data: st.DataObject) -> None:
    shape = OUTPUTS[operation]
    answer = data.draw(answers(shape))
    expected = without_nulls(answer)
    assert decode_cbor(encode_response(operation, answer, CBOR)) == expected
    assert from_json(shape, decode_json(encode_response(operation, answer, JSON))) == expected


# Errors


def test_wire_1_an_error_carries_type_and_message_in_json_and_cbor() -> None:
    error = errors.ResourceNotFound("Stream s under account 123456789012 not found.")
    expected = {"__type": "ResourceNotFoundException", "message": error.message}
    for content_type in (JSON, CBOR):
        status, headers, body = encode_error(error, content_type)
        assert status == 400
        assert decode(body, content_type) == expected
        assert dict(headers) == {
            b"content-type": content_type.encode(),
            b"content-length": str(len(body)).encode(),
        }


def test_wire_29_a_serialization_error_spells_its_message_with_a_capital() -> None:
    _, _, body = encode_error(errors.Serialization("Expected list or null"), JSON)
    assert decode_json(body) == {
        "__type": "SerializationException",
        "Message": "Expected list or null",
    }


@pytest.mark.parametrize("content_type", [JSON, CBOR])
@pytest.mark.parametrize("error", [errors.UnknownOperation(""), errors.Serialization("")])
def test_wire_30_no_message_is_no_member(error: errors.ServiceError, content_type: str) -> None:
    _, _, body = encode_error(error, content_type)
    assert decode(body, content_type) == {"__type": error.code}


def test_a_hint_is_for_the_log_and_stays_here() -> None:
    error = errors.InternalFailure("disk", hint="look at /secret/place")
    status, _, body = encode_error(error, JSON)
    assert status == 500
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            errors.AccessDenied("Unable to determine service/operation name to be authorized"),
            403,
            b"<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be "
            b"authorized</Message>\n</AccessDeniedException>\n",
        ),
        (errors.UnknownOperation(""), 404, b"<UnknownOperationException/>\n"),
        (errors.InternalFailure(""), 500, b"<InternalFailure/>\n"),
        (
            errors.AccessDenied("a < b & c"),
            403,
            b"<AccessDeniedException>\n  <Message>a &lt; b &amp; c</Message>\n"
            b"</AccessDeniedException>\n",
        ),
    ],
)
def test_wire_31_other_content_types_are_answered_in_xml(
    error: errors.ServiceError, status: int, body: bytes
) -> None:
    length = [(b"content-length", str(len(body)).encode())]
    assert encode_error(error, "text/plain") == (status, length, body)


def test_media_type_leaves_blanks_and_parameters_out() -> None:
    assert media_type("   application/x-amz-json-1.1   ;whatever") == JSON
    assert media_type("") == ""


# Requests: JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"{",
        b"{} x",
        b'{"a":1}{"b":2}',
        b"NaN",
        b"Infinity",
        b"1e400",
        b'"\xff"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\ud800"',
        b'"\x01"',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b" " * 100_000,
        b"[" * 1_000_000,
        b'{"a":' * 300_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 1_000_000,
        b"[" + b"[]," * 500_000 + b"[]]",
        b'[{"a":1}' + b',{"a":1}' * 300_000 + b"]",
    ],
    ids=lambda body: f"{body[:12]!r}-{len(body)}",
)
def test_json_garbage_is_a_serialization_error_without_message(body: bytes) -> None:
    with pytest.raises(errors.Serialization) as caught:
        decode_json(body)
    assert caught.value.message == ""


def test_large_requests_of_many_records_are_no_garbage() -> None:
    record = {"Data": base64.b64encode(bytes(20_000)).decode(), "PartitionKey": "," * 256}
    request = {"Records": [record] * 500, "StreamName": "s"}
    body = msgspec.json.encode(request)
    assert len(body) > 10 * 1024 * 1024
    assert decode_json(body) == request
    assert decode_cbor(cbor2.dumps(request)) == request


# Requests: CBOR


def nested(levels: int) -> bytes:
    return b"\x81" * (levels - 1) + b"\x80"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\xfc",
        b"\x18",
        b"\xa0\x00",
        b"\xa0\xa0",
        b"\x61\xff",
        b"\x63\xed\xa0\x80",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x5a\xff\xff\xff\xff" + b"a" * 100,
        b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff" + b"\x01" * 1000,
        b"\xbb\x00\x00\x00\x7f\xff\xff\xff\xff",
        b"\xba\x7f\xff\xff\xff" + b"\x01" * 1000,
        nested(MAX_DEPTH + 2),
        b"\x81" * 1_000_000,
        b"\xa1\x61a" * 400_000,
        b"\xc1" * 1_000_000,
        b"\x9f" * 1_000_000,
        b"\x5f\x5f\x41a\xff\xff",
        b"\xa1\x01\x02",
        b"\xa1\x81\x01\x02",
        cbor2.dumps(2**70),
        b"\xc2\x5a\x00\x0f\x42\x40" + b"\xff" * 1_000_000,
        cbor2.dumps(cbor2.CBORTag(4, [10**9, 1])),
        cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")),
        cbor2.dumps(cbor2.CBORTag(37, b"x" * 16)),
        cbor2.dumps(cbor2.CBORTag(258, [1])),
        cbor2.dumps(cbor2.CBORTag(55799, {})),
        cbor2.dumps(cbor2.CBORTag(123456, 1)),
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that contains itself
        cbor2.dumps(cbor2.CBORTag(1, NAN)),
        cbor2.dumps(cbor2.CBORTag(1, "now")),
        cbor2.dumps(cbor2.CBORTag(1, True)),
        b"\x9a\x00\xa0\x00\x00" + b"\xa0" * 0xA00000,
    ],
    ids=lambda body: f"{body[:12].hex()}-{len(body)}",
)
def test_cbor_garbage_is_a_serialization_error_without_message(body: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(errors.Serialization) as caught:
        decode_cbor(body)
    assert caught.value.message == ""
    assert time.thread_time() - began < 2


REQUEST = {
    "StreamName": "s",
    "Records": [{"Data": bytes(range(40)), "PartitionKey": "kä"}] * 3,
    "Flags": [True, False, None, 1.5, -1, 2**40],
    "At": cbor2.CBORTag(1, 1_700_000_000_123),
}


def test_cbor_cut_off_at_any_byte_is_a_serialization_error() -> None:
    body = cbor2.dumps(REQUEST)
    decode_cbor(body)
    for length in range(len(body)):
        with pytest.raises(errors.Serialization):
            decode_cbor(body[:length])


def test_json_cut_off_at_any_byte_is_a_serialization_error() -> None:
    body = b'{"StreamName":"s","Records":[{"Data":"AAEC","PartitionKey":"k\\u00e4"}],"Limit":1.5}'
    decode_json(body)
    for length in range(len(body)):
        with pytest.raises(errors.Serialization):
            decode_json(body[:length])


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_cbor_with_any_byte_changed_decodes_or_is_a_serialization_error(
    data: st.DataObject,
) -> None:
    body = bytearray(cbor2.dumps(REQUEST))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    try:
        decode_cbor(bytes(body))
    except errors.Serialization as error:
        assert error.message == ""


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_serialization_error(body: bytes) -> None:
    for decode_body in (decode_cbor, decode_json):
        try:
            decode_body(body)
        except errors.Serialization as error:
            assert error.message == ""


def test_cbor_of_many_small_values_is_refused_before_it_fills_the_memory() -> None:
    count = MAX_VALUES * 8
    body = b"\x9a" + count.to_bytes(4, "big") + b"\xa0" * count
    tracemalloc.start()
    with pytest.raises(errors.Serialization):
        decode_cbor(body)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20 * 1024 * 1024


@pytest.mark.parametrize(
    ("tagged", "unix_ms"),
    [
        (1_700_000_000_123, 1_700_000_000_123),  # the Java SDKs: milliseconds
        (1_700_000_000, 1_700_000_000_000),  # the CBOR standard: seconds
        (1_700_000_000.123, 1_700_000_000_123),
        (1.700000000123e12, 1_700_000_000_123),
        (0, 0),
        (-1.5, -1500),
        (2**64 - 1, 2**63 - 1),
    ],
)
def test_cbor_timestamps_are_milliseconds_or_seconds(tagged: float, unix_ms: int) -> None:
    found = decode_cbor(cbor2.dumps(cbor2.CBORTag(1, tagged)))
    assert type(found) is EpochMs
    assert found == unix_ms


def test_cbor_of_the_java_sdks_decodes() -> None:
    """Indefinite maps and lists, as jackson writes them."""
    body = bytes.fromhex("bf") + b"\x67Records\x9f\xbf\x64Data\x42ab\xff\xff" + b"\xff"
    assert decode_cbor(body) == {"Records": [{"Data": b"ab"}]}
