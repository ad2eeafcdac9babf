"""How much record memory one sink may hold over all its shards.

Reading waits while the budget is used up; the shard with the largest buffer writes it out first,
so that a thousand shards cannot each fill a buffer of their own.
"""

from __future__ import annotations

import asyncio

#: What a record costs besides its data and partition key: the object, its sequence number,
#: string and list headers (measured with sys.getsizeof on CPython 3.11).
RECORD_OVERHEAD_BYTES = 320


class MemoryBudget:
    """Bytes in buffers and in files being made. For one event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffers: dict[str, int] = {}
        self._in_flight_bytes = 0
        self._changed = asyncio.Event()

    @property
    def used_bytes(self) -> int:
        return sum(self._buffers.values()) + self._in_flight_bytes

    @property
    def is_full(self) -> bool:
        return self.used_bytes >= self._limit_bytes

    def is_largest(self, shard: str) -> bool:
        """Whether this shard's buffer is the one to write out first."""
        size = self._buffers.get(shard, 0)
        return size > 0 and size == max(self._buffers.values())

    def add(self, shard: str, size_bytes: int) -> None:
        """Records came into the shard's buffer."""
        self._buffers[shard] = self._buffers.get(shard, 0) + size_bytes

    def take(self, shard: str) -> int:
        """The shard's buffer becomes a file; returns its bytes, to be given to `release`."""
        size = self._buffers.pop(shard, 0)
        self._in_flight_bytes += size
        return size

    def release(self, size_bytes: int) -> None:
        """A file is written, or given up."""
        self._in_flight_bytes -= size_bytes
        self._wake()

    def drop(self, shard: str) -> None:
        """The shard is no longer ours."""
        self._buffers.pop(shard, None)
        self._wake()

    async def changed(self) -> None:
        """Wait until something was released."""
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
