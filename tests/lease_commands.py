"""Commands of one application on one stream, and a state to do them to."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from headrace.core.control.lease_state import (
    ApplicationState,
    LeasesState,
    LeaseState,
    LeaseView,
    application_key,
)
from headrace.core.control.leases import (
    Heartbeat,
    LeaseCommand,
    LeaseShard,
    PrepareCheckpoint,
    ReleaseLease,
    SaveCheckpoint,
    SyncLeases,
    TakeLease,
    apply_lease_command,
)

WHERE = {"account": "1", "region": "r", "stream": "s", "application": "app/one"}
AT: Any = {"account": "1", "region": "r", "name": "s", "uid": "u"}


def shard(name: str, *parents: str, start: str = "100") -> LeaseShard:
    return LeaseShard(shard_id=name, starting_sequence_number=start, parent_shard_ids=list(parents))


def sync(*shards: LeaseShard, forget: tuple[str, ...] = (), now_ms: int = 5) -> SyncLeases:
    return SyncLeases(**WHERE, create=list(shards), forget=list(forget), now_ms=now_ms)


def take(worker: str, shard_id: str, counter: int, heartbeat: int = 0) -> TakeLease:
    return TakeLease(
        **WHERE,
        worker=worker,
        shard_id=shard_id,
        expected_counter=counter,
        expected_owner_heartbeat=heartbeat,
    )


def save(shard_id: str, counter: int, checkpoint: str) -> SaveCheckpoint:
    return SaveCheckpoint(**WHERE, shard_id=shard_id, counter=counter, checkpoint=checkpoint)


def prepare(shard_id: str, counter: int, number: str, state: bytes) -> PrepareCheckpoint:
    return PrepareCheckpoint(
        **WHERE, shard_id=shard_id, counter=counter, sequence_number=number, state=state
    )


def release(shard_id: str, counter: int) -> ReleaseLease:
    return ReleaseLease(**WHERE, shard_id=shard_id, counter=counter)


def beat(worker: str, *, only_known: bool = True) -> Heartbeat:
    return Heartbeat(**WHERE, worker=worker, only_known=only_known)


class Box:
    """A state, and commands done to it."""

    def __init__(self, *shards: LeaseShard) -> None:
        self.state = LeasesState()
        if shards:
            self.do(sync(*shards))

    def do(self, command: LeaseCommand) -> LeaseView | None:
        return apply_lease_command(self.state, command)

    def taken(self, command: TakeLease) -> LeaseView:
        view = self.do(command)
        assert view is not None
        return view

    def refused(self, error: type[Exception], command: LeaseCommand) -> None:
        before = copy.deepcopy(self.state)
        with pytest.raises(error):
            self.do(command)
        assert self.state == before

    @property
    def application(self) -> ApplicationState:
        return self.state.applications[application_key(**WHERE)]

    def lease(self, shard_id: str) -> LeaseState:
        return self.application.leases[shard_id]
