"""Where leases and checkpoints are kept, as the consumer sees it.

`LeaseStore` is the contract; `StreamLeases` keeps them on a Headrace, by its lease operations.
`testing.lease_store.check_lease_store` is the contract as a test.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, Protocol

from headrace.core.client import StreamClient
from headrace.core.errors import ValidationError
from headrace.core.model.leases import Lease
from headrace.core.model.shards import ShardInfo

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


class LeaseStore(Protocol):
    """Leases of one application on one stream, for one worker.

    All methods may raise EndpointUnreachable, and then may have had their effect all the same.
    Repeating one is safe: what was done is not done twice, and what meanwhile belongs to somebody
    else is refused with LeaseLost.
    """

    async def sync(self, shards: Sequence[ShardInfo]) -> None:
        """Make the missing leases of `shards`, which are all the stream has.

        Finished leases of shards that are gone are forgotten. A shard with the name but not the
        starting sequence number of its lease belongs to a new stream: the lease starts over if
        it was finished, and keeps its checkpoint if not.
        """

    async def list(self) -> list[Lease]:
        """All leases, without their pending state."""

    async def heartbeat(self) -> None:
        """Show that the worker is alive. One for all its leases."""

    async def take(
        self, shard_id: str, expected_counter: int, expected_owner_heartbeat: int
    ) -> Lease:
        """Make the worker the owner, whoever was it before; returns the lease as taken.

        Raises LeaseLost if the counter, or the heartbeat of another owner, has moved.
        """

    async def release(self, shard_id: str, counter: int) -> None:
        """Leave the lease to others. Raises LeaseLost if others have it already."""

    async def prepare(
        self, shard_id: str, counter: int, sequence_number: str, state: bytes
    ) -> None:
        """Keep `state` (up to 8 MiB) for the checkpoint about to be saved, durably.

        Whoever takes the lease finds it as `pending_state` until a `save` clears it.
        Raises LeaseLost, or ValidationError when it is too large.
        """

    async def save(self, shard_id: str, counter: int, checkpoint: str) -> None:
        """Set the checkpoint durably, clear what was prepared; SHARD_END finishes the lease.

        Raises LeaseLost, or InvalidArgument if the checkpoint would go back.
        """


class StreamLeases:
    """LeaseStore on a Headrace. The stream itself may be elsewhere."""

    def __init__(self, client: StreamClient, application: str, stream: str, worker: str) -> None:
        """Raises ValidationError for names that are not 1..128 of `A-Z a-z 0-9 _ . : / -`."""
        for what, name in (("application", application), ("worker", worker)):
            if not _NAME.fullmatch(name):
                raise ValidationError(
                    f"{what} name {name[:200]!r} is not 1 to 128 letters, digits or _ . : / -"
                )
        self._client = client
        self._worker = worker
        self._base: dict[str, Any] = {"ApplicationName": application, "StreamName": stream}

    async def sync(self, shards: Sequence[ShardInfo]) -> None:
        await self._call(
            "SyncLeases",
            Shards=[
                {
                    "ShardId": shard.shard_id,
                    "StartingSequenceNumber": shard.starting_sequence_number,
                    "ParentShardIds": list(shard.parents),
                }
                for shard in shards
            ],
        )

    async def list(self) -> list[Lease]:
        found: list[Lease] = []
        token: dict[str, str] = {}
        while True:
            answer = await self._call("ListLeases", **token)
            found += [_lease(members) for members in answer["Leases"]]
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}

    async def heartbeat(self) -> None:
        await self._call("Heartbeat", WorkerId=self._worker)

    async def take(
        self, shard_id: str, expected_counter: int, expected_owner_heartbeat: int
    ) -> Lease:
        answer = await self._call(
            "TakeLease",
            WorkerId=self._worker,
            ShardId=shard_id,
            ExpectedCounter=expected_counter,
            ExpectedOwnerHeartbeat=expected_owner_heartbeat,
        )
        return _lease(answer["Lease"])

    async def release(self, shard_id: str, counter: int) -> None:
        await self._call("ReleaseLease", ShardId=shard_id, Counter=counter)

    async def prepare(
        self, shard_id: str, counter: int, sequence_number: str, state: bytes
    ) -> None:
        await self._call(
            "PrepareCheckpoint",
            ShardId=shard_id,
            Counter=counter,
            SequenceNumber=sequence_number,
            State=state,
        )

    async def save(self, shard_id: str, counter: int, checkpoint: str) -> None:
        await self._call("SaveCheckpoint", ShardId=shard_id, Counter=counter, Checkpoint=checkpoint)

    async def _call(self, operation: str, **members: Any) -> dict[str, Any]:
        return await self._client.call(operation, self._base | members, extension=True)


def _lease(members: dict[str, Any]) -> Lease:
    return Lease(
        shard_id=members["ShardId"],
        owner=members.get("Owner"),
        counter=members["Counter"],
        heartbeat=members["Heartbeat"],
        checkpoint=members.get("Checkpoint"),
        pending_checkpoint=members.get("PendingCheckpoint"),
        pending_state=base64.b64decode(members.get("PendingState") or b""),
        parents=tuple(members.get("ParentShardIds") or ()),
        since_ms=members.get("SinceMs", 0),
        starting_sequence_number=members.get("StartingSequenceNumber"),
    )
