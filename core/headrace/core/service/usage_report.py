"""Usage as it is shown: one document for the command line, the dashboard and what reckons costs.

`DescribeUsage` (one of Headrace's own operations) and `GET /usage` answer the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from headrace.core.control.stream_state import not_found, stream_key
from headrace.core.errors import ValidationError
from headrace.core.model.shards import shard_id
from headrace.core.model.usage import (
    HOUR_MS,
    ConsumerCounts,
    Counts,
    StreamCounts,
    StreamIdentity,
    UsageRows,
    merge,
)
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.metering import Metering

MAX_HOURS = 400 * 24  # as long as a stream's hours are kept


class DescribeUsageRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Of one stream, with its shards and consumers; without a name of all, their totals."""

    stream_name: str | None = None
    hours: Annotated[int, msgspec.Meta(ge=1, le=MAX_HOURS)] = 24


class UsageService:
    """Reads what `metering` keeps, for one account and region at a time."""

    def __init__(self, catalog: Catalog, metering: Metering) -> None:
        self._catalog = catalog
        self._metering = metering

    async def describe(self, caller: Caller, stream: str | None, hours: int) -> dict[str, Any]:
        """The usage of the last `hours`, the one under way included.

        Streams that are gone are among them for as long as they have hours in it; of one made
        again under its name there are two. Raises ResourceNotFound for a stream of which nothing
        is known, ValidationError for hours that are not kept, StorageError.
        """
        if not 1 <= hours <= MAX_HOURS:
            raise ValidationError(f"Usage is kept for {MAX_HOURS} hours; hours is 1 to that.")
        since = self._catalog.clock.now_ms() // HOUR_MS - hours + 1
        chosen = [
            identity
            for identity in await self._metering.identities()
            if (identity.account, identity.region) == (caller.account, caller.region)
            and stream in (None, identity.name)
        ]
        if stream is not None and not chosen:
            raise not_found(caller.account, stream)
        chosen.sort(key=lambda identity: (identity.name, identity.created_ms))
        found = await self._metering.rows(chosen, since, whole=stream is not None)
        # in a thread: many streams' hours take a while to add up
        streams = await asyncio.to_thread(
            lambda: [
                self._described(rows, whole=stream is not None) for rows in found if rows.streams
            ]
        )
        return {"since": _time(since * HOUR_MS), "hours": hours, "streams": streams}

    def _described(self, rows: UsageRows, *, whole: bool) -> dict[str, Any]:
        identity = rows.identity
        total = StreamCounts()
        for _, counts in sorted(rows.streams.items()):
            merge(total, counts)
        document = {
            "stream": identity.name,
            "arn": f"arn:aws:kinesis:{identity.region}:{identity.account}:stream/{identity.name}",
            "created": _time(identity.created_ms),
            "is_deleted": self._is_deleted(identity),
            "total": msgspec.structs.asdict(total),
        }
        if whole:
            document["hours"] = _by_hour(rows.streams)
            shards: dict[int, dict[int, Counts]] = {}
            for (hour, shard), of_shard in rows.shards.items():
                shards.setdefault(shard, {})[hour] = of_shard
            document["shards"] = [
                {"shard_id": shard_id(shard), **_summed(by_hour, Counts())}
                for shard, by_hour in sorted(shards.items())
            ]
            consumers: dict[str, dict[int, ConsumerCounts]] = {}
            for (hour, consumer), sent in rows.consumers.items():
                consumers.setdefault(consumer, {})[hour] = sent
            document["consumers"] = [
                {"consumer": consumer, **_summed(by_hour, ConsumerCounts())}
                for consumer, by_hour in sorted(consumers.items())
            ]
        return document

    def _is_deleted(self, identity: StreamIdentity) -> bool:
        key = stream_key(identity.account, identity.region, identity.name)
        found = self._catalog.state.streams.streams.get(key)
        return found is None or found.uid != identity.uid


def _summed(by_hour: Mapping[int, msgspec.Struct], total: msgspec.Struct) -> dict[str, Any]:
    for counts in by_hour.values():
        merge(total, counts)
    return {"total": msgspec.structs.asdict(total), "hours": _by_hour(by_hour)}


def _by_hour(by_hour: Mapping[int, msgspec.Struct]) -> list[dict[str, Any]]:
    return [
        {"hour": _time(hour * HOUR_MS), **msgspec.structs.asdict(counts)}
        for hour, counts in sorted(by_hour.items())
    ]


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")
