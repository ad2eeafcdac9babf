"""What runner and worker say to each other: length-prefixed msgpack over a socket pair.

| bytes | field                                   |
|-------|-----------------------------------------|
| 4     | length of what follows, big endian      |
| n     | one message below, msgpack, tagged      |

The runner says `Start` once and is answered `Ready` or `Unloadable`; then each `Invoke` is
answered by `Returned` or `Raised`. The worker imports this module, so it needs little more than
msgspec. Nothing a handler prints travels here.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

MAX_RESPONSE_BYTES = 6_291_556  # Lambda's 6 MB on synchronous responses, as its error message says
MAX_EMITS = 1 << 16  # per invocation: the low bits of an emitted record's producer sequence
MAX_EMITTED_BYTES = 8 * 1024 * 1024 - 64 * 1024  # the outbox beside a checkpoint holds 8 MiB
MAX_TEXT_CHARS = 64 * 1024  # of an error's message or stack: a handler may raise megabytes
MAX_FRAME_BYTES = MAX_RESPONSE_BYTES + 8 * 1024 * 1024 + 8 * MAX_TEXT_CHARS

HEADER = struct.Struct(">I")

#: A worker that can no longer even answer for lack of memory leaves with this status.
OUT_OF_MEMORY_STATUS = 137


class Start(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What a worker is to load. `memory_bytes` caps its address space, None for no cap."""

    file: str
    attribute: str
    function_name: str
    function_arn: str
    source_stream: str
    memory_bytes: int | None


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The function is loaded."""


class Unloadable(msgspec.Struct, tag=True, frozen=True):
    """Importing the file failed, or it has no such function."""

    error_type: str
    message: str
    stack: str


class Invoke(msgspec.Struct, tag=True, frozen=True):
    """One batch. `event` is the event document, JSON; the worker has `timeout_ms` for it."""

    request_id: str
    event: bytes
    timeout_ms: int


class Emit(msgspec.Struct, array_like=True, frozen=True):
    """A record the handler wants put, and the record of its batch that it stems from, if said."""

    stream: str
    data: bytes
    partition_key: str
    sequence_number: str | None = None


class Returned(msgspec.Struct, tag=True, frozen=True):
    """The handler's return value as JSON, and what it emitted, in order."""

    payload: bytes
    emits: list[Emit]


class Raised(msgspec.Struct, tag=True, frozen=True):
    """The invocation failed. `is_out_of_memory`: do not use this worker again."""

    error_type: str
    message: str
    stack: str
    is_out_of_memory: bool = False


FromWorker = Ready | Unloadable | Returned | Raised
ToWorker = Start | Invoke

_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)


def encode(message: Any) -> bytes:
    """A message as one frame."""
    body = msgspec.msgpack.encode(message)
    return HEADER.pack(len(body)) + body


def decode_from_worker(body: bytes | bytearray) -> FromWorker:
    """Raises msgspec.MsgspecError when it is no such message."""
    return _from_worker.decode(body)


def decode_to_worker(body: bytes | bytearray) -> ToWorker:
    """Raises msgspec.MsgspecError when it is no such message."""
    return _to_worker.decode(body)
