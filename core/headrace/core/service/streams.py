"""CreateStream, DescribeStream, DescribeStreamSummary, ListStreams, DeleteStream."""

from __future__ import annotations

import contextlib
import secrets
from functools import partial
from typing import Any

from headrace.core.control.quotas import shard_quota_exceeded
from headrace.core.control.stream_state import ShardState, StreamState, not_active
from headrace.core.control.streams import (
    ActivateStream,
    CreateStream,
    StartDeletion,
)
from headrace.core.errors import (
    HeadraceError,
    InternalFailure,
    InvalidArgument,
    ResourceInUse,
)
from headrace.core.limits import (
    CHANGING_STREAM_QUOTA,
    DEFAULT_SHARD_QUOTA,
    ON_DEMAND_SHARDS,
    ON_DEMAND_STREAM_QUOTA,
)
from headrace.core.model.shards import shard_id, shard_number
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.modes import check_distribution, check_warm_throughput
from headrace.core.service.tags import check_tags
from headrace.core.service.tokens import issue_token, read_token
from headrace.core.service.transitions import Transitions
from headrace.core.service.updates import Updates

# model, DescribeStreamInput.Limit and ListStreamsInput.Limit: the default, and the most there is
_DESCRIBE_LIMIT = 100
_LIST_LIMIT = 100


