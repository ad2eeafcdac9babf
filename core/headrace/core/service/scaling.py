"""UpdateShardCount: so many shards of equal size."""

from __future__ import annotations

from typing import Any

from headrace.core.control.stream_state import PendingUpdate, StreamState
from headrace.core.control.streams import check_quota
from headrace.core.errors import LimitExceeded, ValidationError
from headrace.core.limits import DEFAULT_SHARD_QUOTA, MAX_SCALED_SHARDS
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.updates import Updates

_MOST_A_DAY = 10  # UpdateShardCount documentation


class ScalingService:
    """Uniform scaling, the only kind there is: the model refuses any other ScalingType."""

    def __init__(
        self, catalog: Catalog, updates: Updates, *, shard_quota: int = DEFAULT_SHARD_QUOTA
    ) -> None:
        self._catalog = catalog
        self._updates = updates
        self._shard_quota = shard_quota

    async def update_shard_count(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        target: int = request["TargetShardCount"]
        refuse_on_demand(stream)
        current = len(stream.open_shards)
        self._check(stream, current, target)
        await self._updates.run(stream, PendingUpdate(shard_count=target))
        return {
            "StreamName": stream.name,
            "StreamARN": stream.arn,
            "CurrentShardCount": current,
            "TargetShardCount": target,
        }

    def _check(self, stream: StreamState, current: int, target: int) -> None:
        check_quota(
            self._catalog.state.streams,
            stream.account,
            stream.region,
            target - current,
            self._shard_quota,
        )
        if target > MAX_SCALED_SHARDS:
            raise LimitExceeded(
                f"UpdateShardCount scales to {MAX_SCALED_SHARDS} shards at most. Requested: "
                f"{target}."
            )
        if not self._updates.is_limited:
            return
        self._updates.limit_changes(stream, "shard_count", _MOST_A_DAY, "UpdateShardCount")
        if target > 2 * current or 2 * target < current:
            raise LimitExceeded(
                f"UpdateShardCount cannot scale stream {stream.name} under account "
                f"{stream.account} from {current} to {target} shards: at most double and at least "
                "half the current shard count."
            )


def refuse_on_demand(stream: StreamState) -> None:
    """Raises ValidationError: the shards of an on-demand stream are the service's own affair."""
    if stream.mode == "ON_DEMAND":
        raise ValidationError(
            f"Request is invalid. Stream {stream.name} under account {stream.account} is in "
            "On-Demand mode."
        )
