"""Where reading of a shard starts, by what GetShardIterator and SubscribeToShard say of it."""

from __future__ import annotations

from headrace.core.clock import Clock
from headrace.core.control.stream_state import ShardState, StreamState, not_found
from headrace.core.engine.seam import LogClosed
from headrace.core.errors import InvalidArgument
from headrace.core.model.sequence import BEGINNING, MAX_INDEX, ORDINAL_BITS, Position, parse
from headrace.core.model.shards import shard_id
from headrace.core.service.catalog import OpenStream

_SEQUENCE_RULE = (
    "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "
    "StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
    "Request specified {} and {}."
)


async def starting_position(
    clock: Clock,
    opened: OpenStream,
    shard: ShardState,
    kind: str,
    text: str | None,
    at_ms: int | None,
) -> Position:
    """Where reading starts; `kind` is a ShardIteratorType, `text` a sequence number.

    Raises InvalidArgument when they do not go together, or not with this shard.
    """
    if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        if text is None:
            raise InvalidArgument(_SEQUENCE_RULE.format(kind, "no StartingSequenceNumber"))
        return _at_sequence_number(opened.stream, shard, text, after=kind[:5] == "AFTER")
    if text is not None:
        raise InvalidArgument(_SEQUENCE_RULE.format(kind, "also a StartingSequenceNumber"))
    if kind == "TRIM_HORIZON":
        return BEGINNING
    if kind == "LATEST":
        return opened.log.tail
    if at_ms is None:
        raise InvalidArgument(
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
            "Current request has no timestamp parameter."
        )
    now_ms = clock.now_ms()
    if at_ms > now_ms:
        raise InvalidArgument(
            "The timestampInMillis parameter cannot be greater than the "
            f"currentTimestampInMillis. timestampInMillis: {at_ms}, "
            f"currentTimestampInMillis: {now_ms}"
        )
    try:
        return await opened.log.find_time(shard.number, max(at_ms, 0))
    except LogClosed:
        raise not_found(opened.stream.account, opened.stream.name) from None


def _at_sequence_number(
    stream: StreamState, shard: ShardState, text: str, *, after: bool
) -> Position:
    found = parse(text)
    if found is None or (found.created_s != shard.created_s and found.shard == shard.number):
        raise InvalidArgument(
            f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.id} in "
            f"stream {stream.name} under account {stream.account} is invalid."
        )
    if found.shard != shard.number:
        raise InvalidArgument(
            f"Invalid StartingSequenceNumber. It encodes {shard_id(found.shard)}, while it was "
            f"used in a call to a shard with {shard.id}"
        )
    position = found.position
    if after and position.record_index >> ORDINAL_BITS == MAX_INDEX >> ORDINAL_BITS:
        raise InvalidArgument(
            "Invalid SequenceNumber for ShardIteratorType AFTER_SEQUENCE_NUMBER, "
            "SequenceNumber has reached max possible value for the shard."
        )
    # After the shard's own StartingSequenceNumber is before its first record, but not the
    # beginning: who starts there is told if records have expired meanwhile.
    return position.after() if after else position
