"""The service's limits as constants, each with its source.

"model" below is botocore's service model, kinesis 2013-12-02.
"""

KIB = 1024
MIB = 1024 * KIB

MAX_RECORDS_PER_PUT = 500  # model, PutRecordsRequestEntryList
MAX_PUT_REQUEST_BYTES = 10 * MIB  # model, PutRecords: data and partition keys together
DEFAULT_MAX_RECORD_BYTES = 1 * MIB  # model, CreateStream.MaxRecordSizeInKiB: 1024 unless set
MAX_RECORD_BYTES = 10 * MIB  # model, MaxRecordSizeInKiB, upper bound
MAX_PARTITION_KEY_CHARS = 256  # model, PartitionKey
MAX_RECORDS_PER_GET = 10_000  # model, GetRecordsInputLimit
MAX_GET_BYTES = 10 * MIB  # GetRecords documentation: 10 MB a call
ITERATOR_LIFETIME_MS = 300_000  # GetShardIterator documentation: five minutes
LIST_TOKEN_LIFETIME_MS = 300_000  # ListShards documentation
SHARD_IN_BYTES_PER_S = 1 * MIB  # service quotas page, as the next three
SHARD_IN_RECORDS_PER_S = 1000
SHARD_OUT_BYTES_PER_S = 2 * MIB
SHARD_READS_PER_S = 5
SHARD_ITERATORS_PER_S = 5  # GetShardIterator documentation
MIN_RETENTION_HOURS = 24
MAX_RETENTION_HOURS = 8760
DEFAULT_SHARD_QUOTA = 20_000  # default quota of the large regions, on-demand and provisioned alike
ON_DEMAND_SHARDS = 4  # an on-demand stream starts with four
# how far traffic alone takes an on-demand stream, unless configured. At AWS: 200 MB/s of writes by
# default in most regions. Without limits a shard takes what the disk does, so more of them only
# serve readers in parallel.
ON_DEMAND_MAX_SHARDS_LIMITED = 200
ON_DEMAND_MAX_SHARDS_UNLIMITED = 32
MAX_SCALED_SHARDS = 10_000  # UpdateShardCount documentation
MAX_TAGS = 50  # AddTagsToStream documentation
MAX_CONSUMERS = 20  # RegisterStreamConsumer documentation, as the next two
MAX_COMMITTED_CONSUMERS = 50  # with a minimum throughput billing commitment
MAX_CREATING_CONSUMERS = 5
MAX_WARM_MIBPS = 10 * 1024  # UpdateStreamWarmThroughput documentation: 10 GiB/s
ON_DEMAND_STREAM_QUOTA = 50  # service quotas page
CHANGING_STREAM_QUOTA = 5  # CreateStream documentation: streams CREATING (or DELETING) at once
MAX_STREAM_COUNT = 1_000_000  # model, OnDemandStreamCountLimitObject: the most that can be said
COMMITMENT_MS = 24 * 3600 * 1000  # a minimum throughput billing commitment lasts a day at least
SUBSCRIPTION_LIFETIME_MS = 300_000  # SubscribeToShard documentation: five minutes
TAKEOVER_AFTER_MS = 5_000  # SubscribeToShard documentation
DEFAULT_ACCOUNT = "123456789012"
DEFAULT_REGION = "us-east-1"
PRODUCER_SILENCE_MS = 7 * 24 * 3600 * 1000  # an idempotent producer is forgotten after this
