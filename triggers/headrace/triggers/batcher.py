"""Records of one shard -> batches: by count, by window, by Lambda's 6 MB.

The window begins when the previous invocation has ended, as on Lambda. One that passes without
a record begins anew with the first record, so that records arriving together after a quiet time
are gathered rather than the first of them sent alone; no record ever waits longer than a window.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from headrace.core.clock import Clock
from headrace.core.consumer import ReadBatch
from headrace.triggers.event import MAX_EVENT_BYTES, Batch, EncodedRecord, EventSource, size_bytes

MAX_READ_RECORDS = 1_000  # what is read ahead of the batches stays in memory


class Source(Protocol):
    """Where records come from: the part of a ShardLease used here."""

    @property
    def stopping(self) -> asyncio.Event: ...

    async def read(
        self, *, max_records: int = ..., wait_ms: int | None = None
    ) -> ReadBatch | None: ...


class Batcher:
    """Cuts one shard into batches. `on_read` is told of every read, before its records."""

    def __init__(
        self,
        source: Source,
        event_source: EventSource,
        *,
        size: int,
        window_ms: int,
        clock: Clock,
        on_read: Callable[[ReadBatch], None],
    ) -> None:
        self._source = source
        self._event_source = event_source
        self._size = size
        self._window_ms = window_ms
        self._clock = clock
        self._on_read = on_read
        self._ready: deque[EncodedRecord] = deque()
        self._is_at_end = False

    async def next(self) -> Batch | None:
        """The next batch, when it is due; None at the end of the shard or when stopping."""
        deadline_ms = self._clock.monotonic_ms() + self._window_ms
        while not self._source.stopping.is_set():
            if batch := self._cut():
                return batch
            left_ms = deadline_ms - self._clock.monotonic_ms()
            if self._ready and (left_ms <= 0 or self._is_at_end):
                return self._take(len(self._ready))
            if self._is_at_end:
                return None
            was_empty = not self._ready
            # With nothing in hand there is no hurry; with something, until the window is over.
            await self._read(wait_ms=max(0, left_ms) if self._ready or left_ms > 0 else None)
            if was_empty and left_ms <= 0 and self._ready:
                deadline_ms = self._clock.monotonic_ms() + self._window_ms
        return None

    async def _read(self, *, wait_ms: int | None) -> None:
        found = await self._source.read(
            max_records=max(self._size - len(self._ready), MAX_READ_RECORDS), wait_ms=wait_ms
        )
        if found is None:
            self._is_at_end = True
            return
        self._on_read(found)
        self._ready.extend(map(self._event_source.encode, found.records))

    def _cut(self) -> Batch | None:
        """A batch that is full, by count or by bytes; None if none is yet."""
        total_bytes = size_bytes(())
        for index, entry in enumerate(self._ready):
            total_bytes += len(entry.body) + (1 if index else 0)
            if total_bytes > MAX_EVENT_BYTES:
                # The first one alone may be too large: then it is a batch nobody can be sent.
                return self._take(max(1, index))
            if index + 1 == self._size:
                return self._take(self._size)
        return None

    def _take(self, count: int) -> Batch:
        return Batch(tuple(self._ready.popleft() for _ in range(count)))
