"""The engine seam: all that the operations know of where records and control state are kept.

Two narrow interfaces. `ShardLog` keeps the records of one stream's shards; `ControlLog` keeps an
ordered, durable run of commands and the state they lead to. The `embedded` engine is the default;
a distributed one (the Kafka protocol) implements the same two. Nothing above may know which runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from headrace.core.errors import HeadraceError
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.sequence import Position
from headrace.core.model.usage import (
    Part,
    PartKey,
    Peak,
    StreamCounts,
    StreamIdentity,
    UsageBatch,
    UsagePage,
)


class LogClosed(HeadraceError):
    """The stream's log has been closed meanwhile: it was deleted, or the process stops."""


class ShardPut(msgspec.Struct, frozen=True, gc=False):
    """Records for one shard. `data` is valid base64 text; `created_s` the shard's creation.

    `payload_bytes` is what AWS meters: decoded data and UTF-8 partition keys. A record without a
    partition key has an empty one. `is_encrypted` marks the records as an encrypted stream's.
    """

    shard: int
    created_s: int
    data: Sequence[str]
    keys: Sequence[str]
    payload_bytes: int
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True)
class StampedRecord:
    """One record of an idempotent put."""

    shard: int
    created_s: int
    data: str
    key: str
    hash_key: int
    payload_bytes: int
    sequence: int
    is_encrypted: bool = False


class OnceAnswer(NamedTuple):
    """A sequence number per record; `stored` are the indexes of those stored now, by shard."""

    numbers: list[str]
    stored: dict[int, list[int]]


class RecordSlice(Protocol):
    """Part of a shard as read: JSON objects joined by commas."""

    @property
    def parts(self) -> list[memoryview]: ...
    @property
    def records(self) -> int: ...
    @property
    def next(self) -> Position: ...
    @property
    def next_arrival_ms(self) -> int | None:
        """When the first record after the slice arrived; None when there is none yet."""

    @property
    def missed(self) -> bool:
        """Records between the position asked for and the first one given have expired unread."""

    @property
    def last_sequence_number(self) -> str:
        """Of the last record of `parts`, which must not be empty."""


class ShardLog(Protocol):
    """The records of one stream, by shard."""

    async def append(self, puts: Sequence[ShardPut]) -> list[list[str]]:
        """Store records; returns their sequence numbers per put, once they are durable.

        Raises StorageFull (nothing stored) or ServiceUnavailable (too much in flight).
        """

    def append_soon(self, puts: Sequence[ShardPut]) -> tuple[list[list[str]], asyncio.Future[None]]:
        """As `append`, not waiting: the numbers, which hold once the future is done.

        Raises ServiceUnavailable; the future has what else `append` raises.
        """

    async def append_once(
        self, producer_id: str, epoch: int, records: Sequence[StampedRecord]
    ) -> OnceAnswer:
        """Store records unless the producer has stored their sequences.

        `records` are in the producer's order. A record already stored is answered with the
        number of the last one stored in its place. Raises ProducerFenced, with nothing stored,
        when a higher epoch of the producer has stored anything in the stream.
        """

    async def read(
        self, shard: int, position: Position, *, floor: Position, max_records: int, max_bytes: int
    ) -> RecordSlice:
        """Records from `position` on, at least one if there are any. Only durable ones.

        All that could be read when it was called is taken into account; what comes while it waits
        for the disk need not be. What lies before `floor` has expired and is not given. Raises
        LogClosed, and CorruptSegment where what is stored is not what was written.
        """

    def read_now(
        self, shard: int, position: Position, *, floor: Position, max_records: int, max_bytes: int
    ) -> RecordSlice | None:
        """As `read`, if all that there is from `position` on is at hand: its reader is at the tail
        then. Else None."""

    def after_puts(self) -> asyncio.Future[None] | None:
        """Done when what is put in this turn of the loop can be read, or will not be at once.

        None where nobody puts: there is no use in looking again.
        """

    def arrival(self, shard: int) -> asyncio.Future[None]:
        """Done as soon as more of the shard can be read than now, or its stream's shards change.

        Ask before reading what there is, and nothing slips through in between. Cancel it when it
        is not wanted any more.
        """

    async def find_time(self, shard: int, at_ms: int) -> Position:
        """Of the first record that arrived at `at_ms` or later; the tail if there is none.

        Records that are still in flight, and those that come while it waits for the disk, are
        after it. Raises as `read` does.
        """

    @property
    def tail(self) -> Position:
        """After all that has been acknowledged, before all that will be."""

    @property
    def last_shard(self) -> int:
        """The highest number of a shard that has had records; -1 where none has."""

    @property
    def oldest_arrival_ms(self) -> int:
        """When the oldest record still stored arrived; 0 when there is none."""

    @property
    def stored_bytes(self) -> int: ...

    async def seal(self, ranges: Iterable[HashKeyRange]) -> None:
        """Wait until all that was appended is durable; `ranges` are those of new shards.

        After it, the caller appends nothing more to the shards it closes.
        """

    async def trim(self, before_ms: int) -> int:
        """Remove what arrived before, in whole segments; returns how many."""

    async def close(self) -> None: ...


