"""What all shards of one sink share, and the one way to wait for a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from headrace.core.clock import Clock
from headrace.core.errors import DeliveryError
from headrace.core.retry import Backoff
from headrace.core.troubles import Troubles
from headrace.sinks.budget import MemoryBudget
from headrace.sinks.config import SinkConfig
from headrace.sinks.plan import Settings
from headrace.sinks.plan_log import SchemaLog
from headrace.sinks.stores.protocol import ObjectStore

T = TypeVar("T")

#: A shard is read about once a second, if only to find nothing; beyond this it is held up.
HELD_UP_MS = 5_000

#: Files being made at once per sink. Each uses Arrow's own threads for most of its work.
CONVERSIONS = 2


@dataclass(slots=True)
class Figures:
    """What `status` shows; counts are since the process started."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    lost_ranges: int = 0
    reads: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note_read(self, shard: str, behind_ms: int, monotonic_ms: int) -> None:
        """The shard was read just now, so far behind its newest record."""
        self.reads[shard] = (behind_ms, monotonic_ms)

    def behind_ms(self, monotonic_ms: int) -> int:
        """How far the slowest shard is behind. While reading is held up, time adds to it."""
        return max((self._lag(*read, monotonic_ms) for read in self.reads.values()), default=0)

    @staticmethod
    def _lag(behind_ms: int, read_ms: int, now_ms: int) -> int:
        silent_ms = now_ms - read_ms
        return behind_ms + (silent_ms if silent_ms > HELD_UP_MS else 0)


class SinkContext:
    """Store, schema, budget, figures and troubles of one sink, in one event loop."""

    def __init__(
        self, config: SinkConfig, store: ObjectStore, *, clock: Clock, troubles: Troubles
    ) -> None:
        self.config = config
        self.name = config.sink_name
        self.stream = config.stream
        self.store = store
        self.clock = clock
        self.troubles = troubles
        self.settings = Settings(partition_by=config.partition_by, compression=config.compression)
        self.schemas = SchemaLog(store, self.name)
        self.schema_lock = asyncio.Lock()
        self.budget = MemoryBudget(config.buffer.memory)
        self.figures = Figures()
        self.backoff = Backoff(initial_ms=200, max_ms=10_000)
        self._conversions = asyncio.Semaphore(CONVERSIONS)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what computes for long; heartbeats go on meanwhile."""
        async with self._conversions:
            return await asyncio.to_thread(call)

    async def until_done(self, where: str, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call on the store until it succeeds, saying meanwhile what is wrong.

        Whoever waits here reads no more records: that is the back-pressure. Raises the
        DeliveryErrors that no waiting can mend.
        """
        attempt = 0
        key = f"{self.name}/{where}/store"
        while True:
            try:
                result = await call()
            except DeliveryError as error:
                if not error.retryable:
                    raise
                self.troubles.report(key, f"sink {self.name}, {where}: {error}")
                await self.clock.sleep_ms(self.backoff.next_ms(attempt))
                attempt += 1
            else:
                self.troubles.clear(key)
                return result
