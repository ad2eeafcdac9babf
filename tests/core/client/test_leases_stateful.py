"""Several workers, any schedule: lists that grow stale, crashes, pauses, splits, hand-overs.

The reducer is the real one and so are the decisions (`Seen`, `choose`); only time and the order of
events are hypothesis's to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.core.balance import Seen, choose
from headrace.core.control.lease_state import (
    ApplicationState,
    LeasesState,
    LeaseView,
    application_key,
    view,
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
from headrace.core.errors import InvalidArgument, LeaseLost, ResourceInUse, ServiceError
from headrace.core.model.leases import SHARD_END, Lease

WHERE = {"account": "1", "region": "r", "stream": "s", "application": "a"}
DURATION_MS = 1000
OWN_DEADLINE_MS = 900
WORKERS = st.sampled_from(["ann", "bob", "cy"])
PICK = st.integers(0, 1_000_000)


@dataclass
class Worker:
    """What one process knows."""

    seen: Seen = field(default_factory=lambda: Seen(DURATION_MS))
    beat_sent_ms: int | None = None
    held: dict[str, int] = field(default_factory=dict)
    wanted: list[Lease] = field(default_factory=list)  # chosen from a list, not yet taken


def lease_of(shown: LeaseView) -> Lease:
    return Lease(
        shard_id=shown.shard_id,
        owner=shown.owner,
        counter=shown.counter,
        heartbeat=shown.heartbeat,
        checkpoint=shown.checkpoint,
        pending_checkpoint=shown.pending_checkpoint,
        pending_state=shown.pending_state,
        parents=tuple(shown.parent_shard_ids),
    )


class Leases(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = LeasesState()
        self.now_ms = 0
        self.workers = {name: Worker() for name in ("ann", "bob", "cy")}
        self.past: dict[str, set[int]] = {}  # counters that were given out
        self.shards: dict[str, tuple[str, ...]] = {}
        self.checkpoints: dict[str, float] = {}

    def do(self, command: LeaseCommand) -> LeaseView | None:
        return apply_lease_command(self.state, command)

    @property
    def application(self) -> ApplicationState:
        return self.state.applications[application_key(**WHERE)]

    @initialize(count=st.integers(1, 5))
    def start(self, count: int) -> None:
        self.shards = {f"shard-{number}": () for number in range(count)}
        self.sync()

    @rule()
    def sync(self) -> None:
        create = [
            LeaseShard(shard_id=name, starting_sequence_number="1", parent_shard_ids=list(parents))
            for name, parents in self.shards.items()
        ]
        self.do(SyncLeases(**WHERE, create=create, forget=[], now_ms=1))

    @precondition(lambda self: len(self.shards) < 9)
    @rule(first=PICK, second=PICK)
    def reshard(self, first: int, second: int) -> None:
        names = sorted(self.shards)
        parents = {names[first % len(names)], names[second % len(names)]}
        self.shards[f"shard-{len(names)}"] = tuple(sorted(parents))

    @rule(duration_ms=st.integers(1, 700))
    def time_passes(self, duration_ms: int) -> None:
        self.now_ms += duration_ms

    @rule(name=WORKERS, lag_ms=st.integers(0, 300))
    def beat(self, name: str, lag_ms: int) -> None:
        """The beat is sent now and applied `lag_ms` later."""
        worker = self.workers[name]
        sent_ms = self.now_ms
        self.now_ms += lag_ms
        self.give_up_if_late(worker)
        self.do(Heartbeat(**WHERE, worker=name, only_known=True))
        worker.beat_sent_ms = sent_ms

    def give_up_if_late(self, worker: Worker) -> None:
        if not self.is_sure(worker):
            worker.held.clear()

    def is_sure(self, worker: Worker) -> bool:
        return (
            worker.beat_sent_ms is not None and self.now_ms < worker.beat_sent_ms + OWN_DEADLINE_MS
        )

    @rule(name=WORKERS, room=st.sampled_from([None, 1, 2]))
    def look(self, name: str, room: int | None) -> None:
        worker = self.workers[name]
        leases = [lease_of(view(self.application, s)) for s in sorted(self.application.leases)]
        worker.seen.look(leases, self.now_ms)
        for lease in leases:
            if worker.held.get(lease.shard_id, lease.counter) < lease.counter:
                del worker.held[lease.shard_id]
        worker.wanted = choose(
            leases,
            worker.seen,
            worker=name,
            held=worker.held,
            now_ms=self.now_ms,
            max_leases=room,
        )

    @precondition(lambda self: any(worker.wanted for worker in self.workers.values()))
    @rule(name=WORKERS)
    def take(self, name: str) -> None:
        """Take what was chosen, however long ago that was."""
        worker = self.workers[name]
        if not worker.wanted:
            return
        lease = worker.wanted.pop(0)
        if not self.is_sure(worker):
            return
        robbed = self.application.leases[lease.shard_id].owner
        was_free = worker.seen.is_free(lease, self.now_ms)
        try:
            taken = self.do(
                TakeLease(
                    **WHERE,
                    worker=name,
                    shard_id=lease.shard_id,
                    expected_counter=lease.counter,
                    expected_owner_heartbeat=lease.heartbeat,
                )
            )
        except (LeaseLost, ResourceInUse):
            return
        assert taken is not None
        assert taken.counter not in self.past.setdefault(lease.shard_id, set())
        self.past[lease.shard_id].add(taken.counter)
        worker.held[lease.shard_id] = taken.counter
        for parent in taken.parent_shard_ids:
            assert self.application.leases[parent].is_finished
        if robbed not in (None, name) and was_free:
            # the former owner had stopped relying on it before
            assert not self.is_sure(self.workers[robbed])

    @rule(name=WORKERS, lag_ms=st.integers(0, 100))
    def go_round(self, name: str, lag_ms: int) -> None:
        """What a worker does when nothing comes in between."""
        self.beat(name, lag_ms)
        self.look(name, None)
        while self.workers[name].wanted:
            self.take(name)

    @rule(name=WORKERS, pick=PICK, number=st.integers(1, 50), end=st.booleans())
    def save(self, name: str, pick: int, number: int, end: bool) -> None:
        """Save with what the worker believes, true or not."""
        worker = self.workers[name]
        if not worker.held:
            return
        shard_id = sorted(worker.held)[pick % len(worker.held)]
        counter = worker.held[shard_id]
        lease = self.application.leases[shard_id]
        command = SaveCheckpoint(
            **WHERE,
            shard_id=shard_id,
            counter=counter,
            checkpoint=SHARD_END if end and number > 40 else str(number),
        )
        is_stale = counter != lease.counter
        try:
            self.do(command)
        except LeaseLost:
            assert is_stale
            del worker.held[shard_id]
        except InvalidArgument:
            assert not is_stale
        else:
            assert not is_stale
            if lease.is_finished:
                del worker.held[shard_id]

    @rule(name=WORKERS, pick=PICK, number=st.integers(1, 50))
    def prepare(self, name: str, pick: int, number: int) -> None:
        worker = self.workers[name]
        if not worker.held:
            return
        shard_id = sorted(worker.held)[pick % len(worker.held)]
        is_stale = worker.held[shard_id] != self.application.leases[shard_id].counter
        try:
            self.do(
                PrepareCheckpoint(
                    **WHERE,
                    shard_id=shard_id,
                    counter=worker.held[shard_id],
                    sequence_number=str(number),
                    state=name.encode(),
                )
            )
        except ServiceError as error:
            assert isinstance(error, LeaseLost) == is_stale
        else:
            assert not is_stale
            assert self.application.leases[shard_id].pending_state == name.encode()

    @rule(shard=PICK, counter=st.integers(0, 20))
    def stray_save(self, shard: int, counter: int) -> None:
        """A write that was on its way for ages."""
        names = sorted(self.application.leases)
        shard_id = names[shard % len(names)]
        lease = self.application.leases[shard_id]
        if counter == lease.counter:
            return
        before = (lease.checkpoint, lease.owner, lease.counter)
        try:
            self.do(SaveCheckpoint(**WHERE, shard_id=shard_id, counter=counter, checkpoint="60"))
        except LeaseLost:
            assert (lease.checkpoint, lease.owner, lease.counter) == before
        else:
            raise AssertionError("a save by a stale counter was accepted")

    @rule(name=WORKERS, pick=PICK)
    def release(self, name: str, pick: int) -> None:
        worker = self.workers[name]
        if not worker.held:
            return
        shard_id = sorted(worker.held)[pick % len(worker.held)]
        counter = worker.held.pop(shard_id)
        is_stale = counter != self.application.leases[shard_id].counter
        try:
            self.do(ReleaseLease(**WHERE, shard_id=shard_id, counter=counter))
        except LeaseLost:
            assert is_stale

    @rule(name=WORKERS)
    def crash(self, name: str) -> None:
        """The process dies; one of the same name comes up."""
        self.workers[name] = Worker()

    @invariant()
    def nobody_shares(self) -> None:
        for shard_id in self.shards:
            lease = self.state.applications and self.application.leases.get(shard_id)
            if lease:
                valid = [w for w in self.workers.values() if w.held.get(shard_id) == lease.counter]
                assert len(valid) <= 1

    @invariant()
    def checkpoints_never_go_back(self) -> None:
        if not self.state.applications:
            return
        for shard_id, lease in self.application.leases.items():
            now = float("inf") if lease.is_finished else float(lease.checkpoint or 0)
            assert now >= self.checkpoints.get(shard_id, 0)
            self.checkpoints[shard_id] = now


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