class ControlLog(Protocol):
    """An ordered, durable run of commands. The total order is the compare-and-set."""

    @property
    def state(self) -> Any:
        """The state all commands so far have led to. Read it; never change it."""

    @property
    def watchers(self) -> list[Callable[[Any], None]]:
        """Told of every command that has changed the state, just after it has."""

    async def submit(self, command: Any) -> Any:
        """Make a command durable, apply it, return its result.

        Raises what applying raises, and StorageFull: a refused command changes nothing.
        """

    async def close(self) -> None: ...


class UsageStore(Protocol):
    """Where usage is kept by the hour. Blocking; any thread may call. Each raises StorageError."""

    def last_batch(self) -> int:
        """The number of the last batch that was added; 0 before the first."""

    def add(self, batch: UsageBatch) -> None:
        """Add a batch, unless one of its number or a later one was added already.

        So one that was refused, or whose answer was lost, may be added again.
        """

    def prune(self, hour: int) -> None:
        """Forget what at that Unix hour is too old to be kept."""

    def identities(self, account: str, region: str, name: str | None) -> list[StreamIdentity]:
        """The account's streams of which there is anything, those that are gone too.

        With `name`, those that had it.
        """

    # The first of what these give is the last batch's number: later ones are not in it.

    def totals(self, uids: Sequence[str], since_hour: int) -> tuple[int, dict[str, StreamCounts]]:
        """By stream uid, the sum of the hours from one on, of streams that have any."""

    def hours(self, uid: str, since_hour: int) -> tuple[int, dict[int, StreamCounts]]:
        """A stream's hours from one on."""

    def keys(self, part: Part, uid: str, since_hour: int) -> tuple[int, list[PartKey], int]:
        """Which shards or consumers there is anything of, in order, and from which hour on."""

    def page(
        self, part: Part, uid: str, since_hour: int, first: PartKey, last: PartKey
    ) -> tuple[int, UsagePage]:
        """Those from `first` to `last`, from an hour on."""

    def stream_peaks(self, since_hour: int) -> dict[str, list[tuple[int, Peak]]]:
        """By stream uid: (hour, its busiest minute), in the order of the hours.

        Of the first hour there is, and of those whose peak no later one reaches: a window over
        the last hours needs no others.
        """

    def shard_peaks(self, uid: str, since_hour: int) -> dict[int, Peak]:
        """The busiest minute since then of each of a stream's shards."""

    def close(self) -> None: ...


class Engine(Protocol):
    """Where everything is kept."""

    @property
    def control(self) -> ControlLog: ...

    @property
    def secret(self) -> bytes:
        """32 random bytes made with the store; shard iterators are signed with them."""

    async def open_log(self, uid: str, ranges: Iterable[HashKeyRange], *, is_new: bool) -> ShardLog:
        """The log of a stream. `ranges` are of all its shards.

        One that `is_new` is made if it is not there; of any other it would have been lost.
        Raises StorageFull where that takes room that is not there: another try may follow at any
        time. Any other StorageError, or OSError, is there to stay.
        """

    async def delete_log(self, uid: str) -> None:
        """Remove a stream's log; its files are gone when this returns."""

    async def close(self) -> None: ...
