"""IncreaseStreamRetentionPeriod, DecreaseStreamRetentionPeriod."""

from __future__ import annotations

from typing import Any

from headrace.core.control.stream_state import StreamState
from headrace.core.control.streams import SetRetention
from headrace.core.errors import InvalidArgument
from headrace.core.limits import MAX_RETENTION_HOURS, MIN_RETENTION_HOURS
from headrace.core.service.addressing import address
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog


class RetentionService:
    """How long records are kept: whole hours, from a day to a year."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def increase_stream_retention_period(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, hours = self._retention_request(caller, request)
        if hours < stream.retention_hours:
            raise InvalidArgument(
                f"Requested retention period ({hours} hours) for stream {stream.name} can not be "
                f"shorter than existing retention period ({stream.retention_hours} hours). Use "
                "DecreaseRetentionPeriod API."
            )
        return await self._set_retention(stream, hours)

    async def decrease_stream_retention_period(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, hours = self._retention_request(caller, request)
        if hours > stream.retention_hours:
            raise InvalidArgument(
                f"Requested retention period ({hours} hours) for stream {stream.name} can not be "
                f"longer than existing retention period ({stream.retention_hours} hours). Use "
                "IncreaseRetentionPeriod API."
            )
        return await self._set_retention(stream, hours)

    def _retention_request(
        self, caller: Caller, request: dict[str, Any]
    ) -> tuple[StreamState, int]:
        hours: int = request["RetentionPeriodHours"]
        if hours < MIN_RETENTION_HOURS:
            raise InvalidArgument(
                f"Minimum allowed retention period is {MIN_RETENTION_HOURS} hours. Requested "
                f"retention period ({hours} hours) is too short."
            )
        if hours > MAX_RETENTION_HOURS:
            raise InvalidArgument(
                f"Maximum allowed retention period is {MAX_RETENTION_HOURS} hours. Requested "
                f"retention period ({hours} hours) is too long."
            )
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        return stream, hours

    async def _set_retention(self, stream: StreamState, hours: int) -> dict[str, Any]:
        # what has expired by the old retention stays expired under a longer one
        await self._catalog.engine.control.submit(
            SetRetention(
                **address(stream), hours=hours, horizon_ms=self._catalog.horizon_ms(stream)
            )
        )
        return {}
