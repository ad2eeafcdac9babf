"""DescribeLimits, DescribeAccountSettings, UpdateAccountSettings."""

from __future__ import annotations

from typing import Any

from headrace.core.control.accounts import SetCommitment, commitment_of
from headrace.core.control.quotas import count_on_demand
from headrace.core.limits import DEFAULT_SHARD_QUOTA, MAX_STREAM_COUNT, ON_DEMAND_STREAM_QUOTA
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog


def has_commitment(catalog: Catalog, caller: Caller) -> bool:
    """Whether the caller's commitment to a minimum of throughput is in force."""
    commitment = commitment_of(catalog.state.accounts, caller.account, caller.region)
    return commitment is not None and commitment.is_in_force(catalog.clock.now_ms())


class AccountService:
    """What holds for an account in a region."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        shard_quota: int = DEFAULT_SHARD_QUOTA,
        is_limited: bool = False,
    ) -> None:
        """`is_limited`: the number of on-demand streams is."""
        self._catalog = catalog
        self._shard_quota = shard_quota
        self._on_demand_quota = ON_DEMAND_STREAM_QUOTA if is_limited else MAX_STREAM_COUNT

    async def describe_limits(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        streams = self._catalog.streams_of(caller)
        return {
            "ShardLimit": self._shard_quota,
            "OpenShardCount": sum(len(stream.open_shards) for stream in streams),
            "OnDemandStreamCount": count_on_demand(
                self._catalog.state.streams, caller.account, caller.region
            ),
            "OnDemandStreamCountLimit": self._on_demand_quota,
        }

    async def describe_account_settings(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        return {"MinimumThroughputBillingCommitment": self._describe(caller)}

    async def update_account_settings(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        wanted = request["MinimumThroughputBillingCommitment"]["Status"]
        await self._catalog.engine.control.submit(
            SetCommitment(
                account=caller.account,
                region=caller.region,
                is_enabled=wanted == "ENABLED",
                at_ms=self._catalog.clock.now_ms(),
            )
        )
        return {"MinimumThroughputBillingCommitment": self._describe(caller)}

    def _describe(self, caller: Caller) -> dict[str, Any]:
        commitment = commitment_of(self._catalog.state.accounts, caller.account, caller.region)
        if commitment is None:
            return {"Status": "DISABLED"}
        if not commitment.is_in_force(self._catalog.clock.now_ms()):
            return {
                "Status": "DISABLED",
                "StartedAt": commitment.started_ms,
                "EndedAt": commitment.ends_ms,
            }
        is_ending = commitment.ends_ms is not None
        return {
            "Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END" if is_ending else "ENABLED",
            "StartedAt": commitment.started_ms,
            "EarliestAllowedEndAt": commitment.earliest_end_ms,
        }
