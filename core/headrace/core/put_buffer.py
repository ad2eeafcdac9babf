"""Single records gathered into batches: the front of a Producer, and how batches are cut.

No timer: a record that finds nothing under way is sent at once, and while a request is under way
the next one fills. So a lone record waits for nothing, and a flood goes out in full requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice

from headrace.core.errors import InvalidArgument, ValidationError
from headrace.core.limits import MAX_PUT_REQUEST_BYTES, MAX_RECORDS_PER_PUT
from headrace.core.model.records import PutEntry, PutResult

_Waiting = tuple[PutEntry, "asyncio.Future[PutResult]"]


def entry_bytes(entry: PutEntry) -> int:
    """What an entry counts towards the limit of a request: data and partition key in UTF-8."""
    key = entry.partition_key
    return len(entry.data) + (len(key) if key.isascii() else len(key.encode()))


def cut_requests(entries: Sequence[PutEntry]) -> Iterator[range]:
    """Indices of consecutive entries that go into one request each: 500 records, 10 MiB.

    An entry too large for any request is left alone in one, for the service to refuse.
    """
    start = size_bytes = 0
    for index, entry in enumerate(entries):
        more_bytes = entry_bytes(entry)
        if index > start and (
            index - start == MAX_RECORDS_PER_PUT or size_bytes + more_bytes > MAX_PUT_REQUEST_BYTES
        ):
            yield range(start, index)
            start, size_bytes = index, 0
        size_bytes += more_bytes
    if start < len(entries):
        yield range(start, len(entries))


class PutBuffer:
    """A bounded queue in front of `put_batch`, emptied by one task that lives while there is work.

    Bytes count against the bound until their records are acknowledged.
    """

    def __init__(
        self,
        put_batch: Callable[[Sequence[PutEntry]], Awaitable[list[PutResult]]],
        max_bytes: int,
    ) -> None:
        self._put_batch = put_batch
        self._max_bytes = max_bytes
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._room = asyncio.Condition()
        self._unacknowledged: set[asyncio.Future[PutResult]] = set()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False

    async def put(self, entry: PutEntry) -> asyncio.Future[PutResult]:
        size_bytes = entry_bytes(entry)
        async with self._room:
            await self._room.wait_for(
                lambda: (
                    self._is_closed
                    or not self._bytes
                    or self._bytes + size_bytes <= self._max_bytes
                )
            )
            if self._is_closed:
                raise RuntimeError("this producer is closed")
            self._bytes += size_bytes
        ack: asyncio.Future[PutResult] = asyncio.get_running_loop().create_future()
        self._unacknowledged.add(ack)
        ack.add_done_callback(self._unacknowledged.discard)
        self._waiting.append((entry, ack))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return ack

    async def flush(self) -> None:
        pending = set(self._unacknowledged)
        if pending:
            await asyncio.wait(pending)

    async def close(self) -> None:
        async with self._room:
            self._is_closed = True
            self._room.notify_all()
        if self._sender is not None:
            await self._sender

    async def _send(self) -> None:
        while self._waiting:
            next_ones = islice(self._waiting, MAX_RECORDS_PER_PUT)
            count = next(cut_requests([entry for entry, _ in next_ones])).stop
            batch = [self._waiting.popleft() for _ in range(count)]
            await self._deliver(batch)
            async with self._room:
                self._bytes -= sum([entry_bytes(entry) for entry, _ in batch])
                self._room.notify_all()

    async def _deliver(self, batch: list[_Waiting]) -> None:
        """Put a batch and answer its futures. One bad record does not fail its neighbours."""
        try:
            results = await self._put_batch([entry for entry, _ in batch])
        except (ValidationError, InvalidArgument) as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            # the service refuses such a request as a whole, so nothing of it is stored
            middle = len(batch) // 2
            await self._deliver(batch[:middle])
            await self._deliver(batch[middle:])
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, ack), result in zip(batch, results, strict=True):
                if not ack.done():
                    ack.set_result(result)


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for _, ack in batch:
        if not ack.done():
            if isinstance(error, asyncio.CancelledError):
                ack.cancel()
            else:
                ack.set_exception(error)
