"""Streams and shards: commands, state, and how one leads to the other.

Deterministic: no clock, no chance; times and ids come with the commands. A refused command raises
a ServiceError and changes nothing.
"""

from __future__ import annotations

import msgspec

from headrace.core.control.quotas import check_changing, check_on_demand
from headrace.core.control.quotas import check_quota as check_quota
from headrace.core.control.stream_state import ShardState as ShardState
from headrace.core.control.stream_state import StreamsState as StreamsState
from headrace.core.control.stream_state import StreamState as StreamState
from headrace.core.control.stream_state import find_shard as find_shard
from headrace.core.control.stream_state import not_found as not_found
from headrace.core.control.stream_state import stream_key
from headrace.core.errors import InvalidArgument, ResourceInUse, ResourceNotFound
from headrace.core.limits import DEFAULT_SHARD_QUOTA
from headrace.core.model.hashing import uniform_ranges
from headrace.core.model.shards import shard_id


class StreamCommandBase(msgspec.Struct, kw_only=True, tag=True):
    """What all commands on one stream name."""

    account: str
    region: str
    name: str

    @property
    def key(self) -> str:
        return stream_key(self.account, self.region, self.name)


class CreateStream(StreamCommandBase):
    """A new stream with `shards` uniform shards, CREATING. For the quotas see `quotas`."""

    uid: str
    at_ms: int
    mode: str
    shards: int
    max_record_kib: int = 1024
    tags: dict[str, str] = {}
    shard_quota: int = DEFAULT_SHARD_QUOTA
    distribution: str = "USER_PARTITION_KEY"
    warm_mibps: int | None = None
    on_demand_quota: int | None = None
    changing_quota: int | None = None


class ActivateStream(StreamCommandBase):
    """CREATING or UPDATING is over."""

    uid: str


class StartDeletion(StreamCommandBase):
    """DELETING: nothing may be put or read any more. Again is once."""

    uid: str
    changing_quota: int | None = None


class RemoveStream(StreamCommandBase):
    """The stream's log is gone; forget it, and the leases on its shards.

    With `spares_others` leases on another stream of that name, one on AWS, stay. Before there was
    `with_leases` all stayed, then none; what was stored then is replayed as it was.
    """

    uid: str
    with_leases: bool = False
    spares_others: bool = False


class SplitShard(StreamCommandBase):
    """Close a shard and open two in its place, the second beginning at `at`."""

    uid: str
    shard: int
    at: str
    at_ms: int
    shard_quota: int = DEFAULT_SHARD_QUOTA


class MergeShards(StreamCommandBase):
    """Close two adjacent shards and open one in their place."""

    uid: str
    shard: int
    adjacent: int
    at_ms: int


class SetRetention(StreamCommandBase):
    """Retention in hours. `horizon_ms` keeps what has expired by now expired for good."""

    uid: str
    hours: int
    horizon_ms: int


class DropShards(StreamCommandBase):
    """Closed shards all of whose records have expired leave the listing."""

    uid: str
    shards: list[int]


StreamCommand = (
    CreateStream | ActivateStream | StartDeletion | RemoveStream | SplitShard | MergeShards
    | SetRetention | DropShards
)  # fmt: skip


def apply_stream_command(state: StreamsState, command: StreamCommand) -> StreamState:
    """Apply one command; returns the stream as it is then (or was, when removed)."""
    if isinstance(command, CreateStream):
        return _create(state, command)
    stream = target_of(state, command, command.uid)
    match command:
        case ActivateStream():
            if stream.status in ("CREATING", "UPDATING"):
                stream.status = "ACTIVE"
        case StartDeletion():
            if stream.status not in ("CREATING", "DELETING"):
                check_changing(state, command.account, command.region, command.changing_quota)
            stream.status = "DELETING"
        case RemoveStream():
            del state.streams[command.key]
            latest_s = max(shard.created_s for shard in stream.shards)
            state.removed_created_s = max(state.removed_created_s, latest_s)
        case SplitShard():
            check_quota(state, command.account, command.region, 1, command.shard_quota)
            split(stream, command.shard, int(command.at), command.at_ms)
        case MergeShards():
            merge(stream, command.shard, command.adjacent, command.at_ms)
        case SetRetention():
            stream.retention_hours = command.hours
            stream.horizon_ms = max(stream.horizon_ms, command.horizon_ms)
        case DropShards():
            stream.shards = [s for s in stream.shards if s.number not in command.shards]
            stream.version += 1
    return stream


