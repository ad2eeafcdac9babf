"""What becomes of leases when a stream is deleted: those on it go, those on another stay."""

from __future__ import annotations

import copy
from pathlib import Path

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.control.leases import (
    LeaseShard,
    forget_stream,
)
from headrace.core.control.machine import ControlState, apply
from headrace.core.control.stream_state import StreamState
from headrace.core.control.streams import CreateStream, DropShards, MergeShards, RemoveStream
from headrace.core.errors import LeaseLost, ResourceNotFound
from headrace.core.leases import StreamLeases
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.sequence import starting
from headrace.core.model.shards import ShardInfo, shard_id
from headrace.core.part import StreamTarget
from lease_commands import AT, Box, beat, release, save, shard, sync, take


def stream(account: str) -> StreamState:
    return StreamState(
        uid="u", account=account, region="r", name="s", created_ms=1000, mode="PROVISIONED",
        status="ACTIVE", shards=[],
    )  # fmt: skip


def test_leases_go_with_their_stream_and_nothing_of_them_comes_back() -> None:
    box = Box(shard("a"), shard("b"))
    for name in ("a", "b"):
        box.do(take("w", name, 0))
    for _ in range(3):
        box.do(release("b", box.lease("b").counter))
        box.do(take("w", "b", box.lease("b").counter))
    for _ in range(5):
        box.do(beat("w"))
    others = {}
    for key in ("1/r/s2/app", "2/r/s/app", "1/r2/s/app"):
        others[key] = box.state.applications[key] = copy.deepcopy(box.application)
    last, beats = box.lease("b").counter, box.application.beats
    forget_stream(box.state, stream("1"), spares_others=False)
    assert box.state.applications == others
    box.refused(ResourceNotFound, save("b", last, "150"))
    box.do(sync(shard("a"), shard("b"), now_ms=99))
    assert {name: lease.counter for name, lease in box.application.leases.items()} == {
        "a": last + 1,
        "b": last + 1,
    }
    assert box.application.since_ms == 99  # the application starts afresh
    for stale in range(last + 1):
        box.refused(LeaseLost, save("b", stale, "150"))
    box.do(beat("w"))
    assert box.application.workers == {"w": beats + 1}
    # a stream without leases takes nothing back
    forget_stream(box.state, stream("9"), spares_others=False)
    assert box.state.past_counter == last


def test_a_removal_from_before_leaves_leases_as_it_did() -> None:
    """Commands that were stored are replayed to the state they led to."""
    made = CreateStream(**AT, at_ms=1000, mode="PROVISIONED", shards=1)
    for with_leases in (False, True):
        state = ControlState()
        for command in (made, sync(shard("a")), RemoveStream(**AT, with_leases=with_leases)):
            apply(state, command)
        assert len(state.leases.applications) == (0 if with_leases else 1)


def removed_with(*shards: LeaseShard, resharded: bool = False, expired: bool = True) -> bool:
    """Whether an application with leases on those is dropped with a stream of their name.

    The stream is made in second 1000 with shards 0 and 1; when `resharded` these are merged into
    shard 2, a minute later, and have `expired`.
    """
    state = ControlState()
    apply(state, CreateStream(**AT, at_ms=1_000_000, mode="PROVISIONED", shards=2))
    if resharded:
        apply(state, MergeShards(**AT, shard=0, adjacent=1, at_ms=1_060_000))
        apply(state, DropShards(**AT, shards=[0, 1] if expired else []))
    apply(state, sync(*shards))
    apply(state, RemoveStream(**AT, with_leases=True, spares_others=True))
    assert not state.streams.streams
    return not state.leases.applications


def lease_on(number: int, created_s: int) -> LeaseShard:
    return shard(shard_id(number), start=str(starting(created_s, number)))


def test_leases_on_a_stream_on_aws_stay_when_one_of_its_name_goes_here() -> None:
    ours, later = (lease_on(0, 1000), lease_on(1, 1000)), lease_on(2, 1060)
    assert removed_with(*ours)
    assert removed_with()
    assert not removed_with(lease_on(0, 1010), lease_on(1, 1010))
    assert not removed_with(lease_on(0, 999), lease_on(1, 999))
    assert not removed_with(*(lease_on(number, 1010) for number in range(4)))
    # an application that moved here: what it had there is long over
    assert removed_with(lease_on(0, 1000), lease_on(7, 900))

    assert removed_with(*ours, later, resharded=True)
    assert removed_with(later, resharded=True)
    assert removed_with(*ours, resharded=True), "it stopped before the stream was resharded"
    assert not removed_with(lease_on(0, 999), lease_on(1, 999), resharded=True)
    assert not removed_with(lease_on(0, 1061), lease_on(1, 1061), resharded=True)
    assert not removed_with(lease_on(0, 1010), lease_on(1, 1010), resharded=True, expired=False)
    assert not removed_with(*ours, lease_on(2, 1061), resharded=True)
    assert not removed_with(*ours, lease_on(3, 1010), resharded=True)
    assert not removed_with(shard("shardId-0", start="5"), resharded=True)


async def test_an_application_that_reads_from_aws_keeps_its_leases_here(tmp_path: Path) -> None:
    """A stream of the same name comes and goes here meanwhile, and is read as well."""
    async with (
        server_here(tmp_path / "data") as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        there = StreamLeases(client, "there", "s", "w")
        await there.heartbeat()
        await there.sync([a_shard(0, 1_600_000_000), a_shard(1, 1_600_000_000)])
        await there.take(shard_id(1), 0, 0)
        await there.save(shard_id(1), 1, str(starting(1_600_000_000, 1) + 5))
        kept = await there.list()

        await client.ensure_stream("s", shards=2)
        here = StreamLeases(client, "here", "s", "w")
        await here.sync(await client.list_shards("s"))
        await here.take(shard_id(0), 0, 0)
        await client.call("DeleteStream", {"StreamName": "s"})
        await here.heartbeat()  # its worker finds out later

        assert await there.list() == kept
        assert await here.list() == []
    applications = server._catalog.state.leases.applications
    assert [key.rpartition("/")[2] for key in applications] == ["there"]


def a_shard(number: int, created_s: int) -> ShardInfo:
    """As ListShards shows one that was made elsewhere."""
    return ShardInfo(
        shard_id=shard_id(number),
        hash_key_range=HashKeyRange(0, 1),
        starting_sequence_number=str(starting(created_s, number)),
    )
