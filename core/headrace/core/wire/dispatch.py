"""From a target and a body to an answer: which operation, its checks in order, its encoding."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from headrace.core.errors import (
    CorruptSegment,
    HeadraceError,
    InternalFailure,
    Serialization,
    ServiceError,
    ServiceUnavailable,
    StorageFull,
    UnknownOperation,
    ValidationError,
)
from headrace.core.model.records import (
    PRODUCER_EPOCH_HEADER,
    PRODUCER_HEADER,
    PRODUCER_SEQUENCES_HEADER,
    decode_sequences,
)
from headrace.core.pieces import Pieces
from headrace.core.service.account import AccountService
from headrace.core.service.call_rates import CallRates
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Capacity
from headrace.core.service.catalog import Catalog
from headrace.core.service.consumers import ConsumerService
from headrace.core.service.dry_run import refuse_dry_run
from headrace.core.service.encryption import EncryptionService
from headrace.core.service.leases import OPERATIONS as LEASE_OPERATIONS
from headrace.core.service.leases import LeaseService
from headrace.core.service.modes import ModeService
from headrace.core.service.monitoring import MonitoringService
from headrace.core.service.policies import PolicyService
from headrace.core.service.puts import PutService, Stamp
from headrace.core.service.reads import ReadService
from headrace.core.service.retention import RetentionService
from headrace.core.service.scaling import ScalingService
from headrace.core.service.shards import ShardService
from headrace.core.service.streams import StreamService
from headrace.core.service.subscriptions import SubscriptionService
from headrace.core.service.tags import TagService
from headrace.core.service.usage import Usage
from headrace.core.service.usage_report import DescribeUsageRequest, UsageService
from headrace.core.wire import codec, event_stream, hot, validation

log = logging.getLogger("headrace.core")

KINESIS_TARGET = "Kinesis_20131202."
EXTENSION_TARGET = "Headrace_20261122."
RECORDS_EXPIRED_HEADER = (b"x-headrace-records-expired", b"true")

_PRODUCER = PRODUCER_HEADER.encode()
_EPOCH = PRODUCER_EPOCH_HEADER.encode()
_SEQUENCES = PRODUCER_SEQUENCES_HEADER.encode()

_Request = TypeVar("_Request", bound=msgspec.Struct)
Operation = Callable[[Caller, dict[str, Any]], Awaitable[dict[str, Any]]]


class Answer(NamedTuple):
    """What goes back: status, headers beyond the usual ones, body.

    A body that is sent bit by bit is an event stream.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | Pieces | AsyncGenerator[bytes, None]