def target_of(state: StreamsState, command: StreamCommandBase, uid: str) -> StreamState:
    """The stream a command is for. One made again under the name is another: not found then."""
    stream = state.streams.get(command.key)
    if stream is None or stream.uid != uid:
        raise not_found(command.account, command.name)
    return stream


def _create(state: StreamsState, command: CreateStream) -> StreamState:
    if command.key in state.streams:
        raise ResourceInUse(
            f"Stream {command.name} under account {command.account} already exists."
        )
    check_changing(state, command.account, command.region, command.changing_quota)
    if command.mode == "ON_DEMAND":
        check_on_demand(state, command.account, command.region, command.on_demand_quota)
    check_quota(state, command.account, command.region, command.shards, command.shard_quota)
    created_s = max(command.at_ms // 1000, state.removed_created_s + 1)
    stream = StreamState(
        uid=command.uid,
        account=command.account,
        region=command.region,
        name=command.name,
        created_ms=command.at_ms,
        mode=command.mode,
        status="CREATING",
        max_record_kib=command.max_record_kib,
        tags=dict(command.tags),
        distribution=command.distribution,
        warm_mibps=command.warm_mibps,
        shards=[
            ShardState(number=i, start=str(r.start), end=str(r.end), created_s=created_s)
            for i, r in enumerate(uniform_ranges(command.shards))
        ],
    )
    state.streams[command.key] = stream
    return stream


def _open_shard(stream: StreamState, number: int) -> ShardState:
    shard = find_shard(stream, number)
    if shard is None:
        raise ResourceNotFound(
            f"Could not find shard {shard_id(number)} in stream {stream.name} under account "
            f"{stream.account}."
        )
    if not shard.is_open:
        raise InvalidArgument(
            f"Shard {shard.id} in stream {stream.name} under account {stream.account} has already "
            "been merged or split, and thus is not eligible for merging or splitting."
        )
    return shard


def _next_number(stream: StreamState) -> int:
    return max(shard.number for shard in stream.shards) + 1


def _children_created_s(at_ms: int, *parents: ShardState) -> int:
    # a child's sequence numbers exceed its parents' because this does
    return max(at_ms // 1000, *(parent.created_s + 1 for parent in parents))


def check_split(stream: StreamState, number: int, at: int) -> ShardState:
    """The shard to split. Raises ResourceNotFound or InvalidArgument where it cannot be."""
    parent = _open_shard(stream, number)
    if not parent.range.start + 1 < at < parent.range.end:
        raise InvalidArgument(
            f"NewStartingHashKey {at} used in SplitShard() on shard {parent.id} in stream "
            f"{stream.name} under account {stream.account} is not both greater than one plus the "
            f"shard's StartingHashKey {parent.start} and less than the shard's EndingHashKey "
            f"{parent.end}."
        )
    return parent


def split(stream: StreamState, number: int, at: int, at_ms: int) -> None:
    """Close a shard and open two in its place, the second beginning at `at`."""
    parent = check_split(stream, number, at)
    whole = parent.range
    created_s = _children_created_s(at_ms, parent)
    first = _next_number(stream)
    parent.closed_s = max(at_ms // 1000, parent.created_s)
    for i, (start, end) in enumerate(((whole.start, at - 1), (at, whole.end))):
        stream.shards.append(
            ShardState(
                number=first + i,
                start=str(start),
                end=str(end),
                created_s=created_s,
                parent=parent.number,
            )
        )
    stream.version += 1


def check_merge(stream: StreamState, number: int, adjacent: int) -> tuple[ShardState, ShardState]:
    """The shards to merge. Raises ResourceNotFound or InvalidArgument where they cannot be."""
    one, other = (_open_shard(stream, n) for n in (number, adjacent))
    if not one.range.is_adjacent_to(other.range):
        raise InvalidArgument(
            f"Shards {one.id} and {other.id} in stream {stream.name} under account "
            f"{stream.account} are not an adjacent pair of shards eligible for merging"
        )
    return one, other


def merge(stream: StreamState, number: int, adjacent: int, at_ms: int) -> None:
    """Close two adjacent shards and open one in their place."""
    one, other = check_merge(stream, number, adjacent)
    created_s = _children_created_s(at_ms, one, other)
    for parent in (one, other):
        # not before either began: at every time since the stream began, some shard was open for
        # each hash key, also when splits and merges follow each other within a second
        parent.closed_s = max(at_ms // 1000, one.created_s, other.created_s)
    stream.shards.append(
        ShardState(
            number=_next_number(stream),
            start=one.start,
            end=other.end,
            created_s=created_s,
            parent=one.number,
            adjacent_parent=other.number,
        )
    )
    stream.version += 1
