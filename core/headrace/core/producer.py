"""Producer: puts records until they are acknowledged, in order, through throttling and outages.

Promises. Every entry is acknowledged or the call raises; nothing is given up on because it takes
long. Requests stay within the service's limits. Of one producer id there is one request in
flight, and what was refused goes again before anything later is sent.

That last rule is what makes idempotence safe. The log keeps the *last* sequence per producer and
hash key range, so storing record 9 before a refused record 7 would make 7 look stored. Every
request therefore holds, per range, an unbroken run that begins with the first record not known to
be stored; within a request the server refuses everything of the producer behind a refused
record. A copy of an old request that arrives late is such a run as well, and stores nothing twice.

Without idempotence (no producer id, or on AWS) a record that was refused lands behind later ones
of its request, and an answer that was lost means records stored twice: at least once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from headrace.core.client import StreamClient
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import (
    HeadraceError,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
    ThroughputExceeded,
    ValidationError,
    service_errors,
)
from headrace.core.limits import MIB
from headrace.core.model.records import ProducerStamp, PutEntry, PutResult
from headrace.core.put_buffer import PutBuffer, cut_requests, entry_bytes
from headrace.core.retry import Backoff, is_passing
from headrace.core.troubles import Troubles

__all__ = ["Backoff", "Producer", "cut_requests", "entry_bytes"]

_log = logging.getLogger("headrace.core")

_CLASSES = service_errors()


@dataclass(slots=True)
class _Turn:
    """Whose turn it is among the batches of one producer id; `users` are holding or waiting."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Producer:
    """Puts into one stream. Many tasks may use one; batches of one producer id take turns."""

    def __init__(
        self,
        client: StreamClient,
        stream: str,
        *,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        on_retry: Callable[[HeadraceError], None] | None = None,
        buffer_bytes: int = 32 * MIB,
    ) -> None:
        """`on_retry` hears of every failure that is going to be tried again; None logs them.

        `buffer_bytes` bounds what `put` takes before it is acknowledged.
        """
        self._client = client
        self._stream = stream
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._on_retry = on_retry
        self._troubles = Troubles(_log, self._clock)
        self._turns: dict[str | None, _Turn] = {}
        self._buffer = PutBuffer(self.put_batch, buffer_bytes)

    async def put_batch(
        self,
        entries: Sequence[PutEntry],
        *,
        producer_id: str | None = None,
        epoch: int = 0,
        sequences: Sequence[int] | None = None,
    ) -> list[PutResult]:
        """Put entries in order; returns once every one is acknowledged, with a result for each.

        With `producer_id` and `sequences` (one per entry, rising) putting the same again stores
        nothing twice; see `ProducerStamp`. After a cancellation, or a crash, put the same batch
        again before anything later of the same producer.

        Retries for ever what may pass: outages, throttling, a stream that is not there (yet).
        Raises the ServiceError at once that no retry can mend, such as ValidationError,
        AccessDenied or ProducerFenced; entries before it may have been stored by then.
        """
        _check_stamp(producer_id, epoch, sequences, len(entries))
        results: list[PutResult] = []
        async with self._turn(producer_id):
            for indices in cut_requests(entries):
                part = entries[indices.start : indices.stop]
                if producer_id is None or sequences is None:
                    results += await self._put_request(part, None)
                else:
                    stamp = ProducerStamp(
                        producer_id, epoch, sequences[indices.start : indices.stop]
                    )
                    results += await self._put_request(part, stamp)
        return results

    async def put(self, entry: PutEntry) -> asyncio.Future[PutResult]:
        """Hand over one record; the future is its acknowledgement, awaited whenever it suits.

        Records are sent in the order handed over, as many at once as have gathered while the
        request before was under way. Waits while the buffer is full. The future raises what
        `put_batch` would raise for this record. At least once; raises RuntimeError when closed.
        """
        return await self._buffer.put(entry)

    async def flush(self) -> None:
        """Wait until everything handed over by `put` so far is acknowledged or refused."""
        await self._buffer.flush()

    async def close(self) -> None:
        """Flush, and take nothing more by `put`."""
        await self._buffer.close()

    async def _put_request(
        self, entries: Sequence[PutEntry], stamp: ProducerStamp | None
    ) -> list[PutResult]:
        """One request's worth of entries, sent until none is refused any more."""
        done: dict[int, PutResult] = {}
        left: Sequence[int] = range(len(entries))
        sent, sent_stamp = entries, stamp
        attempt = 0
        while True:
            try:
                results = await self._client.put_records(self._stream, sent, producer=sent_stamp)
            except HeadraceError as error:
                if not (is_passing(error) or isinstance(error, ResourceNotFound | ResourceInUse)):
                    raise
                failure = error
            else:
                refused = [n for n, result in enumerate(results) if result.error_code is not None]
                if not refused:
                    self._troubles.clear(self._stream)
                    if not done:
                        return results
                done.update(
                    (left[n], result)
                    for n, result in enumerate(results)
                    if result.error_code is None
                )
                if not refused:
                    return [done[n] for n in range(len(entries))]
                failure = self._refusal(results[refused[0]], len(refused), len(sent))
                if len(refused) < len(sent):
                    attempt = 0  # it is moving
                left = [left[n] for n in refused]
                sent = [entries[n] for n in left]
                if stamp is not None:
                    sent_stamp = ProducerStamp(
                        stamp.producer_id, stamp.epoch, [stamp.sequences[n] for n in left]
                    )
            if self._on_retry is None:
                self._troubles.report(self._stream, f"a put waits and is tried again: {failure}")
            else:
                self._on_retry(failure)
            await self._clock.sleep_ms(self._backoff.next_ms(attempt))
            attempt += 1

    def _refusal(self, result: PutResult, refused_count: int, count: int) -> ServiceError:
        """The error that refused records stand for. Raises it when no retry can mend it."""
        cls = _CLASSES.get(result.error_code or "")
        if cls is not None and not cls.retryable:
            raise cls(result.error_message or f"stream {self._stream} refused a record")
        return (cls or ThroughputExceeded)(
            f"stream {self._stream} refused {refused_count} of {count} records: "
            f"{result.error_message or result.error_code}"
        )

    @asynccontextmanager
    async def _turn(self, producer_id: str | None) -> AsyncIterator[None]:
        turn = self._turns.setdefault(producer_id, _Turn())
        turn.users += 1
        try:
            async with turn.lock:  # first come, first served: batches stay in the order of calls
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[producer_id]


def _check_stamp(
    producer_id: str | None, epoch: int, sequences: Sequence[int] | None, count: int
) -> None:
    if producer_id is None and sequences is None:
        return
    if producer_id is None or sequences is None:
        raise ValidationError("an idempotent put names both a producer id and sequences")
    if not 1 <= len(producer_id) <= 256 or not all("!" <= c <= "~" for c in producer_id):
        raise ValidationError(
            f"producer id {producer_id[:300]!r} is not 1 to 256 printable ASCII characters"
        )
    if epoch < 0:
        raise ValidationError(f"the epoch of producer {producer_id} is negative")
    if len(sequences) != count:
        raise ValidationError(f"{len(sequences)} sequences for {count} records")
    previous = 0
    for sequence in sequences:
        if sequence < previous:
            raise ValidationError(
                f"sequence {sequence} of producer {producer_id} comes after {previous}; "
                "sequences are not negative and rise"
            )
        previous = sequence
