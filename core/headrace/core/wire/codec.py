"""Bodies: JSON 1.1 and CBOR 1.1, requests in, answers and errors out.

Owns: the bytes of every body but the event stream's frames. Requests are decoded without looking at
the model (`validation` does that); answers are encoded by the shape of the operation's output:

| model     | in Python            | JSON 1.1                         | CBOR 1.1                   |
|-----------|----------------------|----------------------------------|----------------------------|
| blob      | bytes                | base64 text                      | byte string                |
| timestamp | Unix ms, int         | seconds, a number with point     | tag 1, integer ms          |
| structure | dict; None is absent | object                           | map                        |
| others    | themselves           | themselves                       | themselves                 |

Promises: whatever bytes come in, `decode_json` and `decode_cbor` return or raise `Serialization`,
within a depth and a number of values that no real request reaches.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

import cbor2
import msgspec

from headrace.core.errors import Serialization, ServiceError, UnknownOperation
from headrace.core.wire.conversion import epoch_ms
from headrace.core.wire.service_model import Shape, service_model

JSON = "application/x-amz-json-1.1"
CBOR = "application/x-amz-cbor-1.1"

MAX_DEPTH = 32  # the deepest structure of the model has 8 levels
MAX_VALUES = 262_144  # 500 records make 4,000; more would be small values that are large in memory
_UNCOUNTED_BYTES = 1024 * 1024  # a body no larger cannot fill more than some 80 MB

Headers = list[tuple[bytes, bytes]]


def media_type(content_type: str) -> str:
    """A content-type header without its parameters: `application/x-amz-json-1.1`."""
    return content_type.partition(";")[0].strip().lower()


def decode_json(body: bytes) -> Any:
    """A JSON body -> dict, list, str, int, float, bool or None.

    Raises:
        Serialization: not JSON, not UTF-8, nested too deeply, numbers beyond 64-bit floats, or more
            than `MAX_VALUES` values. It has no message, as at AWS.
    """
    # Base64 holds none of these three, so the data of records does not count.
    if len(body) > _UNCOUNTED_BYTES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Serialization("")
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise Serialization("") from error


class _Tags(Mapping[int, Callable[[Any, bool], Any]]):
    """Decoders for CBOR tags: 1 is a timestamp, every other is refused.

    The library's own decoders would compile regular expressions, raise ten to any power and build
    circular values for whoever asks.
    """

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        return self._timestamp if tag == 1 else self._refuse

    def __iter__(self) -> Iterator[int]:
        return iter((1,))

    def __len__(self) -> int:
        return 1

    @staticmethod
    def _timestamp(value: Any, immutable: bool) -> Any:
        return epoch_ms(value)

    @staticmethod
    def _refuse(value: Any, immutable: bool) -> Any:
        raise ValueError("no request holds this CBOR tag")


_TAGS = _Tags()


def decode_cbor(body: bytes) -> Any:
    """A CBOR body -> as `decode_json`, with bytes for byte strings and `EpochMs` for timestamps.

    Raises:
        Serialization: as `decode_json`; and for bytes after the value, tags other than 1, and map
            keys that are neither text nor bytes.
    """
    if len(body) > _UNCOUNTED_BYTES:
        _count_cbor(body)
    decoder = cbor2.CBORDecoder(
        io.BytesIO(body),
        semantic_decoders=_TAGS,
        read_size=len(body) or 1,
        max_depth=MAX_DEPTH,
        strict_hashable_types=True,
    )
    try:
        value = decoder.decode()
    except (cbor2.CBORError, ValueError, RecursionError) as error:
        raise Serialization("") from error
    try:
        decoder.read(1)
    except (cbor2.CBORError, EOFError):
        return value
    raise Serialization("")


def _count_cbor(body: bytes) -> None:
    """Refuse a body of more than `MAX_VALUES` values. Whether they make sense is not looked at."""
    position, end, count = 0, len(body), 0
    while position < end:
        head = body[position]
        position += 1
        argument = head & 31
        if 24 <= argument < 28:
            width = 1 << (argument - 24)
            argument = int.from_bytes(body[position : position + width], "big")
            position += width
        if head >> 5 in (2, 3) and head & 31 != 31:  # of a given length: bytes, text
            position += argument
        count += 1
        if count > MAX_VALUES:
            raise Serialization("")


def decode(body: bytes, content_type: str) -> Any:
    """Decode by media type: CBOR if it says so, else JSON."""
    return decode_cbor(body) if content_type == CBOR else decode_json(body)


def encode_response(operation: str, response: Mapping[str, Any] | None, content_type: str) -> bytes:
    """The body of an operation's answer; empty where the model has no output.

    Raises:
        UnknownOperation: not an operation of the model; `encode_plain` is for those.
        ValueError: the response has a member the model's output has not.
    """
    found = service_model().operations.get(operation)
    if found is None:
        raise UnknownOperation("")
    if found.output is None:
        return b""
    return encode_shape(found.output, {} if response is None else response, content_type)


def encode_shape(shape: Shape, value: Any, content_type: str) -> bytes:
    """One value by its shape: for answers, and for the payloads of an event stream."""
    is_cbor = content_type == CBOR
    ready = _encoder(shape, is_cbor)
    return _dumps(value if ready is None else ready(value), is_cbor)


def encode_plain(value: Any, content_type: str) -> bytes:
    """A value that no model describes (Headrace's own operations), by its Python types."""
    return _dumps(_without_nulls(value), content_type == CBOR)


def encode_error(error: ServiceError, content_type: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error.

    JSON and CBOR carry `__type` and, unless it is empty, `message` (`Message` when it is a
    `Serialization`). For any other content type it is the XML with which AWS answers what it cannot
    assign to a service; that has no content type.
    """
    if content_type not in (JSON, CBOR):
        return _encode_xml(error)
    body = {"__type": error.code}
    if error.message:
        body["Message" if isinstance(error, Serialization) else "message"] = error.message
    encoded = _dumps(body, content_type == CBOR)
    return error.status, [(b"content-type", content_type.encode()), _length(encoded)], encoded


def _encode_xml(error: ServiceError) -> tuple[int, Headers, bytes]:
    status = 403 if error.status == 400 else error.status
    if isinstance(error, UnknownOperation):
        status = 404
    if error.message:
        text = f"<{error.code}>\n  <Message>{escape(error.message)}</Message>\n</{error.code}>\n"
    else:
        text = f"<{error.code}/>\n"
    body = text.encode()
    return status, [_length(body)], body


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


def _dumps(value: Any, is_cbor: bool) -> bytes:
    return cbor2.dumps(value) if is_cbor else msgspec.json.encode(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


Encoder = Callable[[Any], Any]


@cache
def _encoder(shape: Shape, is_cbor: bool) -> Encoder | None:
    """What makes a value of this shape ready for the library; None where it is as it stands."""
    if shape.kind == "timestamp":
        return _timestamp_to_cbor if is_cbor else _timestamp_to_json
    if shape.kind == "structure":
        return _StructureEncoder(shape, is_cbor)
    if shape.kind in ("list", "map") and shape.element is not None:
        inner = _encoder(shape.element, is_cbor)
        if inner is None:
            return None
        return _list_encoder(inner) if shape.kind == "list" else _map_encoder(inner)
    return None


def _timestamp_to_json(unix_ms: int) -> float:
    return unix_ms / 1000


def _timestamp_to_cbor(unix_ms: int) -> cbor2.CBORTag:
    return cbor2.CBORTag(1, unix_ms)


def _list_encoder(inner: Encoder) -> Encoder:
    return lambda value: [inner(item) for item in value]


def _map_encoder(inner: Encoder) -> Encoder:
    return lambda value: {key: inner(item) for key, item in value.items()}


class _StructureEncoder:
    """Members by name. Their encoders are looked up at first use: shapes may be circular."""

    def __init__(self, shape: Shape, is_cbor: bool) -> None:
        self._shape = shape
        self._is_cbor = is_cbor
        self._encoders: dict[str, Encoder | None] = {}

    def __call__(self, value: Mapping[str, Any]) -> dict[str, Any]:
        encoders = self._encoders
        ready = {}
        for name, item in value.items():
            if item is None:
                continue
            if name not in encoders:
                encoders[name] = self._encoder_of(name)
            encode = encoders[name]
            ready[name] = item if encode is None else encode(item)
        return ready

    def _encoder_of(self, name: str) -> Encoder | None:
        for member in self._shape.members:
            if member.wire_name == name:
                return _encoder(member.shape, self._is_cbor)
        raise ValueError(f"{self._shape.name} has no member {name!r} in the service model")
