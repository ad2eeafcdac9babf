"""SubscribeToShard: a consumer is sent a shard's records as they become durable.

One subscription of a consumer to a shard at a time. A second call within five seconds of the first
is refused; a later one takes over, and the earlier subscription ends with ResourceInUse. Each
lasts five minutes, unless the shard ends before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from headrace.core.control.stream_state import (
    ConsumerState,
    ShardState,
    StreamState,
    not_found,
    stream_key,
)
from headrace.core.errors import ResourceInUse
from headrace.core.limits import (
    MAX_RECORDS_PER_GET,
    MIB,
    SUBSCRIPTION_LIFETIME_MS,
    TAKEOVER_AFTER_MS,
)
from headrace.core.model.sequence import BEGINNING, MAX_FRAME_RECORDS, Position, compose
from headrace.core.model.shards import shard_id
from headrace.core.service.addressing import consumer_not_active, find_consumer
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Tank, metered, subscriber_tank
from headrace.core.service.catalog import Catalog, OpenStream
from headrace.core.service.dry_run import refuse_dry_run
from headrace.core.service.reads import ReadService, shard_named
from headrace.core.service.starting_position import starting_position
from headrace.core.service.usage import Usage

IDLE_EVENT_MS = 5_000  # how long without records until an event without any says where we are
MAX_EVENT_BYTES = MIB

_Key = tuple[str, str, int, int]  # stream, consumer and when it was registered, shard


@dataclass(slots=True)
class ShardEvent:
    """One event. `parts` are records as in a RecordSlice.

    Clients demand that exactly the last event of a closed shard has no `continuation` and has
    `child_shards`.
    """

    parts: list[memoryview]
    continuation: str | None
    millis_behind_latest: int
    child_shards: list[dict[str, Any]]


@dataclass(slots=True, eq=False)
class _Subscription:
    stream: StreamState
    consumer: ConsumerState
    shard: int
    began_ms: int
    is_running: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_closing: bool = False  # the server stops; else `ended` means that another took over


class SubscriptionService:
    """All subscriptions of this process. Times are monotonic milliseconds."""

    def __init__(
        self, catalog: Catalog, reads: ReadService, usage: Usage, *, is_limited: bool = False
    ) -> None:
        """`is_limited`: each is sent 2 MiB/s at most."""
        self._is_limited = is_limited
        self._catalog = catalog
        self._usage = usage
        self._clock = catalog.clock
        self._reads = reads
        self._latest: dict[_Key, _Subscription] = {}

    async def subscribe(
        self, caller: Caller, request: dict[str, Any]
    ) -> AsyncGenerator[ShardEvent, None]:
        """The events of a subscription, which begins now.

        Raises ResourceNotFound, InvalidArgument and ResourceInUse at once; what goes wrong later
        is raised by the generator.
        """
        stream, consumer = find_consumer(self._catalog, caller, None, None, request["ConsumerARN"])
        if stream.status in ("CREATING", "DELETING"):
            raise not_found(stream.account, stream.name)
        if consumer.status != "ACTIVE":
            raise consumer_not_active(stream, consumer)
        shard = shard_named(stream, request["ShardId"])
        opened = self._catalog.opened(stream)
        start = request["StartingPosition"]
        position = await starting_position(
            self._clock, opened, shard, start["Type"], start.get("SequenceNumber"),
            start.get("Timestamp"),
        )  # fmt: skip
        now_ms = self._clock.monotonic_ms()
        # not its ARN, which one of the same name that was registered in the same second has, too
        key = (stream.uid, consumer.name, consumer.created_ms, shard.number)
        former = self._latest.get(key)
        if former is not None and now_ms - former.began_ms < TAKEOVER_AFTER_MS:
            raise _taken(stream, consumer, shard.id)
        refuse_dry_run(bool(request.get("DryRun")))
        if former is not None:
            former.ended.set()
        self._forget_old(now_ms)
        subscription = _Subscription(stream, consumer, shard.number, now_ms)
        self._latest[key] = subscription
        return self._follow(subscription, position)

    def _forget_old(self, now_ms: int) -> None:
        """Subscriptions that are over are remembered for as long as they stand in the way."""
        for key, known in list(self._latest.items()):
            if not known.is_running and now_ms - known.began_ms >= TAKEOVER_AFTER_MS:
                del self._latest[key]

    def close(self) -> None:
        """End all subscriptions: the server stops."""
        for subscription in self._latest.values():
            subscription.is_closing = True
            subscription.ended.set()

    async def _follow(
        self, subscription: _Subscription, position: Position
    ) -> AsyncGenerator[ShardEvent, None]:
        subscription.is_running = True
        try:
            async with aclosing(self._events(subscription, position)) as events:
                async for event in events:
                    yield event
        finally:
            subscription.is_running = False

    async def _events(
        self, subscription: _Subscription, position: Position
    ) -> AsyncGenerator[ShardEvent, None]:
        stream, number = subscription.stream, subscription.shard
        end_ms = subscription.began_ms + SUBSCRIPTION_LIFETIME_MS
        idle_at_ms = 0  # the first event comes at once, with records or without
        continuation: str | None = None
        tank = subscriber_tank(self._clock.monotonic_ms()) if self._is_limited else None
        while True:
            if tank is not None:
                await self._make_up(tank, subscription.ended)
            opened = self._still(subscription)
            if subscription.is_closing:
                return
            arrival = opened.log.arrival(number)  # before reading: none slips through between
            try:
                shard = shard_named(stream, shard_id(number))
                read = await self._reads.read(
                    opened, shard, position, max_records=MAX_RECORDS_PER_GET,
                    max_bytes=MAX_EVENT_BYTES,
                )  # fmt: skip
                position = read.slice.next
                if tank is not None:
                    tank.take(metered(read.slice.parts))
                if read.slice.parts:
                    continuation = read.slice.last_sequence_number
                elif continuation is None:
                    continuation = _number_before(shard, position, self._clock.now_ms())
                now_ms = self._clock.monotonic_ms()
                if read.slice.parts or read.is_end or now_ms >= idle_at_ms:
                    idle_at_ms = now_ms + IDLE_EVENT_MS
                    self._usage.fanned_out(
                        stream, number, subscription.consumer, read.slice, read.millis_behind_latest
                    )
                    yield ShardEvent(
                        read.slice.parts,
                        None if read.is_end else continuation,
                        read.millis_behind_latest,
                        read.child_shards,
                    )
                if read.is_end or self._clock.monotonic_ms() >= end_ms:
                    return
                if read.slice.next_arrival_ms is None:
                    wait_ms = min(idle_at_ms, end_ms) - self._clock.monotonic_ms()
                    await self._wait(arrival, subscription.ended, wait_ms)
            finally:
                arrival.cancel()  # also of a client that has gone away

    def _still(self, subscription: _Subscription) -> OpenStream:
        """The open stream. Raises ResourceInUse or ResourceNotFound when the time is over."""
        stream, consumer = subscription.stream, subscription.consumer
        if subscription.ended.is_set() and not subscription.is_closing:
            raise _taken(stream, consumer, shard_id(subscription.shard))
        known = self._catalog.state.streams.streams
        key = stream_key(stream.account, stream.region, stream.name)
        if stream.status == "DELETING" or known.get(key) is not stream:
            raise not_found(stream.account, stream.name)
        if stream.consumers.get(consumer.name) is not consumer or consumer.status != "ACTIVE":
            raise consumer_not_active(stream, consumer)
        return self._catalog.opened(stream)

    async def _make_up(self, tank: Tank, ended: asyncio.Event) -> None:
        """Wait until no more has been sent than the rate allows, or the subscription ends."""
        owed_ms = tank.owed_ms(self._clock.monotonic_ms())
        if owed_ms:
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await self._wait(never, ended, owed_ms)

    async def _wait(
        self, arrival: asyncio.Future[None], ended: asyncio.Event, timeout_ms: int
    ) -> None:
        """Until one of the two, or that long."""
        others: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._clock.sleep_ms(max(timeout_ms, 0))),
            asyncio.ensure_future(ended.wait()),
        ]
        try:
            await asyncio.wait([arrival, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in others:
                task.cancel()


def _number_before(shard: ShardState, position: Position, now_ms: int) -> str:
    """A sequence number after which, in this shard, reading goes on at `position`.

    It is no record's: for a subscription that has not been sent any.
    """
    if position == BEGINNING:
        return shard.starting_sequence_number
    if position.ordinal:
        before = Position(position.frame_no, position.ordinal - 1)
    else:
        before = Position(position.frame_no - 1, MAX_FRAME_RECORDS - 1)
    return str(compose(shard.created_s, before.record_index, now_ms // 1000, shard.number))


def _taken(stream: StreamState, consumer: ConsumerState, shard: str) -> ResourceInUse:
    return ResourceInUse(
        "Another active subscription exists for this consumer: "
        f"{stream.account}:{stream.name}:{shard}:{consumer.name}"
    )
