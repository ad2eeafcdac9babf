"""How often an operation may be called, where that is limited as at AWS (`limits: aws`).

The rates are those of the developer guide's table of control plane limits, and where it has none
those of the operation's own documentation. (Where the two differ in whether a rate is an account's
or a stream's, as for SplitShard, the guide is the newer.) An operation that is not in the table has
no documented rate and none here. PutRecord(s), GetRecords and GetShardIterator are limited by
shard, see `capacity`.

Unknown about AWS: how much may come at once. Here it is what a second allows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from headrace.core.clock import Clock
from headrace.core.errors import LimitExceeded
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Tank


class CallRate(NamedTuple):
    """Calls a second, of an account in a region, or of each of its streams."""

    per_s: int
    is_of_stream: bool = False


RATES: dict[str, CallRate] = {
    "AddTagsToStream": CallRate(5),
    "CreateStream": CallRate(5),
    "DecreaseStreamRetentionPeriod": CallRate(5, is_of_stream=True),
    "DeleteResourcePolicy": CallRate(5),
    "DeleteStream": CallRate(5),
    "DeregisterStreamConsumer": CallRate(5, is_of_stream=True),
    "DescribeAccountSettings": CallRate(5),
    "DescribeLimits": CallRate(1),
    "DescribeStream": CallRate(10),
    "DescribeStreamConsumer": CallRate(20, is_of_stream=True),
    "DescribeStreamSummary": CallRate(20),
    "DisableEnhancedMonitoring": CallRate(5, is_of_stream=True),
    "EnableEnhancedMonitoring": CallRate(5, is_of_stream=True),
    "GetResourcePolicy": CallRate(5),
    "IncreaseStreamRetentionPeriod": CallRate(5, is_of_stream=True),
    "ListShards": CallRate(1000, is_of_stream=True),
    "ListStreamConsumers": CallRate(5, is_of_stream=True),
    "ListStreams": CallRate(5),
    "ListTagsForStream": CallRate(5, is_of_stream=True),
    "MergeShards": CallRate(5, is_of_stream=True),
    "PutResourcePolicy": CallRate(5),
    "RegisterStreamConsumer": CallRate(5, is_of_stream=True),
    "RemoveTagsFromStream": CallRate(5, is_of_stream=True),
    "SplitShard": CallRate(5, is_of_stream=True),
    "UpdateAccountSettings": CallRate(5),
    "UpdateShardCount": CallRate(10),
    "UpdateStreamWarmThroughput": CallRate(5),
}

_MOST_TANKS = 10_000  # then those that are full again are dropped: they are as good as new

_Key = tuple[str, str, str, str]  # operation, account, region, stream or nothing


class CallRates:
    """Counts calls. Asks a monotonic clock, so stepping wall time changes nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tanks: dict[_Key, Tank] = {}

    def admit(self, operation: str, caller: Caller, request: dict[str, Any]) -> None:
        """Count a call, whatever comes of it. Raises LimitExceeded for one too many."""
        rate = RATES.get(operation)
        if rate is None:
            return
        name = stream_named(request)
        key = (operation, caller.account, caller.region, name if rate.is_of_stream else "")
        now_ms = self._clock.monotonic_ms()
        tank = self._tanks.get(key)
        if tank is None:
            if len(self._tanks) >= _MOST_TANKS:
                self._drop_full(now_ms)
            tank = self._tanks[key] = Tank(rate.per_s, rate.per_s, now_ms)
        if not tank.has(1, now_ms):
            whose = f"stream {name} under account" if rate.is_of_stream and name else "account"
            raise LimitExceeded(f"Rate exceeded for {whose} {caller.account}.")
        tank.take(1)

    def _drop_full(self, now_ms: int) -> None:
        full = [k for k, tank in self._tanks.items() if tank.has(RATES[k[0]].per_s, now_ms)]
        for key in full:
            del self._tanks[key]


def stream_named(request: dict[str, Any]) -> str:
    """The name of the stream a request is about; empty when it says none.

    The later pages of ListShards name theirs in a token only: they share what an account has.
    """
    name: str | None = request.get("StreamName")
    if name is not None:
        return name
    for member in ("StreamARN", "ConsumerARN", "ResourceARN"):
        arn: str | None = request.get(member)
        if arn is not None:
            return arn.partition(":stream/")[2].partition("/")[0]
    return ""
