"""SubscribeToShard's answer: events as `application/vnd.amazon.eventstream` messages.

A message: total length u32 · length of headers u32 · CRC32 of those 8 bytes · headers · payload ·
CRC32 of all before it; big endian. A header: length of name u8 · name · 7 (string) · length of
value u16 · value. The first message is `initial-response`, which botocore's parser requires; an
error once the stream has begun is a message of type `exception`. Payloads are in the encoding of
the request.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from zlib import crc32

import msgspec

from headrace.core.errors import HeadraceError, InternalFailure, ServiceError
from headrace.core.service.subscriptions import ShardEvent
from headrace.core.wire import codec
from headrace.core.wire.hot_answers import records_for_cbor
from headrace.core.wire.service_model import Shape, service_model

log = logging.getLogger("headrace.core")

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_STRING = 7
_EVENT = "SubscribeToShardEvent"
_MODELLED = frozenset(
    {"ResourceNotFoundException", "ResourceInUseException", "InternalFailureException"}
)


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message. Header names have at most 255 bytes, values at most 65,535."""
    encoded = b"".join(
        struct.pack(f">B{len(name)}sBH", len(name), name.encode(), _STRING, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    total = _PRELUDE.size + _CRC.size + len(encoded) + len(payload) + _CRC.size
    prelude = _PRELUDE.pack(total, len(encoded))
    head = b"".join((prelude, _CRC.pack(crc32(prelude)), encoded))
    return b"".join((head, payload, _CRC.pack(crc32(payload, crc32(head)))))


async def encode_events(
    events: AsyncGenerator[ShardEvent, None], content_type: str
) -> AsyncGenerator[bytes, None]:
    """The messages of a subscription, from its `initial-response` to its end. Never raises."""
    is_cbor = content_type == codec.CBOR
    media_type = codec.CBOR if is_cbor else "application/json"
    of_event = {":message-type": "event", ":event-type": _EVENT, ":content-type": media_type}
    yield message(
        {**of_event, ":event-type": "initial-response"}, codec.encode_plain({}, content_type)
    )
    try:
        async with aclosing(events):
            async for event in events:
                payload = _cbor_payload(event) if is_cbor else _json_payload(event)
                yield message(of_event, payload)
    except HeadraceError as error:
        code, text = _as_modelled(error)
    except Exception:
        log.exception("an unexpected error in a subscription")
        code, text = _as_modelled(InternalFailure("Internal failure."))
    else:
        return
    yield message(
        {":message-type": "exception", ":exception-type": code, ":content-type": media_type},
        codec.encode_plain({"message": text}, content_type),
    )


def _as_modelled(error: HeadraceError) -> tuple[str, str]:
    """Code and message of an error, the code being one that the model has for this stream."""
    code = error.code if isinstance(error, ServiceError) else ""
    return code if code in _MODELLED else "InternalFailureException", str(error)


def _json_payload(event: ShardEvent) -> bytes:
    """The stored JSON objects as they are."""
    tail = f'],"MillisBehindLatest":{event.millis_behind_latest}'
    if event.continuation is not None:
        tail += f',"ContinuationSequenceNumber":"{event.continuation}"'
    if event.child_shards:
        tail += f',"ChildShards":{msgspec.json.encode(event.child_shards).decode()}'
    return b"".join((b'{"Records":[', b",".join(event.parts), tail.encode(), b"}"))


def _cbor_payload(event: ShardEvent) -> bytes:
    return codec.encode_shape(
        _event_shape(),
        {
            "Records": records_for_cbor(event.parts),
            "ContinuationSequenceNumber": event.continuation,
            "MillisBehindLatest": event.millis_behind_latest,
            "ChildShards": event.child_shards or None,
        },
        codec.CBOR,
    )


def _event_shape() -> Shape:
    return service_model().shapes[_EVENT]
