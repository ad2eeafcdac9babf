"""The second argument of a handler: Lambda's context object, and `emit`."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.triggers.protocol import MAX_EMITS, MAX_EMITTED_BYTES, Emit

_MAX_DATA_BYTES = 10 * 1024 * 1024  # what any stream can hold at most
_MAX_KEY_CHARS = 256
_EMIT_OVERHEAD_BYTES = 96  # lengths, stream name and sequence number around the data


class CognitoIdentity:
    """Always empty here, as it is on Lambda for an event source mapping."""

    cognito_identity_id: str | None = None
    cognito_identity_pool_id: str | None = None


class Context:
    """What Lambda's Python runtime gives a handler, with the same names.

    `emit` is Headrace's own: a record put exactly once when the batch is done.
    """

    function_version = "$LATEST"
    client_context = None
    identity = CognitoIdentity()

    def __init__(
        self,
        *,
        request_id: str,
        function_name: str,
        function_arn: str,
        memory_limit_in_mb: str,
        source_stream: str,
        timeout_ms: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.aws_request_id = request_id
        self.function_name = function_name
        self.invoked_function_arn = function_arn
        self.memory_limit_in_mb = memory_limit_in_mb
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = request_id
        self._source_stream = source_stream
        self._monotonic = monotonic
        self._deadline_s = monotonic() + timeout_ms / 1000
        self._emits: list[Emit] | None = []
        self._emitted_bytes = 0

    def get_remaining_time_in_millis(self) -> int:
        """How long until the runner kills this invocation; never below 0."""
        return max(0, int((self._deadline_s - self._monotonic()) * 1000))

    def emit(
        self,
        stream: str,
        data: bytes | str,
        partition_key: str,
        *,
        sequence_number: str | None = None,
    ) -> None:
        """Put a record on another stream when, and only when, this batch is done.

        Nothing is put while the handler runs. What an invocation emits goes out together with
        the checkpoint, once, through any crash; what a failed invocation emitted is dropped,
        for the batch will run again.

        Args:
            stream: any stream but the one this batch came from.
            data: bytes, or text that is sent as UTF-8; up to 10 MiB, and no more than the
                stream's own record limit (1 MiB unless it was created with more).
            partition_key: 1..256 characters.
            sequence_number: the record of this batch that it stems from. It matters only to a
                handler that reports batch item failures: of a batch reported failed from some
                record on, what stems from that record or a later one is dropped with them.

        Raises:
            TypeError, ValueError: the record could never be put, or the invocation has emitted
                65,536 records or about 8 MiB already.
            RuntimeError: the invocation is over.
        """
        if self._emits is None:
            raise RuntimeError("emit: this invocation is over; emit before the handler returns")
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, bytes):
            raise TypeError(f"emit: data is bytes or str, not {type(data).__name__}")
        if not isinstance(stream, str) or not stream:
            raise TypeError("emit: stream is the name of a stream")
        if stream == self._source_stream:
            raise ValueError(
                f"emit: {stream!r} is the stream this trigger reads; a record put there would "
                "come back to it for ever. Emit to another stream"
            )
        if not isinstance(partition_key, str) or not 1 <= len(partition_key) <= _MAX_KEY_CHARS:
            raise ValueError("emit: partition_key is a text of 1 to 256 characters")
        if len(data) > _MAX_DATA_BYTES:
            raise ValueError(f"emit: {len(data)} bytes of data; a record holds 10 MiB at most")
        size_bytes = len(data) + len(partition_key.encode()) + len(stream) + _EMIT_OVERHEAD_BYTES
        if len(self._emits) >= MAX_EMITS or self._emitted_bytes + size_bytes > MAX_EMITTED_BYTES:
            raise ValueError(
                f"emit: one invocation emits at most {MAX_EMITS} records and about 8 MiB; "
                "make the trigger's batch size smaller"
            )
        self._emitted_bytes += size_bytes
        self._emits.append(Emit(stream, data, partition_key, sequence_number))

    def close(self) -> list[Emit]:
        """End the invocation: what was emitted. A thread that emits later gets an error."""
        emits, self._emits = self._emits or [], None
        return emits
