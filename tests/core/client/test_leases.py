"""StreamLeases against the real server."""

from __future__ import annotations

import pytest

from headrace.core.client import StreamClient
from headrace.core.errors import ResourceNotFound, ServiceError, ValidationError
from headrace.core.leases import StreamLeases
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.shards import ShardInfo
from headrace.core.testing.lease_store import check_lease_store
from headrace.core.testing.server_process import ServerProcess


def shards(count: int) -> list[ShardInfo]:
    return [
        ShardInfo(
            shard_id=f"shardId-{number:012d}",
            hash_key_range=HashKeyRange(0, 1),
            starting_sequence_number="1",
        )
        for number in range(count)
    ]


async def test_the_contract(direct: StreamClient) -> None:
    await check_lease_store(lambda worker: StreamLeases(direct, "contract", "s", worker))


async def test_a_long_list_comes_in_pages(direct: StreamClient) -> None:
    leases = StreamLeases(direct, "pages", "s", "w")
    await leases.sync(shards(2345))
    listed = await leases.list()
    assert [lease.shard_id for lease in listed] == [s.shard_id for s in shards(2345)]
    assert all(lease.since_ms > 0 and lease.starting_sequence_number == "1" for lease in listed)


async def test_leases_survive_kill_9(server: ServerProcess) -> None:
    async with StreamClient(server.target) as client:
        leases = StreamLeases(client, "app", "s", "w")
        await leases.sync(shards(2))
        await leases.heartbeat()
        taken = await leases.take("shardId-000000000001", 0, 0)
        await leases.save(taken.shard_id, taken.counter, "41")
        await leases.prepare(taken.shard_id, taken.counter, "42", b"plan")
        before = await leases.list()
    server.kill()
    server.start()
    async with StreamClient(server.target) as client:
        leases = StreamLeases(client, "app", "s", "w")
        assert await leases.list() == before
        again = await leases.take(taken.shard_id, taken.counter, 0)
        assert (again.checkpoint, again.pending_checkpoint, again.pending_state) == (
            "41",
            "42",
            b"plan",
        )


async def test_leases_go_with_their_stream(server: ServerProcess) -> None:
    """Also on replay; whoever held one is told that there is nothing to hold."""
    async with StreamClient(server.target) as client:
        for stream in ("s", "s2"):
            await client.ensure_stream(stream, shards=2)
            leases = StreamLeases(client, "app", stream, "w")
            await leases.sync(await client.list_shards(stream))
            taken = await leases.take("shardId-000000000001", 0, 0)
            await leases.prepare(taken.shard_id, taken.counter, "42", b"plan")
        gone = StreamLeases(client, "app", "s", "w")
        await client.call("DeleteStream", {"StreamName": "s"})
        assert await gone.list() == []
        for write in (
            gone.save(taken.shard_id, taken.counter, "42"),
            gone.prepare(taken.shard_id, taken.counter, "43", b""),
            gone.release(taken.shard_id, taken.counter),
            gone.take(taken.shard_id, taken.counter, 0),
        ):
            with pytest.raises(ResourceNotFound, match="app has no leases on stream s"):
                await write
        kept = await leases.list()
        assert len(kept) == 2
    server.kill()
    server.start()
    async with StreamClient(server.target) as client:
        assert await StreamLeases(client, "app", "s", "w").list() == []
        assert await StreamLeases(client, "app", "s2", "w").list() == kept


async def test_accounts_regions_and_applications_do_not_meet(
    shared_server: ServerProcess, direct: StreamClient
) -> None:
    from headrace.core.part import StreamTarget

    await StreamLeases(direct, "one", "s", "w").sync(shards(1))
    elsewhere = StreamTarget(endpoint=shared_server.endpoint, region="eu-west-1")
    async with StreamClient(elsewhere) as client:
        assert await StreamLeases(client, "one", "s", "w").list() == []
    assert await StreamLeases(direct, "one/s", "s", "w").list() == []


@pytest.mark.parametrize(("application", "worker"), [("", "w"), ("a b", "w"), ("a", "x" * 129)])
def test_names_out_of_bounds_are_refused_at_once(
    direct: StreamClient, application: str, worker: str
) -> None:
    with pytest.raises(ValidationError, match="1 to 128 letters"):
        StreamLeases(direct, application, "s", worker)


@pytest.mark.parametrize(
    ("operation", "members", "says"),
    [
        ("Heartbeat", {"WorkerId": "a b"}, "WorkerId 'a b' must match"),
        ("Heartbeat", {}, "WorkerId"),
        ("ListLeases", {"MaxResults": 5000}, "MaxResults is 1 to 1000"),
        ("ReleaseLease", {"ShardId": "s", "Counter": -1}, "Counter"),
        ("SaveCheckpoint", {"ShardId": "s", "Counter": 1, "Checkpoint": "LATEST"}, "Checkpoint"),
        (
            "PrepareCheckpoint",
            {"ShardId": "s", "Counter": 1, "SequenceNumber": "1", "State": "no base64!"},
            "State",
        ),
    ],
)
async def test_bad_requests_say_what_is_wrong(
    direct: StreamClient, operation: str, members: dict[str, object], says: str
) -> None:
    request = {"ApplicationName": "a", "StreamName": "s", **members}
    with pytest.raises(ServiceError, match=says) as caught:
        await direct.call(operation, request, extension=True)
    assert caught.value.wire_status == 400
