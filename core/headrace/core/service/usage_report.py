"""Usage as it is shown: one document for the command line, the dashboard and what reckons costs.

`DescribeUsage` (one of Headrace's own operations) and `GET /usage` answer the same. It is read,
encoded and sent piece by piece, so that neither memory nor what the event loop does at a time
grows with how many streams, shards and hours there are. A piece is of the moment it is read in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, get_args

import msgspec

from headrace.core.control.stream_state import not_found, stream_key
from headrace.core.errors import ValidationError
from headrace.core.model.usage import HOUR_MS, Part, StreamCounts, StreamIdentity
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.metering import Metering
from headrace.core.service.usage_document import (
    hours_text,
    page_text,
    stream_text,
    streams_text,
    time_text,
)

MAX_HOURS = 400 * 24  # as long as a stream's hours are kept
STREAMS_AT_ONCE = 50
ROWS_AT_ONCE = 2_000  # hours of shards or consumers: 0.7 MB of JSON

WORTH_SENDING_BYTES = 65_536


class DescribeUsageRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Of one stream, with its shards and consumers; without a name of all, their totals."""

    stream_name: str | None = None
    hours: Annotated[int, msgspec.Meta(ge=1, le=MAX_HOURS)] = 24


class UsageService:
    """Reads what `metering` keeps, for one account and region at a time."""

    def __init__(self, catalog: Catalog, metering: Metering) -> None:
        self._catalog = catalog
        self._metering = metering
        self._keeper = metering.keeper

    async def describe(
        self, caller: Caller, stream: str | None, hours: int
    ) -> AsyncGenerator[bytes, None]:
        """The usage of the last `hours`, the one under way included: JSON, in pieces.

        Streams that are gone are among them for as long as they have hours in it; of one made
        again under its name there are two. Raises ResourceNotFound for a stream of which nothing
        is known, ValidationError for hours that are not kept, StorageError; the last also from
        the generator, when the disk fails on the way.
        """
        if not 1 <= hours <= MAX_HOURS:
            raise ValidationError(f"Usage is kept for {MAX_HOURS} hours; hours is 1 to that.")
        chosen = await self._metering.identities(caller.account, caller.region, stream)
        if stream is not None and not chosen:
            raise not_found(caller.account, stream)
        chosen.sort(key=lambda identity: (identity.name, identity.created_ms))
        since = self._catalog.clock.now_ms() // HOUR_MS - hours + 1
        streams = self._totals(chosen, since) if stream is None else self._whole(chosen, since)
        document = _document(since, hours, streams)
        return _begun(await anext(document), document)

    async def _totals(
        self, chosen: Sequence[StreamIdentity], since: int
    ) -> AsyncGenerator[bytes, None]:
        """The elements of `streams`, with commas between, by their totals alone."""
        comma = b""
        for i in range(0, len(chosen), STREAMS_AT_ONCE):
            some = chosen[i : i + STREAMS_AT_ONCE]
            uids = [identity.uid for identity in some]
            self._metering.look_at(uids)
            totals = await self._keeper.totals(uids, since)
            used = [
                (identity, totals[identity.uid], self._is_deleted(identity))
                for identity in some
                if identity.uid in totals
            ]
            if used:
                yield comma + await asyncio.to_thread(streams_text, used)
                comma = b","

    async def _whole(
        self, chosen: Sequence[StreamIdentity], since: int
    ) -> AsyncGenerator[bytes, None]:
        """The elements of `streams`, with commas between, by hour, shard and consumer."""
        comma = b""
        for identity in chosen:
            uid = identity.uid
            self._metering.look_at([uid])
            total = (await self._keeper.totals([uid], since)).get(uid)
            if total is not None:
                yield comma
                comma = b","
                async for piece in self._one(identity, total, since):
                    yield piece

    async def _one(
        self, identity: StreamIdentity, total: StreamCounts, since: int
    ) -> AsyncGenerator[bytes, None]:
        """One such element, in pieces."""
        uid = identity.uid
        hours = await self._keeper.hours(uid, since)
        yield b'%b,"hours":%b' % (
            stream_text(identity, total, is_deleted=self._is_deleted(identity)),
            await asyncio.to_thread(lambda: hours_text(sorted(hours.items()))),
        )
        this_hour = self._catalog.clock.now_ms() // HOUR_MS
        for part in get_args(Part):
            yield b',"%b":[' % part.encode()
            comma = b""
            keys, first_hour = await self._keeper.keys(part, uid, since)
            step = max(ROWS_AT_ONCE // max(this_hour - first_hour + 1, 1), 1)
            for i in range(0, len(keys), step):
                page = await self._keeper.page(part, uid, since, keys[i : i + step])
                if page.totals:
                    yield comma + await asyncio.to_thread(page_text, part, page)
                    comma = b","
            yield b"]"
        yield b"}"

    def _is_deleted(self, identity: StreamIdentity) -> bool:
        key = stream_key(identity.account, identity.region, identity.name)
        found = self._catalog.state.streams.streams.get(key)
        return found is None or found.uid != identity.uid


async def _document(
    since: int, hours: int, streams: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """All of it. What little comes before a larger piece goes with that."""
    text = b'{"since":"%b","hours":%d,"streams":[' % (time_text(since * HOUR_MS).encode(), hours)
    async with aclosing(streams):
        async for piece in streams:
            text += piece
            if len(text) >= WORTH_SENDING_BYTES:
                yield text
                text = b""
    yield text + b"]}"


async def _begun(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async with aclosing(rest):
        async for piece in rest:
            yield piece
