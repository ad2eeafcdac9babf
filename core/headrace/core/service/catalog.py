"""Catalog: finds streams by name or ARN, holds their open logs and routing tables.

Every operation goes through here; nobody else opens or deletes a log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.core.clock import Clock
from headrace.core.control.machine import ControlState
from headrace.core.control.stream_state import (
    StreamState,
    not_active,
    not_found,
    stream_key,
)
from headrace.core.control.streams import RemoveStream
from headrace.core.engine.seam import Engine, ShardLog
from headrace.core.errors import InternalFailure, InvalidArgument, StorageError, StorageFull
from headrace.core.model.sequence import Position
from headrace.core.model.shards import shard_id
from headrace.core.service.caller import Caller
from headrace.core.service.routing import Routing
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.core")

OPEN_AT_ONCE = 8  # logs opened side by side at a start
OPEN_AGAIN_MS = 1000  # until those for which there was no room are tried again, the first time
OPEN_AGAIN_MOST_MS = 30_000  # twice as long each time, up to this: a try may read a lot, and log
TELL_AGAIN_MS = 3_600_000  # until it is logged again that the same is wrong with a stream


def check_creation(stream: StreamState, created_ms: int | None) -> None:
    """Raises ResourceNotFound when a StreamCreationTimestamp is another stream's of that name.

    Compared by the second: that is what SDKs send back of a timestamp.
    """
    if created_ms is not None and created_ms // 1000 != stream.created_ms // 1000:
        raise not_found(stream.account, stream.name)


@dataclass(slots=True)
class OpenStream:
    """A stream whose log is open.

    `floors` remembers, per shard, where the first unexpired record is and for which horizon (ms)
    that was found. `closing` are shards whose last records may still be on their way to the disk:
    a reader must not take their end for the end yet. `resharding` is held by one split or merge
    at a time.
    """

    stream: StreamState
    log: ShardLog
    routing: Routing
    floors: dict[int, tuple[int, Position]] = field(default_factory=dict)
    closing: set[int] = field(default_factory=set)
    resharding: asyncio.Lock = field(default_factory=asyncio.Lock)


class Catalog:
    """See the module. `engine.control.state` is a ControlState."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self._open: dict[str, OpenStream] = {}
        self._damaged: dict[str, str] = {}
        self._waiting: dict[str, tuple[StreamState, StorageFull]] = {}  # for room to be opened in
        self._opening_again = asyncio.Lock()
        self.troubles = Troubles(log, clock, repeat_ms=TELL_AGAIN_MS)
        """What is wrong with streams that are served all the same, by their uids."""
        self.on_removal: list[Callable[[str], None]] = []  # told the uid of a stream that is gone
        self.before_removal: list[Callable[[StreamState], None]] = []
        self.on_trim: list[Callable[[str], None]] = []  # told the uid of a stream with less stored
        self.on_served: list[Callable[[str], None]] = []  # of one that there is room for at last

    @property
    def state(self) -> ControlState:
        state: ControlState = self.engine.control.state
        return state

    async def open_all(self) -> None:
        """At start: open the log of every stream that is not on its way out.

        A stream whose log is damaged is refused by name and the others work. One for which there
        is no room is left to `open_waiting`.
        """
        streams = list(self.state.streams.streams.values())
        turns = asyncio.Semaphore(OPEN_AT_ONCE)

        async def open_one(stream: StreamState) -> None:
            async with turns:
                try:
                    await self.open(stream)
                except StorageFull as error:
                    self._waiting[stream.uid] = stream, error
                    log.error("stream %s is not served until there is room: %s", stream.name, error)
                except (StorageError, OSError) as error:
                    self._refuse(stream, error)

        await asyncio.gather(*(open_one(s) for s in streams if s.status != "DELETING"))

    def _refuse(self, stream: StreamState, error: Exception) -> None:
        self._damaged[stream.uid] = str(error)
        log.error("stream %s is not served: %s", stream.name, error)

    async def open_waiting(self) -> None:
        """Open what there was no room for at the start soon after there is; ends when all is."""
        wait_ms = OPEN_AGAIN_MS
        while self._waiting:
            await self.clock.sleep_ms(wait_ms)
            wait_ms = min(2 * wait_ms, OPEN_AGAIN_MOST_MS)
            for stream, _ in tuple(self._waiting.values()):
                async with self._opening_again:
                    if stream.uid in self._waiting:  # not deleted meanwhile
                        await self._open_again(stream)

    async def _open_again(self, stream: StreamState) -> None:
        try:
            await self.open(stream)
        except StorageFull:
            return
        except (StorageError, OSError) as error:
            self._refuse(stream, error)
        else:
            log.warning("there is room again: stream %s is served", stream.name)
            for tell in self.on_served:
                tell(stream.uid)
        self._waiting.pop(stream.uid, None)

    def refused(self) -> dict[str, str]:
        """Streams that are not served, and why."""
        why = self._damaged | {uid: str(error) for uid, (_, error) in self._waiting.items()}
        return {
            stream.name: why[stream.uid]
            for stream in self.state.streams.streams.values()
            if stream.uid in why
        }

    async def open(self, stream: StreamState) -> OpenStream:
        ranges = [shard.range for shard in stream.shards]
        is_new = stream.status == "CREATING"
        shard_log = await self.engine.open_log(stream.uid, ranges, is_new=is_new)
        known = max(shard.number for shard in stream.shards)
        if shard_log.last_shard > known:
            raise StorageError(
                f"there are records of {shard_id(shard_log.last_shard)}, but the control log knows "
                f"no shard after {shard_id(known)}: it was put back from an older copy, or has "
                "lost its end",
                hint="put it back as it was last",
            )
        opened = OpenStream(stream, shard_log, Routing(stream))
        self._open[stream.uid] = opened
        return opened

    def is_opening(self, stream: StreamState) -> bool:
        """Whether its log is just being made."""
        return all(stream.uid not in some for some in (self._open, self._damaged, self._waiting))

    async def remove(self, stream: StreamState, *, with_leases: bool = True) -> None:
        """Delete the log, then forget the stream, and the leases on it."""
        for look in self.before_removal:
            look(stream)
        if self._waiting.pop(stream.uid, None) is not None:
            async with self._opening_again:
                pass  # it is not being opened any more
        self._open.pop(stream.uid, None)
        self._damaged.pop(stream.uid, None)
        self.troubles.clear(stream.uid)
        await self.engine.delete_log(stream.uid)
        await self.engine.control.submit(
            RemoveStream(
                account=stream.account,
                region=stream.region,
                name=stream.name,
                uid=stream.uid,
                with_leases=with_leases,
                spares_others=True,
            )
        )
        for forget in self.on_removal:
            forget(stream.uid)

    def streams_of(self, caller: Caller) -> list[StreamState]:
        """The caller's streams, by name."""
        return sorted(
            (
                stream
                for stream in self.state.streams.streams.values()
                if stream.account == caller.account and stream.region == caller.region
            ),
            key=lambda stream: stream.name,
        )

    def find(self, caller: Caller, name: str | None, arn: str | None) -> StreamState:
        """The stream a request names, by StreamName or StreamARN.

        Raises ResourceNotFound, or InvalidArgument when neither or a contradiction is given.
        """
        account, region = caller.account, caller.region
        if arn is not None:
            parts = arn.split(":", 5)
            if len(parts) != 6 or not parts[5].startswith("stream/"):
                raise InvalidArgument(f"Stream ARN {arn} is not valid.")
            from_arn = parts[5].removeprefix("stream/")
            if name is not None and name != from_arn:
                raise InvalidArgument(
                    f"StreamName {name} does not match the stream name in StreamARN {arn}."
                )
            if (parts[3], parts[4]) != (region, account):
                raise not_found(parts[4], from_arn)  # an ARN is no way into others' streams
            name = from_arn
        if name is None:
            raise InvalidArgument("Either StreamName or StreamARN should be provided.")
        stream = self.state.streams.streams.get(stream_key(account, region, name))
        if stream is None:
            raise not_found(account, name)
        return stream

    def opened_by_uid(self, uid: str) -> OpenStream | None:
        """An open stream by its uid; None when it was deleted or is not served."""
        opened = self._open.get(uid)
        return None if opened is None else self._up_to_date(opened)

    def check_room(self, uid: str) -> None:
        """Raises StorageFull if the stream is not served because there was no room for it."""
        if uid in self._waiting:
            stream, error = self._waiting[uid]
            raise StorageFull(
                f"Stream {stream.name} is not served yet: {error.message}",
                path=error.path,
                hint=error.hint,
            )

    def opened(self, stream: StreamState) -> OpenStream:
        """The open log and an up-to-date routing table of a stream.

        Raises ResourceNotFound, InternalFailure where the log is damaged, StorageFull where there
        is no room to open it.
        """
        opened = self._open.get(stream.uid)
        if opened is None:
            self.check_room(stream.uid)
            damage = self._damaged.get(stream.uid)
            if damage is not None:
                raise InternalFailure(f"Stream {stream.name} is not served: {damage}")
            raise not_found(stream.account, stream.name)
        return self._up_to_date(opened)

    def serving(self, caller: Caller, name: str) -> OpenStream | None:
        """The caller's stream of that name, if it takes puts and reads now."""
        key = stream_key(caller.account, caller.region, name)
        state: ControlState = self.engine.control.state
        stream = state.streams.streams.get(key)
        if stream is None or stream.status == "CREATING" or stream.status == "DELETING":
            return None
        opened = self._open.get(stream.uid)
        if opened is not None and opened.routing.version != stream.version:
            opened.routing = Routing(stream)
        return opened

    @staticmethod
    def _up_to_date(opened: OpenStream) -> OpenStream:
        if opened.routing.version != opened.stream.version:
            opened.routing = Routing(opened.stream)
        return opened

    def find_active(self, caller: Caller, name: str | None, arn: str | None) -> StreamState:
        """As `find`, for operations that need an ACTIVE stream. Raises ResourceInUse if not."""
        stream = self.find(caller, name, arn)
        if stream.status != "ACTIVE":
            raise not_active(stream)
        return stream

    def find_readable(self, caller: Caller, name: str | None, arn: str | None) -> StreamState:
        """As `find`, for puts and reads: a CREATING or DELETING stream is not there yet (any
        more)."""
        stream = self.find(caller, name, arn)
        if stream.status in ("CREATING", "DELETING"):
            raise not_found(stream.account, stream.name)
        return stream

    def horizon_ms(self, stream: StreamState) -> int:
        """Records that arrived before this have expired."""
        return max(stream.horizon_ms, self.clock.now_ms() - stream.retention_hours * 3_600_000)