class Dispatcher:
    """All operations of one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        streams: StreamService,
        usage: Usage,
        metered: UsageService,
        capacity: Capacity | None = None,
        rates: CallRates | None = None,
    ) -> None:
        """Without `capacity` and `rates` the hardware is the limit."""
        self._rates = rates
        is_limited = capacity is not None
        self._puts = PutService(catalog, usage, capacity)
        self._reads = reads = ReadService(catalog, usage, capacity)
        shards = ShardService(catalog, streams.updates)
        self._subscriptions = SubscriptionService(catalog, reads, usage, is_limited=is_limited)
        self._leases = LeaseService(
            catalog.engine.control.submit, lambda: catalog.state.leases, clock=catalog.clock
        )
        self._metered = metered

        async def get_shard_iterator(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
            answer = await reads.get_shard_iterator(caller, request)
            refuse_dry_run(bool(request.get("DryRun")))
            return answer

        tags = TagService(catalog)
        consumers = ConsumerService(catalog, streams.transitions)
        modes = ModeService(catalog, streams.updates)
        retention = RetentionService(catalog)
        scaling = ScalingService(catalog, streams.updates)
        encryption = EncryptionService(catalog, streams.updates)
        policies = PolicyService(catalog)
        monitoring = MonitoringService(catalog)
        account = AccountService(catalog, is_limited=is_limited)
        self._cold: dict[str, Operation] = {
            "AddTagsToStream": tags.add_tags_to_stream,
            "CreateStream": streams.create_stream,
            "DecreaseStreamRetentionPeriod": retention.decrease_stream_retention_period,
            "DeleteStream": streams.delete_stream,
            "DeleteResourcePolicy": policies.delete_resource_policy,
            "DeregisterStreamConsumer": consumers.deregister_stream_consumer,
            "DescribeAccountSettings": account.describe_account_settings,
            "DescribeLimits": account.describe_limits,
            "DescribeStream": streams.describe_stream,
            "DescribeStreamConsumer": consumers.describe_stream_consumer,
            "DescribeStreamSummary": streams.describe_stream_summary,
            "DisableEnhancedMonitoring": monitoring.disable_enhanced_monitoring,
            "EnableEnhancedMonitoring": monitoring.enable_enhanced_monitoring,
            "GetResourcePolicy": policies.get_resource_policy,
            "GetShardIterator": get_shard_iterator,
            "IncreaseStreamRetentionPeriod": retention.increase_stream_retention_period,
            "ListShards": shards.list_shards,
            "ListStreamConsumers": consumers.list_stream_consumers,
            "ListStreams": streams.list_streams,
            "ListTagsForResource": tags.list_tags_for_resource,
            "ListTagsForStream": tags.list_tags_for_stream,
            "MergeShards": shards.merge_shards,
            "PutResourcePolicy": policies.put_resource_policy,
            "RegisterStreamConsumer": consumers.register_stream_consumer,
            "RemoveTagsFromStream": tags.remove_tags_from_stream,
            "SplitShard": shards.split_shard,
            "StartStreamEncryption": encryption.start_stream_encryption,
            "StopStreamEncryption": encryption.stop_stream_encryption,
            "TagResource": tags.tag_resource,
            "UntagResource": tags.untag_resource,
            "UpdateAccountSettings": account.update_account_settings,
            "UpdateMaxRecordSize": modes.update_max_record_size,
            "UpdateShardCount": scaling.update_shard_count,
            "UpdateStreamMode": modes.update_stream_mode,
            "UpdateStreamRecordDistributionStrategy": (
                modes.update_stream_record_distribution_strategy
            ),
            "UpdateStreamWarmThroughput": modes.update_stream_warm_throughput,
        }
        self._hot = {
            "PutRecords": self._put_records,
            "PutRecord": self._put_record,
            "GetRecords": self._get_records,
            "SubscribeToShard": self._subscribe_to_shard,
        }

    def close(self) -> None:
        """End what would go on for minutes: the server stops."""
        self._subscriptions.close()

    @property
    def operations(self) -> frozenset[str]:
        """The Kinesis operations that are answered."""
        return frozenset(self._cold) | frozenset(self._hot)

    async def dispatch(
        self,
        caller: Caller,
        target: str,
        content_type: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
    ) -> Answer:
        """Answer one authenticated request. Never raises: an error is an answer too.

        `content_type` is codec.JSON or codec.CBOR; `headers` have lower-case names.
        """
        try:
            if target.startswith(KINESIS_TARGET):
                name = target[len(KINESIS_TARGET) :]
                run_hot = self._hot.get(name)
                if run_hot is not None:
                    return await run_hot(caller, content_type, headers, body)
                run_cold = self._cold.get(name)
                if run_cold is None:
                    raise UnknownOperation("")
                request = _validate(name, codec.decode(body, content_type))
                if self._rates is not None:
                    self._rates.admit(name, caller, request)
                answer = await run_cold(caller, request)
                return Answer(200, [], codec.encode_response(name, answer, content_type))
            if target.startswith(EXTENSION_TARGET) and content_type == codec.JSON:
                return await self._extension(caller, target[len(EXTENSION_TARGET) :], body)
            raise UnknownOperation("")
        except HeadraceError as error:
            return Answer(*codec.encode_error(_on_the_wire(error), content_type))
        except Exception:
            log.exception("an unexpected error while answering %s", target)
            return Answer(*codec.encode_error(InternalFailure("Internal failure."), content_type))

    async def _put_records(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        request = hot.decode_put_records(
            body,
            content_type == codec.JSON,
            lambda: _validate("PutRecords", codec.decode(body, content_type)),
        )
        stamp = _stamp(headers) if _PRODUCER in headers else None
        answer = await self._puts.put(
            caller, request.name, request.arn, request.columns, stamp, is_dry=request.dry_run
        )
        return Answer(200, [], hot.render_put_records(answer, content_type))

    async def _put_record(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        request = hot.decode_put_record(
            body,
            content_type == codec.JSON,
            lambda: _validate("PutRecord", codec.decode(body, content_type)),
        )
        stamp = _stamp(headers) if _PRODUCER in headers else None
        answer = await self._puts.put(
            caller,
            request.name,
            request.arn,
            request.columns,
            stamp,
            ordering=request.ordering,
            is_dry=request.dry_run,
        )
        return Answer(200, [], hot.render_put_record(answer, content_type))

    async def _get_records(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        token, limit, is_dry = hot.decode_get_records(
            body,
            content_type == codec.JSON,
            lambda: _validate("GetRecords", codec.decode(body, content_type)),
        )
        answer = await self._reads.get(caller, token, limit, is_dry=is_dry)
        extra = [RECORDS_EXPIRED_HEADER] if answer.slice.missed else []
        return Answer(200, extra, hot.render_get_records(answer, content_type))

    async def _subscribe_to_shard(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        request = _validate("SubscribeToShard", codec.decode(body, content_type))
        events = await self._subscriptions.subscribe(caller, request)
        return Answer(200, [], event_stream.encode_events(events, content_type))

    async def _extension(self, caller: Caller, name: str, body: bytes) -> Answer:
        """Headrace's own operations: leases and usage. JSON only."""
        if name == "DescribeUsage":
            asked = _decode_extension(body, DescribeUsageRequest)
            usage = await self._metered.describe(caller, asked.stream_name, asked.hours)
            return Answer(200, [], msgspec.json.encode(usage))
        found = LEASE_OPERATIONS.get(name)
        if found is None:
            raise UnknownOperation("")
        request_type, method = found
        answer = await getattr(self._leases, method)(
            _decode_extension(body, request_type), account=caller.account, region=caller.region
        )
        return Answer(200, [], msgspec.json.encode(answer))


