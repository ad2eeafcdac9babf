"""PutRecord and PutRecords: routing, checking and storing records.

Takes and gives columns, not a value per record; the wire renders them.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Coroutine
from operator import itemgetter
from typing import Any

import msgspec

from headrace.core.control.stream_state import ShardState, StreamState
from headrace.core.engine.seam import ShardPut, StampedRecord
from headrace.core.errors import InvalidArgument, ResourceNotFound, ThroughputExceeded
from headrace.core.limits import KIB
from headrace.core.model.blobs import decoded_sizes
from headrace.core.model.hashing import MAX_HASH_KEY, hash_key
from headrace.core.model.sequence import parse
from headrace.core.model.shards import shard_id
from headrace.core.model.usage import Extent, extent_of
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Capacity
from headrace.core.service.catalog import Catalog, OpenStream
from headrace.core.service.distribution import Spreading, stamped_hash_keys
from headrace.core.service.dry_run import refuse_dry_run
from headrace.core.service.put_columns import PutAnswer, PutColumns, Stamp
from headrace.core.service.routing import deal, split
from headrace.core.service.usage import Usage


class PutBegun(msgspec.Struct, frozen=True):
    """One record on its way to the disk: stored, under this number, when `durable` is done.

    To be collected: an error in `durable` may hold frames that hold this.
    """

    stream: StreamState
    shard: ShardState
    payload_bytes: int
    sequence_number: str
    durable: Future[None]


class PutService:
    """Puts on a catalog of streams."""

    def __init__(self, catalog: Catalog, usage: Usage, capacity: Capacity | None = None) -> None:
        """Without `capacity` the hardware is the limit."""
        self._catalog = catalog
        self._usage = usage
        self._capacity = capacity
        self._spreading = Spreading()

    async def put(
        self,
        caller: Caller,
        name: str | None,
        arn: str | None,
        columns: PutColumns,
        stamp: Stamp | None = None,
        *,
        ordering: str | None = None,
        is_dry: bool = False,
    ) -> PutAnswer:
        """Store records in the order given; returns once they are durable.

        `ordering` is a sequence number that the new ones must exceed. They do anyway, so it is
        only checked to be one that has been given out.

        Raises ValidationError for a record over the stream's limit, StorageFull, ServiceUnavailable
        when the disk cannot keep up; then nothing of the request is stored.
        """
        try:
            stream = self._catalog.find_readable(caller, name, arn)
        except ResourceNotFound:
            if columns.is_keyless:  # what is wrong with the request itself is said first
                raise columns.keyless() from None
            raise
        opened = self._catalog.opened(stream)
        extent = extent_of(columns.sizes, columns.keys)
        columns.check_sizes(extent, stream.max_record_kib * KIB)
        if ordering is not None:
            _check_ordering(ordering, stream, opened)
        if not stream.is_spread:  # where they are, explicit hash keys are not looked at
            columns.check_hash_keys()
        if stamp is not None:
            stamp.check(len(columns.data))
        routes = self._routes(stream, opened, columns, stamp)
        if is_dry:
            self._refuse_dry(opened, columns, routes)
        if self._capacity is None:
            answer = await self._store(opened, columns, routes, stamp, extent)
        else:
            answer = await self._store_within(
                self._capacity, opened, columns, routes, stamp, extent
            )
        if stream.key_id is not None:
            answer.encryption = stream.encryption
        return answer

    def put_one(
        self, caller: Caller, name: str, data: str, key: str, explicit: str | None
    ) -> PutBegun | None:
        """Begin to put one record whose `data` ought to be base64; the rest has been checked.

        None where there is more to look at than usual, or something is wrong, with nothing done:
        `put` sees to that. Raises ServiceUnavailable as `put` does. Not where there are limits.
        """
        assert self._capacity is None
        opened = self._catalog.serving(caller, name)
        sizes = decoded_sizes([data])
        if opened is None or sizes is None:
            return None
        stream = opened.stream
        size = sizes[0] + len(key)
        if stream.is_spread or not key.isascii() or size > stream.max_record_kib * KIB:
            return None
        if explicit is not None and int(explicit) > MAX_HASH_KEY:
            return None
        shard = opened.routing.shards[opened.routing.route_one(key, explicit)]
        is_encrypted = stream.key_id is not None
        put = ShardPut(shard.number, shard.created_s, [data], [key], size, is_encrypted)
        ((number,),), durable = opened.log.append_soon([put])
        return PutBegun(stream, shard, size, number, durable)

    def count_one(self, begun: PutBegun) -> None:
        """Count what `put_one` began, when it is stored."""
        self._usage.put_one(begun.stream, begun.shard.number, begun.payload_bytes)

    def _routes(
        self, stream: StreamState, opened: OpenStream, columns: PutColumns, stamp: Stamp | None
    ) -> list[int]:
        """Index into the open shards for each record."""
        if not stream.is_spread:
            if columns.is_keyless:
                raise columns.keyless()
            return opened.routing.route(columns.keys, columns.explicit)
        if stamp is None:
            return self._spreading.routes(opened, len(columns.data))
        columns.explicit = stamped_hash_keys(stamp.producer_id, stamp.sequences, columns.keys)
        return opened.routing.route(columns.keys, columns.explicit)

    def _refuse_dry(self, opened: OpenStream, columns: PutColumns, routes: list[int]) -> None:
        """Raises ThroughputExceeded where nothing of it would be stored, else DryRun."""
        if self._capacity is not None:
            refused = self._capacity.admit(
                opened.stream, opened.routing.shards, routes, _metered_sizes(columns),
                in_order=False, is_dry=True,
            )  # fmt: skip
            if len(refused) == len(routes):
                raise ThroughputExceeded(refused[0])
        refuse_dry_run(is_dry=True)

    async def _store_within(
        self,
        capacity: Capacity,
        opened: OpenStream,
        columns: PutColumns,
        routes: list[int],
        stamp: Stamp | None,
        extent: Extent,
    ) -> PutAnswer:
        """As `_store`, but for what is over the shards' capacity."""
        stream = opened.stream
        sizes = _metered_sizes(columns)
        refused = capacity.admit(
            stream, opened.routing.shards, routes, sizes, in_order=stamp is not None
        )
        if not refused:
            return await self._store(opened, columns, routes, stamp, extent)
        self._usage.refused(stream, opened.routing.shards, routes, sizes, list(refused))
        kept = [i for i in range(len(routes)) if i not in refused]
        answer = PutAnswer([""] * len(routes), [""] * len(routes), refused)
        if kept:
            stored = await self._store(
                opened,
                columns.only(kept),
                [routes[i] for i in kept],
                None if stamp is None else stamp.only(kept),
                extent,
            )
            for at, i in enumerate(kept):
                answer.sequence_numbers[i] = stored.sequence_numbers[at]
                answer.shard_ids[i] = stored.shard_ids[at]
        return answer

    def _store(
        self,
        opened: OpenStream,
        columns: PutColumns,
        routes: list[int],
        stamp: Stamp | None,
        extent: Extent,
    ) -> Coroutine[Any, Any, PutAnswer]:
        if stamp is not None:
            return self._put_once(opened, columns, routes, stamp, extent)
        return self._put(opened, columns, routes, extent)

    async def _put(
        self, opened: OpenStream, columns: PutColumns, routes: list[int], extent: Extent
    ) -> PutAnswer:
        shards, ids = opened.routing.shards, opened.routing.ids
        is_encrypted = opened.stream.key_id is not None
        whole = columns.data, columns.keys, columns.sizes
        one = routes[0]
        parts = {one: whole} if routes.count(one) == len(routes) else split(routes, whole)
        # what is in flight is bounded in all: which shard has how much of it does not matter
        share = extent.data_bytes // len(parts)
        puts = [
            ShardPut(shards[route].number, shards[route].created_s, data, keys, share, is_encrypted)
            for route, (data, keys, _) in parts.items()
        ]
        numbers, durable = opened.log.append_soon(puts)
        # the answer is made while the disk is at work, where that is in another thread
        if len(parts) == 1:
            answer = PutAnswer(numbers[0], [ids[one]] * len(routes))
        else:
            dealt = deal(routes, dict(zip(parts, numbers, strict=True)))
            answer = PutAnswer(dealt, list(itemgetter(*routes)(ids)))
        await durable
        for put, (_, keys, sizes) in zip(puts, parts.values(), strict=True):
            self._usage.put(opened.stream, put.shard, sizes, keys, extent)
        return answer

    async def _put_once(
        self,
        opened: OpenStream,
        columns: PutColumns,
        routes: list[int],
        stamp: Stamp,
        extent: Extent,
    ) -> PutAnswer:
        shards = opened.routing.shards
        is_encrypted = opened.stream.key_id is not None
        explicit = columns.explicit
        records = [
            StampedRecord(
                shard=shards[route].number,
                created_s=shards[route].created_s,
                data=data,
                key=key,
                hash_key=hash_key(key)
                if explicit is None or (given := explicit[i]) is None
                else int(given),
                payload_bytes=len(data),
                sequence=sequence,
                is_encrypted=is_encrypted,
            )
            for i, (route, data, key, sequence) in enumerate(
                zip(routes, columns.data, columns.keys, stamp.sequences, strict=True)
            )
        ]
        numbers, stored = await opened.log.append_once(stamp.producer_id, stamp.epoch, records)
        for shard, group in stored.items():  # what was there already is no use made of the stream
            chosen = [columns.keys[i] for i in group]
            sizes = [columns.sizes[i] for i in group]
            self._usage.put(opened.stream, shard, sizes, chosen, extent)
        return PutAnswer(numbers, [_shard_of(number) for number in numbers])


def _metered_sizes(columns: PutColumns) -> list[int]:
    """Bytes of data and key of each record."""
    return [size + len(key.encode()) for size, key in zip(columns.sizes, columns.keys, strict=True)]


def _check_ordering(text: str, stream: StreamState, opened: OpenStream) -> None:
    found = parse(text)
    shard = None if found is None else opened.routing.by_number.get(found.shard)
    if (
        found is None
        or found.position >= opened.log.tail
        # of a shard that has expired only so much is known: it was older than those that are there
        or found.created_s > (stream.shards[-1] if shard is None else shard).created_s
    ):
        raise InvalidArgument(
            f"ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {stream.name} "
            f"under account {stream.account} is invalid."
        )


def _shard_of(number: str) -> str:
    """The shard a record went to: for one that had been stored, maybe a parent of its route's."""
    found = parse(number)
    assert found is not None
    return shard_id(found.shard)
