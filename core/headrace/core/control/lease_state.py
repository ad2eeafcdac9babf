"""The state of leases: what a lease and an application are between two commands.

Values, and how they are shown; the commands that change them are in `leases`. A field added later
has a default, so that snapshots written before it still load.
"""

from __future__ import annotations

import msgspec

from headrace.core.model.leases import SHARD_END


class LeaseState(msgspec.Struct, kw_only=True):
    """One shard's lease. `start` is the shard's starting sequence number."""

    start: str
    parents: list[str]
    owner: str | None = None
    counter: int = 0
    checkpoint: str | None = None
    pending_checkpoint: str | None = None
    pending_state: bytes = b""

    @property
    def is_finished(self) -> bool:
        return self.checkpoint == SHARD_END


class ApplicationState(msgspec.Struct, kw_only=True):
    """One application on one stream.

    `since_ms` is when it first asked for leases (0: not yet), by the server's clock: what "from
    now on" means for all its shards. `beats` counts heartbeats of all workers together, so that
    no worker ever shows the same heartbeat twice, not even after it was forgotten in between.
    """

    since_ms: int = 0
    beats: int = 0
    workers: dict[str, int] = {}
    leases: dict[str, LeaseState] = {}


class LeasesState(msgspec.Struct):
    """All applications, by `account/region/stream/application`.

    Those of a stream go with it. `past_counter` and `past_beats` are the highest of all that went:
    the next begin after them, so that a worker of a stream that was deleted is fenced off from one
    that was made again under its name.
    """

    applications: dict[str, ApplicationState] = {}
    past_counter: int = -1
    past_beats: int = 0


class LeaseView(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A lease as it was at one moment, as the wire shows it. `heartbeat` is its owner's."""

    shard_id: str
    owner: str | None
    counter: int
    heartbeat: int
    checkpoint: str | None
    pending_checkpoint: str | None
    pending_state: bytes
    parent_shard_ids: list[str]
    since_ms: int
    starting_sequence_number: str


def application_key(account: str, region: str, stream: str, application: str) -> str:
    """Key in `LeasesState`. Only the application's name, which comes last, may hold a slash."""
    return f"{account}/{region}/{stream}/{application}"


def view(
    application: ApplicationState, shard_id: str, *, with_pending_state: bool = True
) -> LeaseView:
    """The lease of `shard_id`, which must exist, as of now."""
    lease = application.leases[shard_id]
    return LeaseView(
        shard_id=shard_id,
        owner=lease.owner,
        counter=lease.counter,
        heartbeat=heartbeat_of(application, lease),
        checkpoint=lease.checkpoint,
        pending_checkpoint=lease.pending_checkpoint,
        pending_state=lease.pending_state if with_pending_state else b"",
        parent_shard_ids=list(lease.parents),
        since_ms=application.since_ms,
        starting_sequence_number=lease.start,
    )


def heartbeat_of(application: ApplicationState, lease: LeaseState) -> int:
    """The owner's; 0 without an owner, or one that was forgotten."""
    return application.workers.get(lease.owner, 0) if lease.owner is not None else 0