def _decode_extension(body: bytes, request_type: type[_Request]) -> _Request:
    try:
        return msgspec.json.decode(body, type=request_type)
    except msgspec.ValidationError as error:
        raise ValidationError(str(error)) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Serialization(str(error)) from error


def _validate(name: str, request: object) -> dict[str, Any]:
    return validation.validate(name, request)


def _stamp(headers: Mapping[bytes, bytes]) -> Stamp:
    """The producer's headers. Raises ValidationError naming the header that is wrong."""
    producer_id = headers[_PRODUCER].decode("latin-1")
    hot.check_producer_id(producer_id)
    try:
        epoch = int(headers.get(_EPOCH, b"0"))
    except ValueError:
        epoch = -1
    if not 0 <= epoch < 2**63:
        raise ValidationError("The X-Headrace-Producer-Epoch header must be an integer >= 0.")
    try:
        sequences = decode_sequences(headers.get(_SEQUENCES, b"").decode("latin-1"))
    except ValueError as error:
        raise ValidationError(
            f"The X-Headrace-Producer-Sequences header must be first,+delta,+delta: {error}."
        ) from error
    return Stamp(producer_id, epoch, sequences)


def _on_the_wire(error: HeadraceError) -> ServiceError:
    """What a client is told. Storage trouble is ours to mend, so it is a 500 that names itself;
    a full disk passes, so it is a 503."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, StorageFull):
        return ServiceUnavailable(str(error))
    if isinstance(error, CorruptSegment):
        log.error("%s", error)
    return InternalFailure(str(error))
