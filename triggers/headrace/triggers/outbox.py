"""What a batch leaves behind - its emits or its dead letter - kept beside the checkpoint.

The outbox is made durable by `ShardLease.prepare` before any of it goes out, and goes out
idempotently. After a crash it is read back and goes out again, so every emit is put exactly
once, and a batch that was given up is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from headrace.core.client import StreamClient
from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError, StorageError
from headrace.core.limits import DEFAULT_MAX_RECORD_BYTES, KIB
from headrace.core.model.records import PutEntry
from headrace.core.producer import Producer
from headrace.triggers.dead_letters import DeadLetter
from headrace.triggers.protocol import Emit

_EMIT_INDEX_BITS = 16
_TARGET_MEMORY_MS = 60_000  # how long a target's record limit is believed


class Outbox(msgspec.Struct, frozen=True, kw_only=True):
    """Empty for most batches."""

    emits: list[Emit] = []
    dead_letter: DeadLetter | None = None

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, state: bytes) -> Outbox:
        """Inverse of `encode`; no state at all is an empty outbox.

        Raises:
            StorageError: it is not an outbox (written by a newer Headrace, perhaps).
        """
        if not state:
            return cls()
        try:
            return _outbox.decode(state)
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"the state kept beside a pending checkpoint cannot be read: {error}",
                hint="it was written by another version of Headrace; run that one until idle",
            ) from error


_outbox: msgspec.msgpack.Decoder[Outbox] = msgspec.msgpack.Decoder(Outbox)


def producer_sequences(sequence_number: str, count: int) -> list[int]:
    """Of the `count` records emitted with the batch that ends at `sequence_number`.

    A batch's last number is higher than every earlier batch's, so these rise over the life of
    a shard, whatever the batches were; the low bits tell the emits of one batch apart.
    """
    base = int(sequence_number) << _EMIT_INDEX_BITS
    return list(range(base, base + count))


class EmitRefused(HeadraceError):
    """A record that its target stream could never take."""


class Outlet:
    """Puts emits to their streams, for one trigger."""

    def __init__(self, client: StreamClient, application: str, clock: Clock) -> None:
        self._client = client
        self._application = application
        self._clock = clock
        self._limits: dict[str, tuple[int, int]] = {}

    async def examine(self, emits: Sequence[Emit]) -> None:
        """Find out before anything is kept that these can be put.

        Raises:
            EmitRefused: a record is larger than its target takes.
            ResourceNotFound, EndpointUnreachable, ...: the target could not be asked.
        """
        for emit in emits:
            limit_bytes = await self._max_record_bytes(emit.stream)
            record_bytes = len(emit.data) + len(emit.partition_key.encode())
            if record_bytes > limit_bytes:
                raise EmitRefused(
                    f"emitted a record of {record_bytes} bytes to {emit.stream!r}, which takes "
                    f"{limit_bytes} at most",
                    hint="raise the stream's MaxRecordSizeInKiB, or emit smaller records",
                )

    async def put(
        self,
        emits: Sequence[Emit],
        *,
        source: tuple[str, str],
        sequence_number: str,
        on_retry: Callable[[HeadraceError], None],
    ) -> None:
        """Put them all, each exactly once however often this is repeated.

        `source` is (stream, shard id). Returns when every record is stored.
        """
        sequences = producer_sequences(sequence_number, len(emits))
        by_stream: dict[str, list[int]] = {}
        for index, emit in enumerate(emits):
            by_stream.setdefault(emit.stream, []).append(index)
        for stream, indexes in by_stream.items():
            producer = Producer(self._client, stream, clock=self._clock, on_retry=on_retry)
            await producer.put_batch(
                [PutEntry(emits[i].data, emits[i].partition_key) for i in indexes],
                producer_id="/".join((self._application, *source)),
                epoch=0,
                sequences=[sequences[i] for i in indexes],
            )

    async def _max_record_bytes(self, stream: str) -> int:
        now_ms = self._clock.monotonic_ms()
        known = self._limits.get(stream)
        if known is None or now_ms - known[1] > _TARGET_MEMORY_MS:
            answer = await self._client.call("DescribeStreamSummary", {"StreamName": stream})
            summary = answer["StreamDescriptionSummary"]
            limit_kib = summary.get("MaxRecordSizeInKiB", DEFAULT_MAX_RECORD_BYTES // KIB)
            known = self._limits[stream] = (limit_kib * KIB, now_ms)
        return known[0]
