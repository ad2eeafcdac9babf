"""The plan log of one shard, and the schema log of one sink: numbered entries, put-if-absent.

The end of a log is found without listing it: entries are numbered from 1 without gaps and never
removed, so doubling a number until it is absent and halving the distance back takes about
2 log2(n) look-ups, some forty after a year of a plan a minute. Nothing needs to be remembered
for it anywhere else, so nothing can be remembered wrongly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from headrace.core.errors import DeliveryError
from headrace.sinks.json_types import JsonType
from headrace.sinks.plan import (
    Done,
    Plan,
    decode_done,
    decode_plan,
    decode_schema,
    done_key,
    encode,
    plan_key,
    schema_key,
)
from headrace.sinks.schema import TableSchema
from headrace.sinks.stores.protocol import ObjectStore


async def last_number(exists: Callable[[int], Awaitable[bool]], known: int = 0) -> int:
    """The greatest n >= `known` for which `exists(n)`, where all of 1..n exist; 0 for none."""
    low, step = known, 1
    while await exists(low + step):
        low += step
        step *= 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if await exists(middle):
            low = middle
        else:
            high = middle
    return low


class PlanLog:
    """Entries of one shard. Methods raise DeliveryError as the store does."""

    def __init__(self, store: ObjectStore, sink: str, shard: str) -> None:
        self._store = store
        self._sink = sink
        self._shard = shard

    async def last_plan(self) -> int:
        """The number of the last plan; 0 for an empty log."""

        async def exists(number: int) -> bool:
            key = plan_key(self._sink, self._shard, number)
            return await self._store.head(key) is not None

        return await last_number(exists)

    async def plan(self, number: int) -> Plan | None:
        key = plan_key(self._sink, self._shard, number)
        data = await self._store.get(key)
        return None if data is None else decode_plan(data, self._where(key))

    async def done(self, number: int) -> Done | None:
        key = done_key(self._sink, self._shard, number)
        data = await self._store.get(key)
        return None if data is None else decode_done(data, self._where(key))

    async def propose(self, plan: Plan) -> Plan:
        """Put a plan unless its number is taken; returns the plan that has the number."""
        key = plan_key(self._sink, self._shard, plan.number)
        if await self._store.put_if_absent(key, encode(plan), {}):
            return plan
        holder = await self.plan(plan.number)
        if holder is None:
            raise DeliveryError(
                f"{self._where(key)} is taken, and is not there when read",
                destination=self._store.destination,
                retryable=True,
            )
        return plan if holder.id == plan.id else holder

    async def finish(self, done: Done) -> None:
        """Put the done entry; one that is there already says the same."""
        await self._store.put_if_absent(
            done_key(self._sink, self._shard, done.number), encode(done), {}
        )

    async def sweep(self, number: int) -> None:
        """Remove what interrupted puts of this number's entries left behind."""
        for key in (plan_key, done_key):
            await self._store.discard_partial(key(self._sink, self._shard, number))

    def _where(self, key: str) -> str:
        return self._store.destination.rstrip("/") + "/" + key


class SchemaLog:
    """The versions of a sink's columns, agreed on by all shards and workers."""

    def __init__(self, store: ObjectStore, sink: str) -> None:
        self._store = store
        self._sink = sink
        self.current = TableSchema()

    async def open(self) -> TableSchema:
        """Read the latest version; remove what interrupted puts left behind."""
        await self.refresh()
        for version in (self.current.version, self.current.version + 1):
            await self._store.discard_partial(schema_key(self._sink, version))
        return self.current

    async def refresh(self) -> TableSchema:
        """Read the latest version."""

        async def exists(version: int) -> bool:
            return await self._store.head(schema_key(self._sink, version)) is not None

        version = await last_number(exists, self.current.version)
        if version > self.current.version:
            self.current = await self._load(version)
        return self.current

    async def grow(self, seen: Mapping[str, JsonType]) -> TableSchema:
        """Make room for what was seen, durably; returns the latest version.

        When somebody else made the next version meanwhile, theirs counts, and ours comes on top
        of it as far as it still is new.
        """
        while True:
            grown = self.current.grown(seen)
            if grown is self.current:
                return grown
            key = schema_key(self._sink, grown.version)
            if await self._store.put_if_absent(key, encode(grown), {}):
                self.current = grown
                return grown
            await self.refresh()

    async def _load(self, version: int) -> TableSchema:
        key = schema_key(self._sink, version)
        data = await self._store.get(key)
        where = self._store.destination.rstrip("/") + "/" + key
        return decode_schema(data or b"", where)
