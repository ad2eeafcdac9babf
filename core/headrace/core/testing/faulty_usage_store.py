"""A store of usage whose disk is full, or whose answers get lost, when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.engine.seam import UsageStore
from headrace.core.errors import StorageError
from headrace.core.model.usage import Peak, StreamIdentity, UsageBatch, UsageRows


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

    def identities(self) -> list[StreamIdentity]:
        return self._store.identities()

    def read(
        self, streams: Sequence[StreamIdentity], since_hour: int, *, whole: bool
    ) -> tuple[int, list[UsageRows]]:
        return self._store.read(streams, since_hour, whole=whole)

    def stream_peaks(self, since_hour: int) -> dict[str, list[tuple[int, Peak]]]:
        return self._store.stream_peaks(since_hour)

    def shard_peaks(self, uid: str, since_hour: int) -> dict[int, Peak]:
        return self._store.shard_peaks(uid, since_hour)

    def close(self) -> None:
        self._store.close()
