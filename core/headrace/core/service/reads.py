"""GetShardIterator and GetRecords: from a place in a shard to the records after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.core.control.stream_state import ShardState, StreamState, find_shard, not_found
from headrace.core.engine.seam import LogClosed, RecordSlice
from headrace.core.errors import InvalidArgument, ResourceNotFound, ThroughputExceeded
from headrace.core.limits import MAX_GET_BYTES
from headrace.core.model.sequence import BEGINNING, MAX_INDEX, ORDINAL_BITS, Position, parse
from headrace.core.model.shards import shard_id, shard_number
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Capacity, metered
from headrace.core.service.catalog import Catalog, OpenStream
from headrace.core.service.dry_run import refuse_dry_run
from headrace.core.service.iterators import IteratorCodec
from headrace.core.service.usage import Usage

_FLOOR_IS_GOOD_MS = 1000


class GetAnswer(msgspec.Struct, gc=False):
    """What GetRecords found. `next_iterator` is None at the end of a closed shard."""

    slice: RecordSlice
    next_iterator: str | None
    millis_behind_latest: int
    child_shards: list[dict[str, Any]]


@dataclass(slots=True)
class ShardRead:
    """A read of a shard. `is_end`: nothing will ever follow, and these are its children."""

    slice: RecordSlice
    millis_behind_latest: int
    is_end: bool = False
    child_shards: list[dict[str, Any]] = field(default_factory=list)


class ReadService:
    """Reads on a catalog of streams."""

    def __init__(self, catalog: Catalog, usage: Usage, capacity: Capacity | None = None) -> None:
        """Without `capacity` the hardware is the limit."""
        self._catalog = catalog
        self._usage = usage
        self._capacity = capacity
        self._clock = catalog.clock
        self._iterators = IteratorCodec(catalog.engine.secret)

    # -- iterators -----------------------------------------------------------------------------

    async def get_shard_iterator(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find_readable(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        shard = shard_named(stream, request["ShardId"])
        if self._capacity is not None:
            self._capacity.check_iterator(stream, shard, is_dry=bool(request.get("DryRun")))
        opened = self._catalog.opened(stream)
        position = await self.starting_position(
            stream,
            shard,
            opened,
            request["ShardIteratorType"],
            request.get("StartingSequenceNumber"),
            request.get("Timestamp"),
        )
        now_ms = self._clock.now_ms()
        return {"ShardIterator": self._iterators.issue(stream.uid, shard.number, position, now_ms)}

    async def starting_position(
        self,
        stream: StreamState,
        shard: ShardState,
        opened: OpenStream,
        kind: str,
        text: str | None,
        at_ms: int | None,
    ) -> Position:
        """Where reading starts; `kind` is a ShardIteratorType, `text` a sequence number.

        Raises InvalidArgument when they do not go together, or not with this shard.
        """
        if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            if text is None:
                raise InvalidArgument(_SEQUENCE_RULE.format(kind, "no StartingSequenceNumber"))
            return self._at_sequence_number(stream, shard, text, after=kind[:5] == "AFTER")
        if text is not None:
            raise InvalidArgument(_SEQUENCE_RULE.format(kind, "also a StartingSequenceNumber"))
        if kind == "TRIM_HORIZON":
            return BEGINNING
        if kind == "LATEST":
            return opened.log.tail
        if at_ms is None:
            raise InvalidArgument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                "Current request has no timestamp parameter."
            )
        now_ms = self._clock.now_ms()
        if at_ms > now_ms:
            raise InvalidArgument(
                "The timestampInMillis parameter cannot be greater than the "
                f"currentTimestampInMillis. timestampInMillis: {at_ms}, "
                f"currentTimestampInMillis: {now_ms}"
            )
        try:
            return await opened.log.find_time(shard.number, max(at_ms, 0))
        except LogClosed:
            raise _gone(stream) from None

    def _at_sequence_number(
        self, stream: StreamState, shard: ShardState, text: str, *, after: bool
    ) -> Position:
        found = parse(text)
        if found is None or (found.created_s != shard.created_s and found.shard == shard.number):
            raise InvalidArgument(
                f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.id} in "
                f"stream {stream.name} under account {stream.account} is invalid."
            )
        if found.shard != shard.number:
            raise InvalidArgument(
                f"Invalid StartingSequenceNumber. It encodes {shard_id(found.shard)}, while it was "
                f"used in a call to a shard with {shard.id}"
            )
        position = found.position
        if after and position.record_index >> ORDINAL_BITS == MAX_INDEX >> ORDINAL_BITS:
            raise InvalidArgument(
                "Invalid SequenceNumber for ShardIteratorType AFTER_SEQUENCE_NUMBER, "
                "SequenceNumber has reached max possible value for the shard."
            )
        # After the shard's own StartingSequenceNumber is before its first record, but not the
        # beginning: who starts there is told if records have expired meanwhile.
        return position.after() if after else position

    # -- get -----------------------------------------------------------------------------------

    async def get(
        self, caller: Caller, token: str, limit: int, *, is_dry: bool = False
    ) -> GetAnswer:
        """Records from where the iterator points, at most `limit` and 10 MiB."""
        now_ms = self._clock.now_ms()
        opened, shard, position = self._locate(caller, token, now_ms)
        stream = opened.stream
        if self._capacity is not None:
            try:
                self._capacity.check_read(stream, shard, is_dry=is_dry)
            except ThroughputExceeded:
                self._usage.refused_get(stream, shard.number)
                raise
        read = await self.read(opened, shard, position, max_records=limit, max_bytes=MAX_GET_BYTES)
        refuse_dry_run(is_dry)
        found = read.slice
        self._usage.got(stream, shard.number, found, read.millis_behind_latest)
        if self._capacity is not None:
            self._capacity.charge_read(stream, shard, metered(found.parts))
        if read.is_end:
            return GetAnswer(found, None, 0, read.child_shards)
        token = self._iterators.issue(stream.uid, shard.number, found.next, now_ms)
        return GetAnswer(found, token, read.millis_behind_latest, [])

    def get_now(self, caller: Caller, token: str, limit: int) -> GetAnswer | None:
        """As `get`, if what there is is at hand and its reader then is at the tail; else None.

        That is what most polls find. They are counted when they have been answered. Not where
        there are limits.
        """
        assert self._capacity is None
        now_ms = self._clock.now_ms()
        opened, shard, position = self._locate(caller, token, now_ms)
        stream = opened.stream
        is_at_tail = position >= opened.log.tail  # then nothing can have expired before it
        floor = BEGINNING if is_at_tail else self._known_floor(opened, shard.number)
        if floor is None or shard.closed_s is not None:
            return None
        found = opened.log.read_now(
            shard.number, position, floor=floor, max_records=limit, max_bytes=MAX_GET_BYTES
        )
        if found is None or found.missed:
            return None
        asyncio.get_running_loop().call_soon(self._usage.got, stream, shard.number, found, 0)
        token = self._iterators.issue(stream.uid, shard.number, found.next, now_ms)
        return GetAnswer(found, token, 0, [])

    def _locate(
        self, caller: Caller, token: str, now_ms: int
    ) -> tuple[OpenStream, ShardState, Position]:
        """Where an iterator points. Raises InvalidArgument, ExpiredIterator, ResourceNotFound."""
        iterator = self._iterators.read(token, now_ms)
        opened = self._catalog.opened_by_uid(iterator.uid)
        if opened is None:
            self._catalog.check_room(iterator.uid)
            raise ResourceNotFound(
                "The stream of this shard iterator does not exist (any more), or is not served."
            )
        stream = opened.stream
        if stream.account != caller.account or stream.region != caller.region:
            raise InvalidArgument("Invalid ShardIterator.")
        if stream.status == "DELETING":
            raise not_found(stream.account, stream.name)
        shard = opened.routing.by_number.get(iterator.shard)
        if shard is None:  # expired and gone from the listing since the iterator was issued
            raise ResourceNotFound(
                f"Shard {shard_id(iterator.shard)} in stream {stream.name} under account "
                f"{stream.account} does not exist"
            )
        return opened, shard, iterator.position

    async def read(
        self,
        opened: OpenStream,
        shard: ShardState,
        position: Position,
        *,
        max_records: int,
        max_bytes: int,
    ) -> ShardRead:
        """What is there from a position on, without what has expired."""
        # asked before reading: a read may take its time, and what comes meanwhile is not in it
        may_grow = shard.is_open or shard.number in opened.closing
        try:
            floor = self._known_floor(opened, shard.number)
            if floor is None:
                floor = await self._find_floor(opened, shard.number)
            found = await opened.log.read(
                shard.number, position, floor=floor, max_records=max_records, max_bytes=max_bytes
            )
        except LogClosed:
            raise _gone(opened.stream) from None
        if found.next_arrival_ms is not None:
            return ShardRead(found, max(self._clock.now_ms() - found.next_arrival_ms, 0))
        if may_grow:
            return ShardRead(found, 0)
        return ShardRead(found, 0, is_end=True, child_shards=_children(opened.stream, shard))

    def _known_floor(self, opened: OpenStream, shard: int) -> Position | None:
        """Where the shard's first unexpired record is; None if that is to be looked up again."""
        horizon_ms = self._catalog.horizon_ms(opened.stream)
        if opened.log.oldest_arrival_ms >= horizon_ms:
            return BEGINNING
        known = opened.floors.get(shard)
        if known is not None and 0 <= horizon_ms - known[0] < _FLOOR_IS_GOOD_MS:
            return known[1]
        return None

    async def _find_floor(self, opened: OpenStream, shard: int) -> Position:
        horizon_ms = self._catalog.horizon_ms(opened.stream)
        floor = await opened.log.find_time(shard, horizon_ms)
        opened.floors[shard] = (horizon_ms, floor)
        return floor


def _gone(stream: StreamState) -> ResourceNotFound:
    """When the log was closed while it was read: the stream is deleted."""
    return not_found(stream.account, stream.name)


def shard_named(stream: StreamState, text: str) -> ShardState:
    """The shard of that id. Raises ResourceNotFound as reading operations do."""
    number = shard_number(text)
    shard = find_shard(stream, number) if number is not None else None
    if shard is None:
        where = f"in stream {stream.name} under account {stream.account}"
        if number is None:
            raise ResourceNotFound(f"Could not find shard {text} {where}.")
        raise ResourceNotFound(f"Shard {shard_id(number)} {where} does not exist")
    return shard


_SEQUENCE_RULE = (
    "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "
    "StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
    "Request specified {} and {}."
)


def _children(stream: StreamState, shard: ShardState) -> list[dict[str, Any]]:
    """ChildShards, as GetRecords answers them at the end of a closed shard."""
    return [
        {
            "ShardId": child.id,
            "ParentShards": [
                shard_id(n) for n in (child.parent, child.adjacent_parent) if n is not None
            ],
            "HashKeyRange": {"StartingHashKey": child.start, "EndingHashKey": child.end},
        }
        for child in stream.shards
        if shard.number in (child.parent, child.adjacent_parent)
    ]
