"""ListShards, SplitShard, MergeShards."""

from __future__ import annotations

from typing import Any, NamedTuple, NotRequired, TypedDict

from headrace.core.control.stream_state import (
    PendingUpdate,
    ShardState,
    StreamState,
    not_active,
)
from headrace.core.control.streams import MergeShards, SplitShard, check_quota
from headrace.core.errors import InvalidArgument, ResourceNotFound
from headrace.core.limits import DEFAULT_SHARD_QUOTA
from headrace.core.model.shards import shard_number
from headrace.core.service.addressing import address
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog, check_creation
from headrace.core.service.resharding import halves, reshard
from headrace.core.service.scaling import refuse_on_demand
from headrace.core.service.streams import describe_shard, shards_after
from headrace.core.service.tokens import issue_token, of_another_stream, read_token
from headrace.core.service.updates import Updates

_LIST_LIMIT = 1000  # ListShards documentation: MaxResults unless given, and at most


class _Filter(TypedDict):
    """A ShardFilter as the model's validator gives it; times in Unix ms."""

    Type: str
    ShardId: NotRequired[str]
    Timestamp: NotRequired[int]


class _Place(NamedTuple):
    """Where ListShards goes on: after a shard of a stream."""

    stream: str
    uid: str
    after: str
    shard_filter: _Filter | None


class ShardService:
    """The shards of a stream."""

    def __init__(self, catalog: Catalog, updates: Updates) -> None:
        self._catalog = catalog
        self._updates = updates
        self._clock = catalog.clock

    async def list_shards(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        token, name = request.get("NextToken"), request.get("StreamName")
        arn = request.get("StreamARN")
        created_ms = request.get("StreamCreationTimestamp")
        start = request.get("ExclusiveStartShardId")
        shard_filter = request.get("ShardFilter")
        if token is None and name is None and arn is None:
            raise InvalidArgument("Either NextToken or StreamName should be provided.")
        if token is not None:
            if name is not None or arn is not None:
                raise InvalidArgument("NextToken and StreamName cannot be provided together.")
            if created_ms is not None:
                raise InvalidArgument(
                    "NextToken and StreamCreationTimestamp cannot be provided together."
                )
            if start is not None:
                raise InvalidArgument(
                    "NextToken and ExclusiveStartShardId cannot be provided together."
                )
            stream, start, shard_filter = self._read_token(caller, token)
        else:
            stream = self._catalog.find(caller, name, arn)
        check_creation(stream, created_ms)
        if stream.status in ("CREATING", "DELETING"):  # clients wait on this; "none" is an answer
            raise not_active(stream)
        shards = shards_after(self._filtered(stream, shard_filter), start)
        limit = min(request.get("MaxResults", _LIST_LIMIT), _LIST_LIMIT)
        page = shards[:limit]
        answer: dict[str, Any] = {"Shards": [describe_shard(shard) for shard in page]}
        if len(shards) > limit:
            place = _Place(stream.name, stream.uid, page[-1].id, shard_filter)
            answer["NextToken"] = issue_token(place, self._clock.now_ms())
        return answer

    def _read_token(self, caller: Caller, token: str) -> tuple[StreamState, str, _Filter | None]:
        name, uid, after, shard_filter = read_token(token, _Place, self._clock.now_ms())
        stream = self._catalog.find(caller, name, None)
        if stream.uid != uid:
            raise of_another_stream()
        return stream, after, shard_filter

    def _filtered(self, stream: StreamState, shard_filter: _Filter | None) -> list[ShardState]:
        """The shards a ShardFilter asks for; all of them without one."""
        if shard_filter is None:
            return stream.shards
        # before the stream there was nothing to trim: KCL asks for the shards AT_TRIM_HORIZON first
        horizon_ms = max(self._catalog.horizon_ms(stream), stream.created_ms)
        shards = stream.shards
        match shard_filter["Type"]:
            case "AFTER_SHARD_ID":
                after = shard_filter.get("ShardId")
                if after is None:
                    raise InvalidArgument("ShardFilter AFTER_SHARD_ID must have a ShardId.")
                return shards_after(shards, after)
            case "AT_LATEST":
                return [s for s in shards if s.is_open]
            case "AT_TRIM_HORIZON":
                return [s for s in shards if _open_at(s, horizon_ms)]
            case "AT_TIMESTAMP" | "FROM_TIMESTAMP" as kind:
                at_ms = shard_filter.get("Timestamp")
                if at_ms is None:
                    raise InvalidArgument(f"ShardFilter {kind} must have a Timestamp.")
                at_ms = max(at_ms, horizon_ms)
                if kind == "AT_TIMESTAMP":
                    return [s for s in shards if _open_at(s, at_ms)]
                return [s for s in shards if s.is_open or _closed_ms(s) >= at_ms]
            case _:  # FROM_TRIM_HORIZON
                return [s for s in shards if s.is_open or _closed_ms(s) >= horizon_ms]

    # -- resharding ----------------------------------------------------------------------------

    async def split_shard(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        number = self._number(stream, request["ShardToSplit"])
        refuse_on_demand(stream)
        at = request["NewStartingHashKey"]
        if self._updates.is_delayed:
            state = self._catalog.state.streams
            check_quota(state, stream.account, stream.region, 1, DEFAULT_SHARD_QUOTA)
            await self._updates.run(stream, PendingUpdate(split=(number, at)))
            return {}
        command = SplitShard(**address(stream), shard=number, at=at, at_ms=self._clock.now_ms())
        await reshard(
            self._catalog,
            stream,
            lambda: {number},
            lambda: halves(stream, number, int(at)),
            command,
        )
        return {}

    async def merge_shards(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find_active(
            caller, request.get("StreamName"), request.get("StreamARN")
        )
        shard = self._number(stream, request["ShardToMerge"])
        adjacent = self._number(stream, request["AdjacentShardToMerge"])
        refuse_on_demand(stream)
        if self._updates.is_delayed:
            await self._updates.run(stream, PendingUpdate(merge=(shard, adjacent)))
            return {}
        command = MergeShards(
            **address(stream), shard=shard, adjacent=adjacent, at_ms=self._clock.now_ms()
        )
        # a merged shard needs no range of its own: its parents' are there
        await reshard(self._catalog, stream, lambda: {shard, adjacent}, list, command)
        return {}

    @staticmethod
    def _number(stream: StreamState, text: str) -> int:
        number = shard_number(text)
        if number is None:
            raise ResourceNotFound(
                f"Could not find shard {text} in stream {stream.name} under account "
                f"{stream.account}."
            )
        return number


def _closed_ms(shard: ShardState) -> int:
    assert shard.closed_s is not None
    return shard.closed_s * 1000 + 999


def _open_at(shard: ShardState, at_ms: int) -> bool:
    return shard.created_s * 1000 <= at_ms and (shard.is_open or _closed_ms(shard) > at_ms)
