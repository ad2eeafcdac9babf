"""StartStreamEncryption, StopStreamEncryption.

Flags only: they show in descriptions, answers and records as AWS shows them. No key is looked up,
and nothing is encrypted on disk; that is for the file system below.
"""

from __future__ import annotations

from typing import Any

from headrace.core.control.stream_state import PendingUpdate
from headrace.core.errors import InvalidArgument
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.updates import Updates

_MOST_A_DAY = 25  # of each, says their documentation


class EncryptionService:
    """The encryption flags of streams."""

    def __init__(self, catalog: Catalog, updates: Updates) -> None:
        self._catalog = catalog
        self._updates = updates

    async def start_stream_encryption(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        return await self._update(caller, request, "KMS", "StartStreamEncryption")

    async def stop_stream_encryption(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        return await self._update(caller, request, "NONE", "StopStreamEncryption")

    async def _update(
        self, caller: Caller, request: dict[str, Any], encryption: str, operation: str
    ) -> dict[str, Any]:
        if request["EncryptionType"] != "KMS":
            raise InvalidArgument(f"{operation} takes KMS as its EncryptionType, nothing else.")
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        pending = PendingUpdate(encryption=encryption, key_id=request["KeyId"])
        self._updates.limit_changes(stream, pending.kind, _MOST_A_DAY, operation)
        await self._updates.run(stream, pending)
        return {}