class StreamService:
    """The life of streams.

    `delay_ms` is how long CREATING, UPDATING and DELETING last, for those who test their waiting;
    0 means that a stream is ACTIVE (gone) when the call returns. `is_limited`: no more streams, and
    no more changes of their settings, than AWS allows.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        delay_ms: int = 0,
        shard_quota: int = DEFAULT_SHARD_QUOTA,
        is_limited: bool = False,
    ) -> None:
        self._catalog = catalog
        self._clock = catalog.clock
        self._shard_quota = shard_quota
        self._on_demand_quota = ON_DEMAND_STREAM_QUOTA if is_limited else None
        self._changing_quota = CHANGING_STREAM_QUOTA if is_limited else None
        self.transitions = Transitions(catalog.clock, delay_ms)
        self.updates = Updates(catalog, self.transitions, is_limited=is_limited)
        self._leaving: set[str] = set()  # uids of streams whose removal is under way

    async def create_stream(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        count = request.get("ShardCount")
        unsaid = "PROVISIONED" if count is not None else "ON_DEMAND"
        mode = request.get("StreamModeDetails", {}).get("StreamMode", unsaid)
        warm_mibps = request.get("WarmThroughputMiBps")
        distribution = request.get("RecordDistributionStrategy", "USER_PARTITION_KEY")
        check_distribution(mode, distribution)
        check_tags(request.get("Tags", {}), caller.account, request["StreamName"])
        if warm_mibps is not None:
            check_warm_throughput(self._catalog, caller, mode, warm_mibps)
        if mode == "ON_DEMAND":
            if count is not None:
                raise InvalidArgument("ShardCount must not be set for a stream in ON_DEMAND mode.")
            count = max(ON_DEMAND_SHARDS, warm_mibps or 0)
        elif count is None:
            raise InvalidArgument("ShardCount must be set for a stream in PROVISIONED mode.")
        if count > self._shard_quota:  # before any range is computed for a billion shards
            used = sum(len(stream.open_shards) for stream in self._catalog.streams_of(caller))
            raise shard_quota_exceeded(
                caller.account, caller.region, used, self._shard_quota, count
            )
        stream = await self._catalog.engine.control.submit(
            CreateStream(
                account=caller.account,
                region=caller.region,
                name=request["StreamName"],
                uid=secrets.token_hex(8),
                at_ms=self._clock.now_ms(),
                mode=mode,
                shards=count,
                max_record_kib=request.get("MaxRecordSizeInKiB", 1024),
                tags=request.get("Tags", {}),
                shard_quota=self._shard_quota,
                distribution=distribution,
                warm_mibps=warm_mibps,
                on_demand_quota=self._on_demand_quota,
                changing_quota=self._changing_quota,
            )
        )
        try:
            await self._catalog.open(stream)
        except (HeadraceError, OSError):
            await self._undo(stream)  # a stream without a log would be in everyone's way
            raise
        await self.transitions.after_delay(lambda: self._activate(stream))
        return {}

    async def _undo(self, stream: StreamState) -> None:
        """Forget a stream that has no log; on a full disk as soon as there is room."""
        # nobody has read it: leases under its name are on somebody else's stream
        step = partial(self._catalog.remove, stream, with_leases=False)
        try:
            await self.transitions.now_or_later(step)
        except (HeadraceError, OSError):  # what is told is why there is no log
            self.transitions.eventually(step)

    async def resume(self) -> None:
        """At start: what a crash left CREATING or UPDATING becomes ACTIVE, DELETING goes."""
        for stream in list(self._catalog.state.streams.streams.values()):
            if stream.status == "DELETING":  # whatever else was pending
                await self.transitions.now_or_later(partial(self._catalog.remove, stream))
            elif stream.pending is not None:
                with contextlib.suppress(InternalFailure):  # a log that is damaged: not served
                    await self.transitions.now_or_later(partial(self.updates.finish, stream))
            elif stream.status == "CREATING":
                await self.transitions.now_or_later(partial(self._activate_served, stream))
            elif stream.status == "UPDATING":
                await self.transitions.now_or_later(partial(self._activate, stream))

    async def _activate_served(self, stream: StreamState) -> None:
        """Raises StorageFull while there is no room for its log: of one that is ACTIVE, a log
        that is not there has been lost."""
        with contextlib.suppress(InternalFailure):  # damaged: not served
            self._catalog.opened(stream)
        await self._activate(stream)

    async def _activate(self, stream: StreamState) -> None:
        await self._catalog.engine.control.submit(
            ActivateStream(
                account=stream.account, region=stream.region, name=stream.name, uid=stream.uid
            )
        )

    async def delete_stream(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find(caller, request.get("StreamName"), request.get("StreamARN"))
        if stream.status == "CREATING" and self._catalog.is_opening(stream):
            raise not_active(stream)
        if stream.consumers and not request.get("EnforceConsumerDeletion"):
            raise ResourceInUse(
                f"Stream {stream.name} under account {stream.account} has registered consumers. "
                "Deregister them first, or set EnforceConsumerDeletion."
            )
        if stream.uid not in self._leaving:
            self._leaving.add(stream.uid)
            try:
                await self._catalog.engine.control.submit(
                    StartDeletion(
                        account=stream.account,
                        region=stream.region,
                        name=stream.name,
                        uid=stream.uid,
                        changing_quota=self._changing_quota,
                    )
                )
                await self.transitions.after_delay(lambda: self._remove(stream))
            except BaseException:
                self._leaving.discard(stream.uid)  # so that asking again tries again
                raise
        return {}

    async def _remove(self, stream: StreamState) -> None:
        try:
            await self._catalog.remove(stream)
        finally:
            self._leaving.discard(stream.uid)

    async def close(self) -> None:
        """Give up waiting for state changes; `resume` takes them up at the next start."""
        await self.transitions.close()

    # -- describing ----------------------------------------------------------------------------

    async def describe_stream(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._catalog.find(caller, request.get("StreamName"), request.get("StreamARN"))
        shards = shards_after(visible_shards(stream), request.get("ExclusiveStartShardId"))
        limit = min(request.get("Limit", _DESCRIBE_LIMIT), _DESCRIBE_LIMIT)
        return {
            "StreamDescription": {
                **self._common(stream),
                "Shards": [describe_shard(shard) for shard in shards[:limit]],
                "HasMoreShards": len(shards) > limit,
            }
        }

    async def describe_stream_summary(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream = self._catalog.find(caller, request.get("StreamName"), request.get("StreamARN"))
        return {
            "StreamDescriptionSummary": {
                **self._common(stream),
                "OpenShardCount": sum(shard.is_open for shard in visible_shards(stream)),
                "ConsumerCount": len(stream.consumers),
                "MaxRecordSizeInKiB": stream.max_record_kib,
                **_on_demand_settings(stream),
            }
        }

    @staticmethod
    def _common(stream: StreamState) -> dict[str, Any]:
        return {
            "StreamName": stream.name,
            "StreamARN": stream.arn,
            "StreamStatus": stream.status,
            "StreamModeDetails": {"StreamMode": stream.mode},
            "RetentionPeriodHours": stream.retention_hours,
            "StreamCreationTimestamp": stream.created_ms,
            "EnhancedMonitoring": [{"ShardLevelMetrics": stream.metrics}],
            "EncryptionType": stream.encryption,
            "KeyId": stream.key_id,
        }

    async def list_streams(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        streams = self._catalog.streams_of(caller)
        start = request.get("ExclusiveStartStreamName")
        if (token := request.get("NextToken")) is not None:
            start = read_token(token, str, self._clock.now_ms())
        if start is not None:
            streams = [stream for stream in streams if stream.name > start]
        limit = min(request.get("Limit", _LIST_LIMIT), _LIST_LIMIT)
        page = streams[:limit]
        answer: dict[str, Any] = {
            "StreamNames": [stream.name for stream in page],
            "StreamSummaries": [
                {
                    "StreamName": stream.name,
                    "StreamARN": stream.arn,
                    "StreamStatus": stream.status,
                    "StreamModeDetails": {"StreamMode": stream.mode},
                    "StreamCreationTimestamp": stream.created_ms,
                }
                for stream in page
            ],
            "HasMoreStreams": len(streams) > limit,
        }
        if len(streams) > limit:
            answer["NextToken"] = issue_token(page[-1].name, self._clock.now_ms())
        return answer


def _on_demand_settings(stream: StreamState) -> dict[str, Any]:
    """What only streams in ON_DEMAND mode show; warm throughput, once it was asked for."""
    if stream.mode != "ON_DEMAND":
        return {}
    settings: dict[str, Any] = {"RecordDistributionStrategy": stream.distribution}
    pending = None if stream.pending is None else stream.pending.warm_mibps
    if stream.warm_mibps is not None or pending is not None:
        current = stream.warm_mibps or 0
        settings["WarmThroughput"] = {
            "TargetMiBps": current if pending is None else pending,
            "CurrentMiBps": current,
        }
    return settings


def visible_shards(stream: StreamState) -> list[ShardState]:
    """The shards that are shown: none while the stream is CREATING or DELETING, as on AWS."""
    return [] if stream.status in ("CREATING", "DELETING") else stream.shards


def shards_after(shards: list[ShardState], start: str | None) -> list[ShardState]:
    """Those after ExclusiveStartShardId, which need not exist; None is before the first."""
    if start is None:
        return shards
    number = shard_number(start)
    if number is None:
        return [shard for shard in shards if shard.id > start]
    return [shard for shard in shards if shard.number > number]


def describe_shard(shard: ShardState) -> dict[str, Any]:
    """A shard as DescribeStream and ListShards answer it."""
    answer: dict[str, Any] = {
        "ShardId": shard.id,
        "HashKeyRange": {"StartingHashKey": shard.start, "EndingHashKey": shard.end},
        "SequenceNumberRange": {"StartingSequenceNumber": shard.starting_sequence_number},
    }
    if shard.parent is not None:
        answer["ParentShardId"] = shard_id(shard.parent)
    if shard.adjacent_parent is not None:
        answer["AdjacentParentShardId"] = shard_id(shard.adjacent_parent)
    if not shard.is_open:
        answer["SequenceNumberRange"]["EndingSequenceNumber"] = shard.ending_sequence_number
    return answer
