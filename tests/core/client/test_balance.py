"""Which leases a worker takes, by the decisions alone."""

from __future__ import annotations

from collections import Counter

import pytest

from headrace.core.balance import Seen, choose
from headrace.core.model.leases import SHARD_END, Lease

DURATION_MS = 1000


def lease(
    shard_id: str,
    owner: str | None = None,
    *,
    counter: int = 1,
    heartbeat: int = 1,
    checkpoint: str | None = None,
    parents: tuple[str, ...] = (),
) -> Lease:
    return Lease(
        shard_id=shard_id,
        owner=owner,
        counter=counter,
        heartbeat=heartbeat,
        checkpoint=checkpoint,
        pending_checkpoint=None,
        pending_state=b"",
        parents=parents,
    )


def looked(leases: list[Lease], *times_ms: int) -> Seen:
    seen = Seen(DURATION_MS)
    for now_ms in times_ms:
        seen.look(leases, now_ms)
    return seen


def chosen(leases: list[Lease], seen: Seen, now_ms: int = 0, **options: object) -> list[str]:
    options = {"worker": "me", "held": (), **options}
    return [taken.shard_id for taken in choose(leases, seen, now_ms=now_ms, **options)]  # type: ignore[arg-type]


def test_alone_it_takes_everything_at_once() -> None:
    leases = [lease(f"s{n}") for n in range(5)]
    assert sorted(chosen(leases, looked(leases, 0))) == ["s0", "s1", "s2", "s3", "s4"]


def test_a_live_owner_counts_and_keeps() -> None:
    leases = [lease("s0", "other"), lease("s1", "other"), lease("s2"), lease("s3")]
    assert sorted(chosen(leases, looked(leases, 0))) == ["s2", "s3"]


def test_an_owner_is_dead_when_its_heartbeat_stood_still_for_the_lease_duration() -> None:
    leases = [lease("s0", "other")]
    seen = looked(leases, 0, 999)
    assert chosen(leases, seen, 999) == []
    seen.look(leases, 1000)
    assert chosen(leases, seen, 1000) == ["s0"]


def test_a_heartbeat_that_moved_starts_the_time_anew() -> None:
    seen = looked([lease("s0", "other", heartbeat=1)], 0)
    leases = [lease("s0", "other", heartbeat=2)]
    seen.look(leases, 999)
    seen.look(leases, 1500)
    assert chosen(leases, seen, 1500) == []
    seen.look(leases, 1999)
    assert chosen(leases, seen, 1999) == ["s0"]


def test_its_own_leases_come_back_without_waiting() -> None:
    leases = [lease("s0", "me"), lease("s1", "other")]
    assert chosen(leases, looked(leases, 0)) == ["s0"]
    assert chosen(leases, looked(leases, 0), busy=["s0"]) == []  # its last work has not ended yet


def test_children_wait_for_every_parent_that_has_a_lease() -> None:
    leases = [lease("a", checkpoint=SHARD_END), lease("b", "me"), lease("c", parents=("a", "b"))]
    assert chosen(leases, looked(leases, 0), held=["b"]) == []
    leases[1] = lease("b", checkpoint=SHARD_END)
    assert chosen(leases, looked(leases, 0)) == ["c"]
    orphan = [lease("d", parents=("gone",))]
    assert chosen(orphan, looked(orphan, 0)) == ["d"]


@pytest.mark.parametrize(("theirs", "mine", "steals"), [(2, 0, 1), (2, 1, 0), (3, 1, 1), (1, 0, 0)])
def test_one_is_taken_from_a_live_worker_only_when_it_has_two_more(
    theirs: int, mine: int, steals: int
) -> None:
    leases = [lease(f"t{n}", "other") for n in range(theirs)]
    leases += [lease(f"m{n}", "me") for n in range(mine)]
    held = [f"m{n}" for n in range(mine)]
    assert len(chosen(leases, looked(leases, 0), held=held)) == steals


def test_it_never_holds_more_than_it_may() -> None:
    leases = [lease(f"s{n}") for n in range(5)] + [lease("mine", "me")]
    assert len(chosen(leases, looked(leases, 0), max_leases=2)) == 2
    assert chosen(leases, looked(leases, 0), held=["mine"], max_leases=1) == []


def test_what_others_have_no_room_for_is_taken_in_the_end() -> None:
    """One worker may hold a single lease only; the other takes its fair share, then the rest."""
    leases = [lease("theirs", "small")] + [lease(f"s{n}") for n in range(5)]
    seen = looked(leases, 0)
    assert len(chosen(leases, seen, 0)) == 3
    moved = [lease("theirs", "small", heartbeat=2), *leases[1:]]
    seen.look(moved, 1000)
    assert len(chosen(moved, seen, 1000)) == 5


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("shards", [1, 4, 7, 32])
def test_shares_become_even_and_then_nothing_moves(workers: int, shards: int) -> None:
    """Workers join one after another, each finding the others with everything."""
    names = [f"w{n}" for n in range(workers)]
    seen = {name: Seen(DURATION_MS) for name in names}
    owners: dict[str, str | None] = {f"s{n}": None for n in range(shards)}
    counters = Counter({shard_id: 0 for shard_id in owners})
    moves = [0]

    def everybody_looks(live: list[str], time_ms: int) -> None:
        moves.append(0)
        for name in live:
            leases = [
                lease(s, owner, counter=counters[s], heartbeat=time_ms)
                for s, owner in owners.items()
            ]
            seen[name].look(leases, time_ms)
            held = [s for s, owner in owners.items() if owner == name]
            for taken in choose(leases, seen[name], worker=name, held=held, now_ms=time_ms):
                owners[taken.shard_id] = name
                counters[taken.shard_id] += 1
                moves[-1] += 1

    time_ms = 0
    for joined in range(1, workers + 1):
        for _ in range(shards + 2):
            time_ms += DURATION_MS // 3
            everybody_looks(names[:joined], time_ms)
        shares = [sum(owner == name for owner in owners.values()) for name in names[:joined]]
        assert max(shares) - min(shares) <= 1
        assert moves[-1] == 0
