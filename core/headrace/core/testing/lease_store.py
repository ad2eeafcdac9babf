"""The contract of `LeaseStore` as a test, for ours and for anybody's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from headrace.core.errors import InvalidArgument, LeaseLost, ServiceError
from headrace.core.leases import LeaseStore
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.leases import SHARD_END, Lease
from headrace.core.model.shards import ShardInfo

_PENDING_BYTES = 8 << 20


async def check_lease_store(open_store: Callable[[str], LeaseStore]) -> None:
    """Raise AssertionError where a store breaks the contract.

    `open_store` returns the store of one and the same, so far unknown application for the worker
    of that name.
    """
    ann, bob = open_store("ann"), open_store("bob")
    assert await ann.list() == [], "an application nobody has heard of has no leases"
    shards = [
        _shard("shardId-000000000000"),
        _shard("shardId-000000000001", "shardId-000000000000"),
    ]
    await ann.sync(shards)
    await bob.sync(shards)
    parent, child = await _listed(ann)
    assert (parent.owner, parent.counter, parent.checkpoint) == (None, 0, None)
    assert child.parents == (parent.shard_id,)

    await _check_taking(ann, bob, parent)
    await _check_checkpoints(ann, bob)

    await bob.save(parent.shard_id, (await _listed(bob))[0].counter, SHARD_END)
    await ann.sync(shards[1:])
    assert [lease.shard_id for lease in await bob.list()] == [child.shard_id], (
        "a finished lease is forgotten once its shard is gone"
    )
    await bob.take(child.shard_id, 0, 0)
    await ann.sync([])
    assert len(await bob.list()) == 1, "an unfinished lease is never forgotten"


async def _check_taking(ann: LeaseStore, bob: LeaseStore, lease: Lease) -> None:
    await ann.heartbeat()
    taken = await ann.take(lease.shard_id, 0, 0)
    assert (taken.owner, taken.counter) == ("ann", 1), "a change of owner raises the counter"
    await _refused(LeaseLost, bob.take(lease.shard_id, 0, 0))
    seen = (await _listed(bob))[0]
    await ann.heartbeat()
    await _refused(LeaseLost, bob.take(lease.shard_id, seen.counter, seen.heartbeat))
    seen = (await _listed(bob))[0]
    stolen = await bob.take(lease.shard_id, seen.counter, seen.heartbeat)
    assert (stolen.owner, stolen.counter) == ("bob", 2)
    await _refused(LeaseLost, ann.save(lease.shard_id, 1, "5"))
    await _refused(LeaseLost, ann.release(lease.shard_id, 1))
    await bob.release(lease.shard_id, 2)
    await _refused(LeaseLost, bob.save(lease.shard_id, 2, "5"))
    free = (await _listed(ann))[0]
    assert free.owner is None
    await ann.take(lease.shard_id, free.counter, 0)
    await ann.heartbeat()
    again = await ann.take(lease.shard_id, free.counter + 1, 0)  # with a heartbeat it never saw
    assert again.owner == "ann", "a worker takes its own lease back at once"


async def _check_checkpoints(ann: LeaseStore, bob: LeaseStore) -> None:
    """On the first lease, which ann holds."""
    lease = (await _listed(ann))[0]
    name, counter = lease.shard_id, lease.counter
    await ann.save(name, counter, "9")
    await ann.save(name, counter, "10")
    await ann.save(name, counter, "10")
    await _refused(InvalidArgument, ann.save(name, counter, "9"))
    state = bytes(range(256)) * (_PENDING_BYTES // 256)
    await ann.prepare(name, counter, "12", state)
    await _refused(ServiceError, ann.prepare(name, counter, "12", state + b"x"))
    seen = (await _listed(bob))[0]
    taken = await bob.take(name, seen.counter, seen.heartbeat)
    assert (taken.checkpoint, taken.pending_checkpoint) == ("10", "12")
    assert taken.pending_state == state, "what was prepared outlives its worker, byte for byte"
    await _refused(LeaseLost, ann.prepare(name, counter, "13", b""))
    await bob.save(name, taken.counter, "12")
    seen = (await _listed(bob))[0]
    assert (seen.checkpoint, seen.pending_checkpoint) == ("12", None)


async def _listed(store: LeaseStore) -> list[Lease]:
    return sorted(await store.list(), key=lambda lease: lease.shard_id)


async def _refused(kind: type[Exception], action: Awaitable[object]) -> None:
    try:
        await action
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}")


def _shard(shard_id: str, parent: str | None = None) -> ShardInfo:
    return ShardInfo(
        shard_id=shard_id,
        hash_key_range=HashKeyRange(0, 1),
        starting_sequence_number="1",
        parent_shard_id=parent,
    )
