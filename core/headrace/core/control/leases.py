"""Leases and checkpoints: commands, and what they do to the state.

Who may work on which shard of a stream for an application, and how far that application has come.
Deterministic: no clock, no chance. A refused command raises a ServiceError and changes nothing.

The fencing token is a lease's `counter`: it rises with every change of owner, every write names
it, and a write with another number is refused. Whether an owner is alive is not decided here,
where there is no time: each worker's heartbeat is a number that has never been used before, and
whoever wants an owner's lease names the heartbeat it saw standing still.
"""

from __future__ import annotations

import msgspec

from headrace.core.control.lease_state import (
    ApplicationState,
    LeasesState,
    LeaseState,
    LeaseView,
    application_key,
    heartbeat_of,
    view,
)
from headrace.core.control.stream_state import StreamState
from headrace.core.errors import InvalidArgument, LeaseLost, ResourceInUse, ResourceNotFound
from headrace.core.model.leases import SHARD_END

_PRUNE_EVERY = 64  # heartbeats between two sweeps of workers that hold nothing


class LeaseShard(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A shard to make a lease for."""

    shard_id: str
    starting_sequence_number: str
    parent_shard_ids: list[str] = []


class _Command(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    account: str
    region: str
    stream: str
    application: str


class SyncLeases(_Command, frozen=True, kw_only=True):
    """Make the leases of `create`, forget the finished ones of `forget`."""

    create: list[LeaseShard]
    forget: list[str]
    now_ms: int


class Heartbeat(_Command, frozen=True, kw_only=True):
    """What was stored before there was `only_known` is replayed as it was."""

    worker: str
    only_known: bool = False


class TakeLease(_Command, frozen=True, kw_only=True):
    worker: str
    shard_id: str
    expected_counter: int
    expected_owner_heartbeat: int


class ReleaseLease(_Command, frozen=True, kw_only=True):
    shard_id: str
    counter: int


class PrepareCheckpoint(_Command, frozen=True, kw_only=True):
    shard_id: str
    counter: int
    sequence_number: str
    state: bytes


class SaveCheckpoint(_Command, frozen=True, kw_only=True):
    shard_id: str
    counter: int
    checkpoint: str


LeaseCommand = (
    SyncLeases | Heartbeat | TakeLease | ReleaseLease | PrepareCheckpoint | SaveCheckpoint
)


def apply_lease_command(state: LeasesState, command: LeaseCommand) -> LeaseView | None:
    """Apply a command. TakeLease returns the lease as taken, all others None."""
    if isinstance(command, TakeLease):
        return apply_take(state, command)
    match command:
        case SyncLeases():
            apply_sync(state, command)
        case Heartbeat():
            apply_heartbeat(state, command)
        case ReleaseLease():
            apply_release(state, command)
        case PrepareCheckpoint():
            apply_prepare(state, command)
        case SaveCheckpoint():
            apply_save(state, command)
    return None


def apply_sync(state: LeasesState, command: SyncLeases) -> None:
    """Never refused; what does not (or no longer) apply is passed over.

    A shard whose starting number is later than its lease's belongs to a stream elsewhere that was
    deleted and made again under the same name. Its lease starts over if it was finished; if not,
    it keeps its checkpoint, by which the consumer sees what it lost, and whoever held it is fenced
    off.
    """
    application = _application_made(state, command)
    if not application.since_ms:
        application.since_ms = command.now_ms
    for shard in command.create:
        lease = application.leases.get(shard.shard_id)
        if lease is None:
            application.leases[shard.shard_id] = LeaseState(
                start=shard.starting_sequence_number,
                parents=list(shard.parent_shard_ids),
                counter=state.past_counter + 1,
            )
        elif int(shard.starting_sequence_number) > int(lease.start):
            lease.start = shard.starting_sequence_number
            lease.parents = list(shard.parent_shard_ids)
            lease.owner = None
            lease.counter += 1
            if lease.is_finished:
                lease.checkpoint = None
    for shard_id in command.forget:
        lease = application.leases.get(shard_id)
        if lease is not None and lease.is_finished:
            del application.leases[shard_id]


def forget_stream(state: LeasesState, stream: StreamState, *, spares_others: bool = True) -> None:
    """Drop what applications kept on a stream that is gone.

    What an application keeps here on a stream of that name on AWS stays, with `spares_others`.
    """
    start = application_key(stream.account, stream.region, stream.name, "")
    for key in [key for key in state.applications if key.startswith(start)]:
        application = state.applications[key]
        if spares_others and not _is_on(stream, application):
            continue
        del state.applications[key]
        counters = (lease.counter for lease in application.leases.values())
        state.past_counter = max(state.past_counter, *counters, -1)
        state.past_beats = max(state.past_beats, application.beats)


def _is_on(stream: StreamState, application: ApplicationState) -> bool:
    """Whether an application's leases are on this stream, or on another of the same name.

    The shards' starting numbers tell, for the second of their creation is in them. Where all the
    shards of the leases have expired here, if it was here, all must be such as have been here.
    """
    known = {shard.id: shard.starting_sequence_number for shard in stream.shards}
    leases = application.leases
    return any(known.get(shard_id) == lease.start for shard_id, lease in leases.items()) or all(
        shard_id not in known and stream.may_have_had(shard_id, lease.start)
        for shard_id, lease in leases.items()
    )


def apply_heartbeat(state: LeasesState, command: Heartbeat) -> None:
    """Give the worker a heartbeat that nobody has had before. Never refused.

    With `only_known` one for an application that has not asked for leases yet, or whose stream
    was deleted, is passed over: nobody looks for it, and it would be kept for good.
    """
    if command.only_known and _key(command) not in state.applications:
        return
    application = _application_made(state, command)
    application.beats += 1
    application.workers[command.worker] = application.beats
    if application.beats % _PRUNE_EVERY == 0:
        keep = {lease.owner for lease in application.leases.values()} | {command.worker}
        for name in [name for name in application.workers if name not in keep]:
            del application.workers[name]


def apply_take(state: LeasesState, command: TakeLease) -> LeaseView:
    """Make the worker the owner.

    Refused with LeaseLost when the lease, or the heartbeat of another owner, is no longer what
    the worker saw; with ResourceInUse while a parent is unfinished. The worker's own lease (from
    before a restart) needs no heartbeat: the counter fences its former self off.
    """
    application = _application(state, command)
    lease = _lease(application, command, command.shard_id)
    _check_counter(lease, command, command.shard_id, command.expected_counter)
    if lease.is_finished:
        raise LeaseLost(f"{command.shard_id} is finished; there is nothing left to take")
    if lease.owner not in (None, command.worker):
        heartbeat = heartbeat_of(application, lease)
        if heartbeat != command.expected_owner_heartbeat:
            raise LeaseLost(
                f"worker {lease.owner}, who holds {command.shard_id}, is alive: its heartbeat "
                f"went from {command.expected_owner_heartbeat} to {heartbeat}"
            )
    for parent_id in lease.parents:
        parent = application.leases.get(parent_id)
        if parent is not None and not parent.is_finished:
            raise ResourceInUse(
                f"{parent_id}, a parent of {command.shard_id}, is not finished; "
                "parents are read before children"
            )
    lease.owner = command.worker
    lease.counter += 1
    return view(application, command.shard_id)


def apply_release(state: LeasesState, command: ReleaseLease) -> None:
    """Leave the lease to whoever wants it. Saying so twice is saying it once."""
    lease = _lease(_application(state, command), command, command.shard_id)
    if lease.owner is None and lease.counter == command.counter + 1:
        return  # the answer to the first time was lost
    _check_counter(lease, command, command.shard_id, command.counter)
    lease.owner = None
    lease.counter += 1


def apply_prepare(state: LeasesState, command: PrepareCheckpoint) -> None:
    """Keep `state` beside the checkpoint that is to follow. Replaces what was kept before."""
    lease = _lease(_application(state, command), command, command.shard_id)
    _check_counter(lease, command, command.shard_id, command.counter)
    if _rank(command.sequence_number) <= _rank(lease.checkpoint):
        raise InvalidArgument(
            f"cannot prepare {command.sequence_number} on {command.shard_id}: "
            f"its checkpoint is {lease.checkpoint} already"
        )
    lease.pending_checkpoint = command.sequence_number
    lease.pending_state = command.state


def apply_save(state: LeasesState, command: SaveCheckpoint) -> None:
    """Set the checkpoint and clear what was prepared. Never goes back; saving twice is allowed.

    SHARD_END ends the lease: it is nobody's from then on. Its counter stays, so that the same
    save, repeated because its answer was lost, still succeeds.
    """
    lease = _lease(_application(state, command), command, command.shard_id)
    _check_counter(lease, command, command.shard_id, command.counter)
    if _rank(command.checkpoint) < _rank(lease.checkpoint):
        raise InvalidArgument(
            f"the checkpoint of {command.shard_id} cannot go back from {lease.checkpoint} "
            f"to {command.checkpoint}"
        )
    lease.checkpoint = command.checkpoint
    lease.pending_checkpoint = None
    lease.pending_state = b""
    if lease.is_finished:
        lease.owner = None


def _rank(checkpoint: str | None) -> float:
    """Order of checkpoints: none, numbers by value (never as text), SHARD_END."""
    if checkpoint is None:
        return -1
    return float("inf") if checkpoint == SHARD_END else int(checkpoint)


def _key(command: _Command) -> str:
    return application_key(command.account, command.region, command.stream, command.application)


def _application_made(state: LeasesState, command: _Command) -> ApplicationState:
    return state.applications.setdefault(_key(command), ApplicationState(beats=state.past_beats))


def _application(state: LeasesState, command: _Command) -> ApplicationState:
    application = state.applications.get(_key(command))
    if application is None:
        raise ResourceNotFound(
            f"application {command.application} has no leases on stream {command.stream}",
            hint="SyncLeases makes them",
        )
    return application


def _lease(application: ApplicationState, command: _Command, shard_id: str) -> LeaseState:
    lease = application.leases.get(shard_id)
    if lease is None:
        raise ResourceNotFound(
            f"application {command.application} has no lease for {shard_id} of stream "
            f"{command.stream}",
            hint="SyncLeases makes them",
        )
    return lease


def _check_counter(lease: LeaseState, command: _Command, shard_id: str, counter: int) -> None:
    if lease.counter != counter:
        raise LeaseLost(
            f"the lease of {shard_id} (application {command.application}, stream "
            f"{command.stream}) is at counter {lease.counter}, not {counter}: "
            + (f"worker {lease.owner} has it now" if lease.owner else "nobody holds it")
        )
