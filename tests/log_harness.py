"""What the log's tests share: a log driven as the engine drives it, and an oracle's reading."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from headrace.core.log.files import Files, SystemFiles
from headrace.core.log.stream_log import StreamLog, StreamLogOptions
from headrace.core.model.sequence import BEGINNING, Position

CREATED_S = 1_700_000_000
START_MS = CREATED_S * 1000
# How much is written between notes on the segment being written: often, now and then, never.
NOTES_EVERY_BYTES = (1, 700, 4 << 20)


class Stored(NamedTuple):
    """A record as a reader sees it."""

    data: bytes
    key: str
    number: int
    arrival_ms: int


class Driver:
    """A StreamLog with one commit at a time, as the engine's loop and thread would do it."""

    def __init__(
        self,
        folder: Path,
        files: Files | None = None,
        *,
        segment_bytes: int = 1 << 20,
        now_ms: int = START_MS,
    ) -> None:
        self.now_ms = now_ms
        self._commits = 0
        self.log = StreamLog.open(
            folder,
            files or SystemFiles(),
            now_ms=now_ms,
            options=StreamLogOptions(segment_bytes=segment_bytes),
        )

    def append(self, shard: int, data: Sequence[bytes], keys: Sequence[str] = ()) -> list[str]:
        """Into the open window; not written yet."""
        texts = [b64encode(d).decode() for d in data]
        return self.log.append(shard, CREATED_S, texts, keys or ["k"] * len(texts), self.now_ms)[1]

    def commit(self) -> None:
        """Write the open window; raises what writing raises, after the log has been told."""
        window = self.log.close_window(self.now_ms)
        if window is None:
            return
        try:
            written = self.log.write(window, self.now_ms)
        except BaseException:
            self.log.fail(window)
            raise
        self.log.publish(written)
        self._commits += 1
        if self._commits % 2:  # else the next commit does it, or a crash comes first
            self.log.note()

    def put(self, shard: int, data: Sequence[bytes], keys: Sequence[str] = ()) -> list[str]:
        numbers = self.append(shard, data, keys)
        self.commit()
        return numbers


def read_all(log: StreamLog, shard: int, *, limit: int = 10_000) -> list[Stored]:
    """The whole shard from its beginning."""
    found: list[Stored] = []
    at = BEGINNING
    while True:
        records, following = read(log, shard, at, limit=limit)
        if not records:
            return found
        found += records
        at = following


def read(
    log: StreamLog, shard: int, at: Position, *, limit: int = 10_000, max_bytes: int = 1 << 30
) -> tuple[list[Stored], Position]:
    """One read, decoded."""
    part = log.snapshot().read(shard, at, max_records=limit, max_bytes=max_bytes)
    rows = json.loads(b"[" + b",".join(part.parts) + b"]")
    assert len(rows) == part.records
    return [
        Stored(
            b64decode(row["Data"]),
            row["PartitionKey"],
            int(row["SequenceNumber"]),
            round(row["ApproximateArrivalTimestamp"] * 1000),
        )
        for row in rows
    ], part.next
