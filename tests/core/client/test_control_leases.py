"""The lease reducer by itself: who is refused what, and that refusals change nothing."""

from __future__ import annotations

import msgspec
import pytest

from headrace.core.control.lease_state import LeasesState
from headrace.core.control.leases import LeaseCommand
from headrace.core.errors import InvalidArgument, LeaseLost, ResourceInUse, ResourceNotFound
from headrace.core.model.leases import SHARD_END
from lease_commands import Box, beat, prepare, release, save, shard, sync, take


def test_taking_raises_the_counter_and_shows_the_lease() -> None:
    box = Box(shard("a"))
    view = box.taken(take("w1", "a", 0))
    assert (view.owner, view.counter, view.checkpoint) == ("w1", 1, None)
    box.refused(LeaseLost, take("w2", "a", 0))


def test_a_live_owner_keeps_its_lease() -> None:
    box = Box(shard("a"))
    box.do(beat("w1"))
    heartbeat = box.taken(take("w1", "a", 0)).heartbeat
    box.do(beat("w1"))
    box.refused(LeaseLost, take("w2", "a", 1, heartbeat))
    box.do(take("w2", "a", 1, heartbeat + 1))  # still since then: free to take
    assert box.lease("a").owner == "w2"


def test_a_worker_takes_its_own_lease_back_at_once() -> None:
    box = Box(shard("a"))
    box.do(take("w1", "a", 0))
    box.do(beat("w1"))
    assert box.taken(take("w1", "a", 1, 12345)).counter == 2
    box.refused(LeaseLost, save("a", 1, "7"))  # its former self


def test_a_heartbeat_is_never_the_same_twice_even_for_a_forgotten_worker() -> None:
    box = Box(shard("a"))
    seen = set()
    for round_number in range(300):
        box.do(beat("idle"))
        assert box.application.workers["idle"] not in seen
        seen.add(box.application.workers["idle"])
        box.do(beat(f"passer-by-{round_number}"))
    assert len(box.application.workers) < 70  # who holds nothing is forgotten


def test_forgetting_workers_spares_owners() -> None:
    box = Box(shard("a"))
    box.do(beat("owner"))
    heartbeat = box.taken(take("owner", "a", 0)).heartbeat
    for number in range(500):
        box.do(beat(f"passer-by-{number}"))
    assert box.application.workers["owner"] == heartbeat


def test_children_wait_for_all_parents() -> None:
    box = Box(shard("a"), shard("b"), shard("c", "a", "b"))
    box.refused(ResourceInUse, take("w", "c", 0))
    for parent in ("a", "b"):
        box.refused(ResourceInUse, take("w", "c", 0))
        box.do(take("w", parent, 0))
        box.do(save(parent, 1, SHARD_END))
    assert box.taken(take("w", "c", 0)).parent_shard_ids == ["a", "b"]


def test_a_parent_without_a_lease_holds_nobody_up() -> None:
    box = Box(shard("c", "long-gone"))
    box.do(take("w", "c", 0))


def test_checkpoints_compare_as_numbers_and_never_go_back() -> None:
    box = Box(shard("a"))
    box.do(take("w", "a", 0))
    box.do(save("a", 1, "9"))
    box.do(save("a", 1, "10"))
    box.do(save("a", 1, "10"))  # the answer to the first was lost
    box.refused(InvalidArgument, save("a", 1, "9"))
    box.do(save("a", 1, SHARD_END))
    box.do(save("a", 1, SHARD_END))
    box.refused(InvalidArgument, save("a", 1, "11"))
    box.refused(LeaseLost, take("w2", "a", 1))
    assert box.lease("a").owner is None


def test_what_is_prepared_outlives_the_worker_and_ends_with_the_next_save() -> None:
    box = Box(shard("a"))
    box.do(take("w1", "a", 0))
    box.do(save("a", 1, "5"))
    box.refused(InvalidArgument, prepare("a", 1, "5", b"too late"))
    box.do(prepare("a", 1, "8", b"first"))
    box.do(prepare("a", 1, "7", b"plan"))
    view = box.taken(take("w2", "a", 1))
    assert (view.checkpoint, view.pending_checkpoint, view.pending_state) == ("5", "7", b"plan")
    box.refused(LeaseLost, prepare("a", 1, "9", b"stale"))
    box.do(save("a", 2, "7"))
    assert (box.lease("a").pending_checkpoint, box.lease("a").pending_state) == (None, b"")


def test_releasing_fences_the_one_who_released() -> None:
    box = Box(shard("a"))
    box.do(take("w1", "a", 0))
    box.do(release("a", 1))
    box.do(release("a", 1))  # the answer to the first was lost
    box.refused(LeaseLost, save("a", 1, "5"))
    box.do(take("w2", "a", 2))
    box.refused(LeaseLost, release("a", 1))


def test_a_finished_lease_is_forgotten_only_when_told() -> None:
    box = Box(shard("a"), shard("b"))
    box.do(take("w", "a", 0))
    box.do(save("a", 1, SHARD_END))
    box.do(sync(shard("a"), forget=("b",)))  # b is not finished; a exists and is finished
    assert box.lease("a").is_finished and "b" in box.application.leases
    box.do(sync(forget=("a",)))
    assert "a" not in box.application.leases


def test_a_shard_of_a_stream_made_again_starts_over_and_shows_what_was_lost() -> None:
    box = Box(shard("done"), shard("half"))
    for name in ("done", "half"):
        box.do(take("w", name, 0))
    box.do(save("done", 1, SHARD_END))
    box.do(save("half", 1, "150"))
    box.do(sync(shard("done", start="200"), shard("half", start="200"), now_ms=99))
    assert (box.lease("done").checkpoint, box.lease("half").checkpoint) == (None, "150")
    box.refused(LeaseLost, save("half", 1, "160"))
    box.do(sync(shard("half", start="100")))  # somebody's list from before
    assert box.lease("half").start == "200"
    assert box.application.since_ms == 5  # when the application began, not the stream


def test_a_heartbeat_of_an_application_without_leases_leaves_nothing() -> None:
    box = Box()
    box.do(beat("w"))
    assert box.state == LeasesState()
    box.do(sync(shard("a")))
    box.do(beat("w"))
    assert box.application.workers == {"w": 1}
    before = Box()
    before.do(beat("w", only_known=False))  # stored before they were told apart
    assert before.application.workers == {"w": 1}


def test_unknown_applications_and_shards_are_named() -> None:
    box = Box()
    with pytest.raises(ResourceNotFound, match="app/one has no leases on stream s"):
        box.do(take("w", "a", 0))
    assert box.state == LeasesState()
    box.do(sync(shard("a")))
    with pytest.raises(ResourceNotFound, match="no lease for b"):
        box.do(save("b", 0, "1"))


def test_state_and_commands_survive_encoding() -> None:
    box = Box(shard("a"))
    box.do(beat("w"))
    box.do(take("w", "a", 0))
    box.do(prepare("a", 1, "8", bytes(range(256))))
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(box.state), type=LeasesState) == box.state
        command = prepare("a", 1, "9", b"\xff")
        assert codec.decode(codec.encode(command), type=LeaseCommand) == command
