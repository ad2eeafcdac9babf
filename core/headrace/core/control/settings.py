"""What is set on a stream that exists: commands, and how they change its state.

Deterministic: no clock, no chance; times come with the commands. A refused command raises a
ServiceError and changes nothing.

Most settings hold at once. Those for which AWS shows a stream UPDATING go in two commands:
`BeginUpdate` notes what is to change, `FinishUpdate` changes it and makes the stream ACTIVE.
"""

from __future__ import annotations

from headrace.core.control.quotas import check_on_demand
from headrace.core.control.scaling import scale
from headrace.core.control.stream_state import (
    ConsumerState,
    PendingUpdate,
    StreamsState,
    StreamState,
    not_active,
)
from headrace.core.control.streams import (
    StreamCommandBase,
    check_merge,
    check_split,
    merge,
    split,
    target_of,
)
from headrace.core.errors import InvalidArgument, ResourceNotFound
from headrace.core.limits import MAX_TAGS

_DAY_MS = 24 * 3600 * 1000


class SetTags(StreamCommandBase):
    """Add tags, or give those that are there other values. `consumer` is one of the stream's."""

    uid: str
    tags: dict[str, str]
    consumer: str | None = None


class DropTags(StreamCommandBase):
    """Take tags away; those that are not there are passed over."""

    uid: str
    keys: list[str]
    consumer: str | None = None


class SetPolicy(StreamCommandBase):
    """A resource policy as its JSON text; None takes it away."""

    uid: str
    policy: str | None
    consumer: str | None = None


class SetMetrics(StreamCommandBase):
    """The shard-level metrics that are enabled from now on."""

    uid: str
    metrics: list[str]


class SetMaxRecordSize(StreamCommandBase):
    uid: str
    max_record_kib: int


class SetDistribution(StreamCommandBase):
    """AUTO or USER_PARTITION_KEY, for the records to come."""

    uid: str
    distribution: str


class BeginUpdate(StreamCommandBase):
    """UPDATING: puts and reads go on."""

    uid: str
    pending: PendingUpdate
    at_ms: int
    on_demand_quota: int | None = None


class FinishUpdate(StreamCommandBase):
    """What was begun holds now, and the stream is ACTIVE. Without a beginning nothing changes."""

    uid: str
    at_ms: int


SettingCommand = (
    SetTags | DropTags | SetPolicy | SetMetrics | SetMaxRecordSize | SetDistribution
    | BeginUpdate | FinishUpdate
)  # fmt: skip


def apply_setting_command(state: StreamsState, command: SettingCommand) -> StreamState:
    """Apply one command; returns the stream as it is then."""
    stream = target_of(state, command, command.uid)
    match command:
        case SetTags():
            _set_tags(stream, command)
        case DropTags():
            tags = _resource(stream, command.consumer).tags
            for key in command.keys:
                tags.pop(key, None)
        case SetPolicy():
            _set_policy(stream, command)
        case SetMetrics():
            stream.metrics = list(command.metrics)
        case SetMaxRecordSize():
            stream.max_record_kib = command.max_record_kib
        case SetDistribution():
            stream.distribution = command.distribution
        case BeginUpdate():
            _begin(state, stream, command)
        case FinishUpdate():
            _finish(stream, command.at_ms)
    return stream


def _resource(stream: StreamState, consumer: str | None) -> StreamState | ConsumerState:
    """What has tags and a policy: the stream, or one of its consumers."""
    if consumer is None:
        return stream
    found = stream.consumers.get(consumer)
    if found is None:
        raise ResourceNotFound(f"Consumer {consumer}, account {stream.account} not found.")
    return found


def _set_tags(stream: StreamState, command: SetTags) -> None:
    resource = _resource(stream, command.consumer)
    after = resource.tags | command.tags
    if len(after) > MAX_TAGS:
        raise too_many_tags(stream.account, stream.name)
    resource.tags = after


def too_many_tags(account: str, name: str) -> InvalidArgument:
    # AWS says 10 in this text, and means 50
    return InvalidArgument(
        f"Failed to add tags to stream {name} under account {account} because a given stream "
        "cannot have more than 10 tags associated with it."
    )


def _set_policy(stream: StreamState, command: SetPolicy) -> None:
    resource = _resource(stream, command.consumer)
    if command.policy is None and resource.policy is None:
        arn = stream.arn if isinstance(resource, StreamState) else stream.consumer_arn(resource)
        raise ResourceNotFound(f"No resource policy found for resource ARN {arn}.")
    resource.policy = command.policy


def _begin(state: StreamsState, stream: StreamState, command: BeginUpdate) -> None:
    if stream.status != "ACTIVE":
        raise not_active(stream)
    if command.pending.mode == "ON_DEMAND" and stream.mode != "ON_DEMAND":
        check_on_demand(state, command.account, command.region, command.on_demand_quota)
    for number, at in command.pending.all_splits:
        check_split(stream, number, int(at))
    for pair in command.pending.all_merges:
        check_merge(stream, *pair)
    stream.status = "UPDATING"
    stream.pending = command.pending
    kind = command.pending.kind
    if kind:
        stream.changes_ms[kind] = [
            *changed_since(stream, kind, command.at_ms - _DAY_MS),
            command.at_ms,
        ]


def changed_since(stream: StreamState, kind: str, since_ms: int) -> list[int]:
    """When settings of a kind were changed after that; asked for a day at most."""
    return [at_ms for at_ms in stream.changes_ms.get(kind, []) if at_ms > since_ms]


def _finish(stream: StreamState, at_ms: int) -> None:
    pending = stream.pending
    if stream.status != "UPDATING" or pending is None:
        return
    if pending.shard_count is not None:
        scale(stream, pending.shard_count, at_ms)
    for number, at in pending.all_splits:
        split(stream, number, int(at), at_ms)
    for pair in pending.all_merges:
        merge(stream, *pair, at_ms)
    if pending.mode is not None:
        stream.mode = pending.mode
        if pending.mode == "PROVISIONED":
            stream.warm_mibps = None
    if pending.encryption is not None:
        stream.key_id = pending.key_id if pending.encryption == "KMS" else None
    if pending.warm_mibps is not None:
        stream.warm_mibps = pending.warm_mibps
    stream.pending = None
    stream.status = "ACTIVE"
