"""GetShardIterator and GetRecords: from a place in a shard to the records after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from headrace.core.control.stream_state import ShardState, StreamState, find_shard, not_found
from headrace.core.engine.seam import LogClosed, RecordSlice
from headrace.core.errors import InvalidArgument, ResourceNotFound, ThroughputExceeded
from headrace.core.later import Later
from headrace.core.limits import MAX_GET_BYTES
from headrace.core.model.sequence import BEGINNING, Position
from headrace.core.model.shards import shard_id, shard_number
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Capacity, metered
from headrace.core.service.catalog import Catalog, OpenStream
from headrace.core.service.dry_run import refuse_dry_run
from headrace.core.service.iterators import IteratorCodec
from headrace.core.service.starting_position import starting_position
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
        position = await starting_position(
            self._clock,
            opened,
            shard,
            request["ShardIteratorType"],
            request.get("StartingSequenceNumber"),
            request.get("Timestamp"),
        )
        now_ms = self._clock.now_ms()
        return {"ShardIterator": self._iterators.issue(stream.uid, shard.number, position, now_ms)}

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

    def get_now(
        self, caller: Caller, token: str, limit: int
    ) -> GetAnswer | Later[GetAnswer] | None:
        """As `get`, if what there is is at hand and its reader then is at the tail; else None.

        That is what most polls find. They are counted when they have been answered. Not where
        there are limits.

        One that finds nothing while others put is answered after their puts, if those come in the
        same turn of the loop: else its reader would have to ask again for them, and they to wait
        until it has been told that there is nothing (measured, put to visible: 0.89 times).
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
        puts = None if found.records else opened.log.after_puts()
        if puts is None:
            return self._got_now(stream, shard, found, now_ms)
        return Later(puts, partial(self._look_again, opened, shard, found, limit, now_ms))

    def _look_again(
        self, opened: OpenStream, shard: ShardState, nothing: RecordSlice, limit: int, now_ms: int
    ) -> GetAnswer:
        found = opened.log.read_now(
            shard.number,
            nothing.next,
            floor=BEGINNING,
            max_records=limit,
            max_bytes=MAX_GET_BYTES,
        )
        if found is None or found.missed:
            found = nothing  # as it was when this was asked
        return self._got_now(opened.stream, shard, found, now_ms)

    def _got_now(
        self, stream: StreamState, shard: ShardState, found: RecordSlice, now_ms: int
    ) -> GetAnswer:
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
