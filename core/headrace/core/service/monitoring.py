"""EnableEnhancedMonitoring, DisableEnhancedMonitoring: which shard-level metrics are wanted."""

from __future__ import annotations

from typing import Any

from headrace.core.control.settings import SetMetrics
from headrace.core.control.stream_state import StreamState
from headrace.core.service.addressing import address
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog

SHARD_LEVEL_METRICS = (
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
)


class MonitoringService:
    """The shard-level metrics of streams."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def enable_enhanced_monitoring(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, named = self._read(caller, request)
        return await self._set(stream, named | set(stream.metrics))

    async def disable_enhanced_monitoring(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, named = self._read(caller, request)
        return await self._set(stream, set(stream.metrics) - named)

    def _read(self, caller: Caller, request: dict[str, Any]) -> tuple[StreamState, set[str]]:
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        named = set(request["ShardLevelMetrics"])
        return stream, set(SHARD_LEVEL_METRICS) if "ALL" in named else named

    async def _set(self, stream: StreamState, wanted: set[str]) -> dict[str, Any]:
        before = list(stream.metrics)
        after = [metric for metric in SHARD_LEVEL_METRICS if metric in wanted]
        await self._catalog.engine.control.submit(SetMetrics(**address(stream), metrics=after))
        return {
            "StreamName": stream.name,
            "StreamARN": stream.arn,
            "CurrentShardLevelMetrics": before,
            "DesiredShardLevelMetrics": after,
        }
