"""The lease operations: Headrace's own addition to the Kinesis API.

Requests are checked here; what a command does to the state is `control.leases`. Commands are
durable and ordered, so everything that can be answered without one is: lists are read from the
state, and a sync that would change nothing submits nothing.

A stream need not exist here to have leases: an application may keep its leases on a Headrace while
it reads from AWS. Those on a stream that is here go with it when it is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

import msgspec

from headrace.core.clock import Clock, SystemClock
from headrace.core.control.lease_state import (
    ApplicationState,
    LeasesState,
    LeaseView,
    application_key,
    view,
)
from headrace.core.control.leases import (
    Heartbeat,
    LeaseShard,
    PrepareCheckpoint,
    ReleaseLease,
    SaveCheckpoint,
    SyncLeases,
    TakeLease,
)
from headrace.core.errors import ValidationError
from headrace.core.limits import MIB
from headrace.core.model.leases import SHARD_END

MAX_PENDING_STATE_BYTES = 8 * MIB
MAX_LEASES_PER_PAGE = 1000
MAX_SHARDS_PER_SYNC = 100_000
MAX_PARENTS = 2

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_STREAM = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SHARD = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SEQUENCE_NUMBER = re.compile(r"[0-9]{1,128}")


class _Where(TypedDict):
    """Whose leases on which stream: what every command names."""

    account: str
    region: str
    stream: str
    application: str


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    application_name: str
    stream_name: str


class SyncLeasesRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """All shards of the stream, as ListShards has them."""

    shards: list[LeaseShard]


class ListLeasesRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """`next_token` is the last answer's."""

    max_results: int = MAX_LEASES_PER_PAGE
    next_token: str | None = None


class HeartbeatRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """Show that a worker is alive."""

    worker_id: str

    def command(self, where: _Where) -> Heartbeat:
        _check(_NAME, "WorkerId", self.worker_id)
        return Heartbeat(**where, worker=self.worker_id, only_known=True)


class TakeLeaseRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """Become the owner; answers the lease with its pending state. LeaseLost if it moved."""

    worker_id: str
    shard_id: str
    expected_counter: Number
    expected_owner_heartbeat: Number

    def command(self, where: _Where) -> TakeLease:
        _check(_NAME, "WorkerId", self.worker_id)
        _check(_SHARD, "ShardId", self.shard_id)
        return TakeLease(
            **where,
            worker=self.worker_id,
            shard_id=self.shard_id,
            expected_counter=self.expected_counter,
            expected_owner_heartbeat=self.expected_owner_heartbeat,
        )


class ReleaseLeaseRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """Give a lease back. LeaseLost if it was not the caller's any more."""

    shard_id: str
    counter: Number

    def command(self, where: _Where) -> ReleaseLease:
        _check(_SHARD, "ShardId", self.shard_id)
        return ReleaseLease(**where, shard_id=self.shard_id, counter=self.counter)


class PrepareCheckpointRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """Keep up to 8 MiB beside the checkpoint that is to follow. `state` is base64 on the wire."""

    shard_id: str
    counter: Number
    sequence_number: str
    state: bytes

    def command(self, where: _Where) -> PrepareCheckpoint:
        _check(_SHARD, "ShardId", self.shard_id)
        _check(_SEQUENCE_NUMBER, "SequenceNumber", self.sequence_number)
        if len(self.state) > MAX_PENDING_STATE_BYTES:
            raise ValidationError(
                f"State has {len(self.state)} bytes; {MAX_PENDING_STATE_BYTES} is the most. "
                "Checkpoint smaller batches"
            )
        return PrepareCheckpoint(
            **where,
            shard_id=self.shard_id,
            counter=self.counter,
            sequence_number=self.sequence_number,
            state=self.state,
        )


class SaveCheckpointRequest(_Request, frozen=True, kw_only=True, rename="pascal"):
    """Set the checkpoint. LeaseLost if the lease is not the caller's any more."""

    shard_id: str
    counter: Number
    checkpoint: str

    def command(self, where: _Where) -> SaveCheckpoint:
        _check(_SHARD, "ShardId", self.shard_id)
        if self.checkpoint != SHARD_END:
            _check(_SEQUENCE_NUMBER, "Checkpoint", self.checkpoint)
        return SaveCheckpoint(
            **where, shard_id=self.shard_id, counter=self.counter, checkpoint=self.checkpoint
        )


class LeaseAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    lease: LeaseView


