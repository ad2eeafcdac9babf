"""The state of streams: what a stream, a shard and a consumer are between two commands.

Values only; the commands that change them are in the files beside this one. A field added later
has a default, so that snapshots written before it still load.
"""

from __future__ import annotations

import msgspec

from headrace.core.errors import ResourceInUse, ResourceNotFound
from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.sequence import ending, parse, starting
from headrace.core.model.shards import shard_id, shard_number


class ShardState(msgspec.Struct):
    """One shard. Hash keys are decimal strings: they do not fit 64 bits."""

    number: int
    start: str
    end: str
    created_s: int
    parent: int | None = None
    adjacent_parent: int | None = None
    closed_s: int | None = None

    @property
    def id(self) -> str:
        return shard_id(self.number)

    @property
    def range(self) -> HashKeyRange:
        return HashKeyRange(int(self.start), int(self.end))

    @property
    def is_open(self) -> bool:
        return self.closed_s is None

    @property
    def starting_sequence_number(self) -> str:
        return str(starting(self.created_s, self.number))

    @property
    def ending_sequence_number(self) -> str | None:
        if self.closed_s is None:
            return None
        return str(ending(self.created_s, self.number, self.closed_s))


class ConsumerState(msgspec.Struct, kw_only=True):
    """A registered consumer. Its ARN ends in the second of its creation."""

    name: str
    created_ms: int
    status: str
    tags: dict[str, str] = {}
    policy: str | None = None


class PendingUpdate(msgspec.Struct, kw_only=True, frozen=True):
    """What an UPDATING stream becomes when it is ACTIVE again; None: as it is.

    `encryption` is NONE or KMS, the latter with `key_id`. `split` is a shard and the hash key at
    which it is split, `merge` two adjacent shards; `splits` and `merges` are several at once, no
    shard twice, for a stream that scales by itself.
    """

    shard_count: int | None = None
    split: tuple[int, str] | None = None
    merge: tuple[int, int] | None = None
    mode: str | None = None
    encryption: str | None = None
    key_id: str | None = None
    warm_mibps: int | None = None
    splits: tuple[tuple[int, str], ...] = ()
    merges: tuple[tuple[int, int], ...] = ()

    @property
    def all_splits(self) -> tuple[tuple[int, str], ...]:
        return self.splits if self.split is None else (self.split, *self.splits)

    @property
    def all_merges(self) -> tuple[tuple[int, int], ...]:
        return self.merges if self.merge is None else (self.merge, *self.merges)

    @property
    def kind(self) -> str:
        """Which of the settings that may not change often this is about; empty for none."""
        if self.mode is not None:
            return "mode"
        if self.encryption is not None:
            return "encryption" if self.encryption == "KMS" else "decryption"
        return "shard_count" if self.shard_count is not None and self.warm_mibps is None else ""


class StreamState(msgspec.Struct):
    """One stream.

    `horizon_ms`: nothing older is ever served again, whatever the retention. `consumers` are by
    name. `key_id` names the key of an encrypted stream, None of one that is not. `metrics` are
    the shard-level ones that were enabled. `warm_mibps` is None where warm throughput was never
    asked for. `changes_ms` says when the shard count, mode and encryption were changed in the last
    24 hours, for the limits on that.
    """

    uid: str
    account: str
    region: str
    name: str
    created_ms: int
    mode: str
    status: str
    shards: list[ShardState]
    retention_hours: int = 24
    horizon_ms: int = 0
    max_record_kib: int = 1024
    tags: dict[str, str] = {}
    version: int = 0  # rises with every change of the shards; routing tables are made from it
    consumers: dict[str, ConsumerState] = {}
    policy: str | None = None
    key_id: str | None = None
    metrics: list[str] = []
    distribution: str = "USER_PARTITION_KEY"
    warm_mibps: int | None = None
    pending: PendingUpdate | None = None
    changes_ms: dict[str, list[int]] = {}

    @property
    def encryption(self) -> str:
        return "NONE" if self.key_id is None else "KMS"

    @property
    def is_spread(self) -> bool:
        """Records go to the shards in turn, whatever their partition keys."""
        return self.distribution == "AUTO"

    def consumer_arn(self, consumer: ConsumerState) -> str:
        return f"{self.arn}/consumer/{consumer.name}:{consumer.created_ms // 1000}"

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:{self.region}:{self.account}:stream/{self.name}"

    @property
    def open_shards(self) -> list[ShardState]:
        return [shard for shard in self.shards if shard.is_open]

    def may_have_had(self, shard_id: str, starting_sequence_number: str) -> bool:
        """Whether that may be a shard of this stream that has expired: numbered before the last
        one, and made in the stream's time."""
        number, start = shard_number(shard_id), parse(starting_sequence_number)
        return (
            number is not None
            and start is not None
            and number == start.shard < max(shard.number for shard in self.shards)
            and start.created_s >= self.created_ms // 1000
            and start.created_s <= max(shard.created_s for shard in self.shards)
        )


class StreamsState(msgspec.Struct):
    """All streams, by `account/region/name`.

    `removed_created_s` is the latest creation (s) of any shard of a stream that is gone. A stream
    made again under a name is created later than that, also within the same second: else its
    sequence numbers would begin where the old ones did, and a checkpoint of the old stream would
    skip the new one's records.
    """

    streams: dict[str, StreamState] = {}
    removed_created_s: int = 0


def stream_key(account: str, region: str, name: str) -> str:
    return f"{account}/{region}/{name}"


def not_found(account: str, name: str) -> ResourceNotFound:
    return ResourceNotFound(f"Stream {name} under account {account} not found.")


def not_active(stream: StreamState) -> ResourceInUse:
    return ResourceInUse(
        f"Stream {stream.name} under account {stream.account} not ACTIVE, instead in state "
        f"{stream.status}"
    )


def find_shard(stream: StreamState, number: int) -> ShardState | None:
    for shard in stream.shards:
        if shard.number == number:
            return shard
    return None
