"""Leases and checkpoints as values; the server side keeps them, the consumer works by them.

A checkpoint is the last sequence number done: resuming is *after* it. Two words are special, as
in the KCL: `TRIM_HORIZON` style starts have no checkpoint at all (None), and `SHARD_END` says
that the shard is finished.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARD_END = "SHARD_END"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on one shard for one application.

    `counter` rises by one with every change of owner and is the fencing token: `prepare`,
    `save` and `release` name it, and are refused once somebody else has taken the lease.
    `heartbeat` is the owner's: a lease is expired when the owner's heartbeat has not moved for
    the lease duration, measured by whoever wants to take it on their own monotonic clock.
    `pending_state` is empty in lists; taking the lease shows it. `since_ms` is when the
    application first asked for leases, by the clock of whoever keeps them: where LATEST is for a
    shard without a checkpoint (0: not known). `starting_sequence_number` is the shard's.
    """

    shard_id: str
    owner: str | None
    counter: int
    heartbeat: int
    checkpoint: str | None
    pending_checkpoint: str | None
    pending_state: bytes
    parents: tuple[str, ...]
    since_ms: int = 0
    starting_sequence_number: str | None = None

    @property
    def is_finished(self) -> bool:
        return self.checkpoint == SHARD_END
