"""Records of one shard on their way into the next file."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.core.model.records import Record
from headrace.sinks.budget import RECORD_OVERHEAD_BYTES
from headrace.sinks.plan import LostRange


@dataclass(slots=True)
class Buffer:
    """A contiguous run of records. Age is by the monotonic clock, from the first record on."""

    records: list[Record] = field(default_factory=list)
    lost: list[LostRange] = field(default_factory=list)
    data_bytes: int = 0
    since_ms: int = 0

    def add(self, records: list[Record], monotonic_ms: int) -> int:
        """Append records; returns the memory they take, in bytes."""
        if not records:
            return 0
        if not self.records:
            self.since_ms = monotonic_ms
        data_bytes = sum([len(record.data) for record in records])
        key_bytes = sum([len(record.partition_key) for record in records])
        self.records.extend(records)
        self.data_bytes += data_bytes
        return data_bytes + key_bytes + RECORD_OVERHEAD_BYTES * len(records)

    def is_due(self, monotonic_ms: int, *, size_bytes: int, interval_ms: int) -> bool:
        """Whether it is full enough or old enough to become a file."""
        return bool(self.records) and (
            self.data_bytes >= size_bytes or monotonic_ms - self.since_ms >= interval_ms
        )

    def due_in_ms(self, monotonic_ms: int, interval_ms: int) -> int:
        """How long until it is old enough."""
        if not self.records:
            return interval_ms
        return max(0, self.since_ms + interval_ms - monotonic_ms)
