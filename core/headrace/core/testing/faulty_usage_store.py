"""A store of usage whose disk is full, or whose answers get lost, when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.engine.seam import UsageStore
from headrace.core.errors import StorageError
from headrace.core.model.usage import (
    Part,
    PartKey,
    Peak,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
    UsagePage,
)


class FaultyUsageStore:
    """Wraps a real store. `is_full`: adding fails with nothing stored. `loses_answers`: it fails
    when all is stored. `attempts` counts them."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store
        self.is_full = False
        self.loses_answers = False
        self.attempts = 0

    def last_batch(self) -> int:
        return self._store.last_batch()

    def add(self, batch: UsageBatch) -> None:
        self.attempts += 1
        if self.is_full:
            raise StorageError("database or disk is full")
        self._store.add(batch)
        if self.loses_answers:
            raise StorageError("disk I/O error")

    def prune(self, hour: int) -> None:
        self._store.prune(hour)

    def identities(self, account: str, region: str, name: str | None) -> list[StreamIdentity]:
        return self._store.identities(account, region, name)

    def totals(self, uids: Sequence[str], since_hour: int) -> tuple[int, dict[str, StreamCounts]]:
        return self._store.totals(uids, since_hour)

    def hours(self, uid: str, since_hour: int) -> tuple[int, dict[int, StreamCounts]]:
        return self._store.hours(uid, since_hour)

    def keys(self, part: Part, uid: str, since_hour: int) -> tuple[int, list[PartKey], int]:
        return self._store.keys(part, uid, since_hour)

    def page(
        self, part: Part, uid: str, since_hour: int, first: PartKey, last: PartKey
    ) -> tuple[int, UsagePage]:
        return self._store.page(part, uid, since_hour, first, last)

    def stream_peaks(self, since_hour: int) -> dict[str, list[tuple[int, Peak]]]:
        return self._store.stream_peaks(since_hour)

    def shard_peaks(self, uid: str, since_hour: int) -> dict[int, Peak]:
        return self._store.shard_peaks(uid, since_hour)

    def close(self) -> None:
        self._store.close()
