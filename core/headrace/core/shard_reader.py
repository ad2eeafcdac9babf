"""Reading one shard on from a position, through outages, expired iterators and retention.

Owns the question "has anything been missed?". A position is the last sequence number read. A
Headrace says with each answer whether records behind the position have expired unread. AWS does
not; there, an iterator that has to be made anew is made *at* the last record read and not after
it: if that record comes first, nothing is missing. If it does not, it has expired, and records
behind it may have, so that counts as a loss. Either way the batch says so, never in silence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from headrace.core.client import GetResult, StreamClient
from headrace.core.errors import (
    ExpiredIterator,
    HeadraceError,
    InvalidArgument,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
)
from headrace.core.limits import MAX_RECORDS_PER_GET
from headrace.core.model.records import Record, StartingPosition
from headrace.core.model.sequence import parse
from headrace.core.retry import Backoff, is_passing

_BIRTH_MARGIN_MS = 60_000


@dataclass(slots=True)
class ReadBatch:
    """Records in order, all after what was read before.

    `lost_after` is None normally; else records after that sequence number and before this batch
    expired unread (or, on AWS, may have).
    """

    records: list[Record]
    millis_behind_latest: int
    lost_after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a shard without a position begins.

    `since_ms` is when the application began, which is what LATEST means (0: not known);
    `shard_from` is the shard's starting sequence number (None: not known).
    """

    kind: StartingPosition = StartingPosition.TRIM_HORIZON
    at_ms: int | None = None
    since_ms: int = 0
    shard_from: str | None = None

    @property
    def is_whole_shard(self) -> bool:
        """Whether the shard was surely born while the application was there: it wants all of it.

        Not by a hair, because a shard's creation is numbered after its parents', which takes it
        ahead of the clock when they are young.
        """
        born = parse(self.shard_from) if self.shard_from else None
        return (
            self.kind != StartingPosition.AT_TIMESTAMP
            and born is not None
            and 0 < self.since_ms < born.created_s * 1000 - _BIRTH_MARGIN_MS
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """A batch, and where the reader stands once it is accepted."""

    batch: ReadBatch
    position: str | None
    iterator: str | None
    expected: str | None
    is_end: bool


class ShardReader:
    """Reads one shard from after `position`. Nothing moves on until `accept`."""

    def __init__(
        self,
        client: StreamClient,
        stream: str,
        shard_id: str,
        *,
        position: str | None,
        start: Start,
        on_failure: Callable[[HeadraceError, float], Awaitable[None]],
        on_success: Callable[[], None],
        backoff: Backoff,
    ) -> None:
        """`on_failure` waits so many milliseconds, or raises to give up."""
        self.position = position
        self.is_at_end = False
        self._client = client
        self._stream = stream
        self._shard_id = shard_id
        self._start = start
        self._on_failure = on_failure
        self._on_success = on_success
        self._backoff = backoff
        self._iterator: str | None = None
        self._expected: str | None = None  # the record that the iterator was made at
        self._told: str | None = None  # the position whose loss has been reported

    def accept(self, fetched: Fetched) -> ReadBatch:
        """Move on to behind what `fetch` returned."""
        if fetched.batch.lost_after is not None:
            self._told = fetched.batch.lost_after
        self.position = fetched.position
        self.is_at_end = fetched.is_end
        self._iterator = fetched.iterator
        self._expected = fetched.expected
        return fetched.batch

    async def fetch(self, limit: int) -> Fetched:
        """The next answer, which may be empty. Tries until there is one; see `on_failure`.

        Raises the ServiceError that no retry can mend.
        """
        attempt = 0
        while True:
            had_iterator = self._iterator is not None
            try:
                fetched = await self._fetch_once(limit)
            except HeadraceError as error:
                if isinstance(error, ExpiredIterator | InvalidArgument):
                    self._iterator = None
                    if had_iterator:  # too old, or of a server that was set up anew
                        continue
                if not (
                    is_passing(error)
                    or isinstance(
                        error, ExpiredIterator | ResourceNotFound | ResourceInUse | LimitExceeded
                    )
                ):
                    raise
                await self._on_failure(error, self._backoff.next_ms(attempt))
                attempt += 1
            else:
                self._on_success()
                return fetched

    async def _fetch_once(self, limit: int) -> Fetched:
        try:
            if self._iterator is None:
                await self._open()
            assert self._iterator is not None
            if self._expected is not None:
                limit = min(limit + 1, MAX_RECORDS_PER_GET)
            result = await self._client.get_records(self._iterator, limit=limit)
        except ResourceNotFound:
            self._iterator = None  # it may be of a stream that was deleted and made again
            if not await self._is_gone():
                raise
            # the shard went out of retention, with whatever was left to read in it
            lost_after = self._untold(self._promised_after())
            return Fetched(ReadBatch([], 0, lost_after), self.position, None, None, True)
        return self._judge(result)

    async def _open(self) -> None:
        """Make an iterator. Keeps what it has learned even if the fetch comes to nothing."""
        kind, sequence_number, at_ms = "TRIM_HORIZON", None, None
        is_headrace = self._client.is_headrace
        if self.position is not None:
            if not self._is_foreign():
                kind = "AFTER_SEQUENCE_NUMBER" if is_headrace else "AT_SEQUENCE_NUMBER"
                sequence_number = self.position
        elif self._start.is_whole_shard and is_headrace:
            kind, sequence_number = "AFTER_SEQUENCE_NUMBER", self._start.shard_from
        elif self._start.kind == StartingPosition.LATEST:
            if self._start.since_ms:
                kind, at_ms = "AT_TIMESTAMP", self._start.since_ms
            else:
                kind = "LATEST"
        elif self._start.kind == StartingPosition.AT_TIMESTAMP:
            kind, at_ms = "AT_TIMESTAMP", self._start.at_ms
        self._iterator = await self._client.get_shard_iterator(
            self._stream, self._shard_id, kind, sequence_number=sequence_number, at_ms=at_ms
        )
        self._expected = sequence_number if kind == "AT_SEQUENCE_NUMBER" else None

    def _judge(self, result: GetResult) -> Fetched:
        """Whether anything is missing before an answer's first record."""
        records, expected, lost_after = result.records, self._expected, None
        is_end = result.next_iterator is None
        if self._is_foreign():
            lost_after = self._untold(self.position)
        elif result.has_missed:
            lost_after = self._promised_after() or self._start.shard_from or "0"
        # an empty answer decides nothing while there is more: AWS gives those now and then
        elif expected is not None and (records or is_end or result.millis_behind_latest == 0):
            if records and records[0].sequence_number == expected:
                records = records[1:]
            else:
                lost_after = self._untold(expected)
            expected = None
        return Fetched(
            ReadBatch(records, result.millis_behind_latest, lost_after),
            records[-1].sequence_number if records else self.position,
            result.next_iterator,
            expected,
            is_end,
        )

    def _is_foreign(self) -> bool:
        """Whether the position is of a stream that was deleted and made again since."""
        return (
            self.position is not None
            and self._start.shard_from is not None
            and int(self.position) < int(self._start.shard_from)
        )

    def _promised_after(self) -> str | None:
        """After which number every record is owed to the application; None: whatever there is."""
        if self.position is not None:
            return self.position
        return self._start.shard_from if self._start.is_whole_shard else None

    def _untold(self, position: str | None) -> str | None:
        return position if position != self._told else None

    async def _is_gone(self) -> bool:
        """Whether the stream is there without this shard. Raises ResourceNotFound if neither is.

        A stream that shows no shards at all is on its way out, or not there yet.
        """
        shards = await self._client.list_shards(self._stream)
        return bool(shards) and all(shard.shard_id != self._shard_id for shard in shards)
