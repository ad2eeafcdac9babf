"""How a stream takes records: UpdateStreamMode, UpdateStreamWarmThroughput,
UpdateStreamRecordDistributionStrategy, UpdateMaxRecordSize.
"""

from __future__ import annotations

from typing import Any

from headrace.core.control.settings import SetDistribution, SetMaxRecordSize
from headrace.core.control.stream_state import PendingUpdate, StreamState
from headrace.core.control.streams import check_quota
from headrace.core.errors import InvalidArgument, LimitExceeded, ValidationError
from headrace.core.limits import DEFAULT_SHARD_QUOTA, MAX_WARM_MIBPS
from headrace.core.service.account import has_commitment
from headrace.core.service.addressing import address
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.updates import Updates

_MOST_SWITCHES_A_DAY = 2  # UpdateStreamMode, developer guide


class ModeService:
    """Capacity mode and what depends on it.

    Warm throughput is had by shards: one for each MiB/s, of which a shard takes just that.
    """

    def __init__(
        self, catalog: Catalog, updates: Updates, *, shard_quota: int = DEFAULT_SHARD_QUOTA
    ) -> None:
        self._catalog = catalog
        self._updates = updates
        self._shard_quota = shard_quota

    async def update_stream_mode(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find_active(caller, None, request["StreamARN"])
        mode = request["StreamModeDetails"]["StreamMode"]
        warm_mibps = request.get("WarmThroughputMiBps")
        if warm_mibps is not None:
            check_warm_throughput(self._catalog, caller, mode, warm_mibps)
        if mode == "PROVISIONED" and stream.is_spread:
            raise ValidationError(
                f"Request is invalid. Stream {stream.name} under account {stream.account} has the "
                "record distribution strategy AUTO, which provisioned streams do not support. Set "
                "it to USER_PARTITION_KEY first."
            )
        if mode != stream.mode:
            self._updates.limit_changes(stream, "mode", _MOST_SWITCHES_A_DAY, "UpdateStreamMode")
        await self._update(stream, mode, warm_mibps)
        return {}

    async def update_stream_warm_throughput(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        warm_mibps: int = request["WarmThroughputMiBps"]
        check_warm_throughput(self._catalog, caller, stream.mode, warm_mibps)
        before = stream.warm_mibps or 0
        await self._update(stream, None, warm_mibps)
        is_done = stream.status == "ACTIVE"
        return {
            "StreamName": stream.name,
            "StreamARN": stream.arn,
            "WarmThroughput": {
                "TargetMiBps": warm_mibps,
                "CurrentMiBps": warm_mibps if is_done else before,
            },
        }

    async def _update(self, stream: StreamState, mode: str | None, warm_mibps: int | None) -> None:
        """Shards are added for more throughput; giving some back is left to the scaling."""
        used = len(stream.open_shards)
        shard_count = None
        if warm_mibps is not None and warm_mibps > used:
            shard_count = warm_mibps
            check_quota(
                self._catalog.state.streams,
                stream.account,
                stream.region,
                shard_count - used,
                self._shard_quota,
            )
        pending = PendingUpdate(mode=mode, warm_mibps=warm_mibps, shard_count=shard_count)
        await self._updates.run(stream, pending)

    async def update_stream_record_distribution_strategy(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream = self._catalog.find_active(caller, None, request["StreamARN"])
        distribution = request["RecordDistributionStrategy"]
        check_distribution(stream.mode, distribution)
        await self._catalog.engine.control.submit(
            SetDistribution(**address(stream), distribution=distribution)
        )
        return {}

    async def update_max_record_size(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream = self._catalog.find_active(caller, None, request.get("StreamARN"))
        await self._catalog.engine.control.submit(
            SetMaxRecordSize(**address(stream), max_record_kib=request["MaxRecordSizeInKiB"])
        )
        return {}


def check_distribution(mode: str, distribution: str) -> None:
    """Raises InvalidArgument for AUTO in PROVISIONED mode."""
    if distribution == "AUTO" and mode != "ON_DEMAND":
        raise InvalidArgument(
            "The record distribution strategy AUTO is only supported for streams in ON_DEMAND mode."
        )


def check_warm_throughput(catalog: Catalog, caller: Caller, mode: str, warm_mibps: int) -> None:
    """Raises InvalidArgument or LimitExceeded where warm throughput cannot be had."""
    if mode != "ON_DEMAND":
        raise InvalidArgument(
            "WarmThroughputMiBps is only supported for streams in ON_DEMAND mode."
        )
    if not has_commitment(catalog, caller):
        raise InvalidArgument(
            "WarmThroughputMiBps is only supported in accounts that have "
            "MinimumThroughputBillingCommitment enabled. UpdateAccountSettings enables it."
        )
    if warm_mibps > MAX_WARM_MIBPS:
        raise LimitExceeded(
            f"Warm throughput is {MAX_WARM_MIBPS} MiB/s at most. Requested: {warm_mibps}."
        )
