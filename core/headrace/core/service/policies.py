"""PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy.

Policies are kept and given back. Who may do what is decided by access keys alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.core.control.settings import SetPolicy
from headrace.core.errors import InvalidArgument
from headrace.core.service.addressing import address, find_resource, require_active
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog

_NEVER_SET = "{}"


class PolicyService:
    """The resource policies of streams and consumers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def put_resource_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        policy: str = request["Policy"]
        try:
            document = msgspec.json.decode(policy)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise InvalidArgument("The Policy must be a JSON object.")
        return await self._set(caller, request["ResourceARN"], policy)

    async def delete_resource_policy(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        return await self._set(caller, request["ResourceARN"], None)

    async def _set(self, caller: Caller, arn: str, policy: str | None) -> dict[str, Any]:
        resource = find_resource(self._catalog, caller, arn)
        require_active(resource)
        await self._catalog.engine.control.submit(
            SetPolicy(**address(resource.stream), policy=policy, consumer=resource.consumer_name)
        )
        return {}

    async def get_resource_policy(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream, consumer = find_resource(self._catalog, caller, request["ResourceARN"])
        policy = stream.policy if consumer is None else consumer.policy
        return {"Policy": _NEVER_SET if policy is None else policy}
