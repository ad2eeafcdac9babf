"""The operations of the Kinesis API by name, but for those that carry records.

Each takes a validated request as the model's members and returns the answer's. The others, which
are too busy for that, are `puts`, `reads` and `subscriptions`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from headrace.core.service.account import AccountService
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.consumers import ConsumerService
from headrace.core.service.dry_run import refuse_dry_run
from headrace.core.service.encryption import EncryptionService
from headrace.core.service.modes import ModeService
from headrace.core.service.monitoring import MonitoringService
from headrace.core.service.policies import PolicyService
from headrace.core.service.reads import ReadService
from headrace.core.service.retention import RetentionService
from headrace.core.service.scaling import ScalingService
from headrace.core.service.shards import ShardService
from headrace.core.service.streams import StreamService
from headrace.core.service.tags import TagService

Operation = Callable[[Caller, dict[str, Any]], Awaitable[dict[str, Any]]]


def operations(
    catalog: Catalog, streams: StreamService, reads: ReadService, *, is_limited: bool
) -> dict[str, Operation]:
    """All of one catalog. With `is_limited` some answer with the limits of the service."""

    async def get_shard_iterator(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        answer = await reads.get_shard_iterator(caller, request)
        refuse_dry_run(bool(request.get("DryRun")))
        return answer

    shards = ShardService(catalog, streams.updates)
    tags = TagService(catalog)
    consumers = ConsumerService(catalog, streams.transitions)
    modes = ModeService(catalog, streams.updates)
    retention = RetentionService(catalog)
    scaling = ScalingService(catalog, streams.updates)
    encryption = EncryptionService(catalog, streams.updates)
    policies = PolicyService(catalog)
    monitoring = MonitoringService(catalog)
    account = AccountService(catalog, is_limited=is_limited)
    return {
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