class ListLeasesAnswer(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Leases in order of shard id, without their pending state: only taking one shows that."""

    leases: list[LeaseView]
    next_token: str | None = None


WriteRequest = (
    HeartbeatRequest
    | TakeLeaseRequest
    | ReleaseLeaseRequest
    | PrepareCheckpointRequest
    | SaveCheckpointRequest
)
"""A request that is one command; making it raises ValidationError when it cannot be."""

OPERATIONS: dict[str, tuple[type[msgspec.Struct], str]] = {
    "SyncLeases": (SyncLeasesRequest, "sync_leases"),
    "ListLeases": (ListLeasesRequest, "list_leases"),
    "Heartbeat": (HeartbeatRequest, "write"),
    "TakeLease": (TakeLeaseRequest, "write"),
    "ReleaseLease": (ReleaseLeaseRequest, "write"),
    "PrepareCheckpoint": (PrepareCheckpointRequest, "write"),
    "SaveCheckpoint": (SaveCheckpointRequest, "write"),
}
"""Operation -> what its request decodes into, and the method of `LeaseService` that takes it."""


class LeaseService:
    """The operations. `account` and `region` come from the request's credential scope."""

    def __init__(
        self,
        submit: Callable[[Any], Awaitable[Any]],
        state: Callable[[], LeasesState],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._submit = submit
        self._state = state
        self._clock = clock or SystemClock()

    async def sync_leases(
        self, request: SyncLeasesRequest, *, account: str, region: str
    ) -> dict[str, Any]:
        """Make leases for shards that have none; forget finished leases of shards that are gone.

        A lease is forgotten only here, so a finished shard stays known to be finished for as long
        as ListShards shows it.
        """
        _check_names(request)
        if len(request.shards) > MAX_SHARDS_PER_SYNC:
            raise ValidationError(f"Shards has more than {MAX_SHARDS_PER_SYNC} entries")
        for shard in request.shards:
            _check(_SHARD, "ShardId", shard.shard_id)
            _check(_SEQUENCE_NUMBER, "StartingSequenceNumber", shard.starting_sequence_number)
            if len(shard.parent_shard_ids) > MAX_PARENTS:
                raise ValidationError(f"{shard.shard_id} has more than {MAX_PARENTS} parents")
            for parent in shard.parent_shard_ids:
                _check(_SHARD, "ParentShardIds", parent)
        application = self._application(request, account, region)
        leases = application.leases if application else {}
        create = [
            shard
            for shard in request.shards
            if (lease := leases.get(shard.shard_id)) is None
            or int(shard.starting_sequence_number) > int(lease.start)
        ]
        listed = {shard.shard_id for shard in request.shards}
        forget = [
            shard_id
            for shard_id, lease in leases.items()
            if lease.is_finished and shard_id not in listed
        ]
        if create or forget or application is None or not application.since_ms:
            await self._submit(
                SyncLeases(
                    **_where(request, account, region),
                    create=create,
                    forget=forget,
                    now_ms=self._clock.now_ms(),
                )
            )
        return {}

    async def list_leases(
        self, request: ListLeasesRequest, *, account: str, region: str
    ) -> ListLeasesAnswer:
        """A page of leases. An application that has none yet has an empty list."""
        _check_names(request)
        if not 1 <= request.max_results <= MAX_LEASES_PER_PAGE:
            raise ValidationError(f"MaxResults is 1 to {MAX_LEASES_PER_PAGE}")
        if request.next_token is not None:
            _check(_SHARD, "NextToken", request.next_token)
        application = self._application(request, account, region)
        if application is None:
            return ListLeasesAnswer([])
        after = request.next_token or ""
        ids = sorted(shard_id for shard_id in application.leases if shard_id > after)
        page = ids[: request.max_results]
        return ListLeasesAnswer(
            [view(application, shard_id, with_pending_state=False) for shard_id in page],
            page[-1] if len(page) < len(ids) else None,
        )

    async def write(
        self, request: WriteRequest, *, account: str, region: str
    ) -> LeaseAnswer | dict[str, Any]:
        """Do what the request says: durable when this returns, or refused."""
        _check_names(request)
        taken = await self._submit(request.command(_where(request, account, region)))
        return {} if taken is None else LeaseAnswer(taken)

    def _application(self, request: _Request, account: str, region: str) -> ApplicationState | None:
        key = application_key(account, region, request.stream_name, request.application_name)
        return self._state().applications.get(key)


def _where(request: _Request, account: str, region: str) -> _Where:
    return _Where(
        account=account,
        region=region,
        stream=request.stream_name,
        application=request.application_name,
    )


def _check_names(request: _Request) -> None:
    _check(_NAME, "ApplicationName", request.application_name)
    _check(_STREAM, "StreamName", request.stream_name)


def _check(pattern: re.Pattern[str], member: str, value: str) -> None:
    if not pattern.fullmatch(value):
        raise ValidationError(f"{member} {value[:200]!r} must match {pattern.pattern}")
