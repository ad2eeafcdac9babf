"""Usage as JSON text, piece by piece: what `usage_report` sends.

Pure functions over counts, to be called in a thread: a stream of a thousand shards has a million
hours in a month. Hours are made without a dictionary each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from headrace.core.model.shards import shard_id
from headrace.core.model.usage import (
    HOUR_MS,
    Part,
    PartKey,
    StreamCounts,
    StreamIdentity,
    UsagePage,
)

_encode = msgspec.json.Encoder().encode


def time_text(unix_ms: int) -> str:
    """In UTC, by the second."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")


def stream_text(identity: StreamIdentity, total: StreamCounts, *, is_deleted: bool) -> bytes:
    """A stream's totals: an object without its closing brace."""
    return _encode(
        {
            "stream": identity.name,
            "arn": f"arn:aws:kinesis:{identity.region}:{identity.account}:stream/{identity.name}",
            "created": time_text(identity.created_ms),
            "is_deleted": is_deleted,
            "total": total,
        }
    )[:-1]


def streams_text(
    streams: Sequence[tuple[StreamIdentity, StreamCounts, bool]],
) -> bytes:
    """Streams' totals, with commas between; of each also whether it is deleted."""
    return b",".join(
        stream_text(identity, total, is_deleted=is_deleted) + b"}"
        for identity, total, is_deleted in streams
    )


def hours_text(by_hour: Iterable[tuple[int, msgspec.Struct]]) -> bytes:
    """Counts by Unix hour: an array."""
    return b"[%b]" % b",".join(
        [b'{"hour":"%b",%b' % (_hour_text(hour), _encode(counts)[1:]) for hour, counts in by_hour]
    )


@lru_cache(maxsize=10_000)
def _hour_text(hour: int) -> bytes:
    return time_text(hour * HOUR_MS).encode()


def page_text(part: Part, page: UsagePage) -> bytes:
    """Shards or consumers with totals and hours, with commas between."""
    by_key: dict[PartKey, list[tuple[int, msgspec.Struct]]] = {key: [] for key in page.totals}
    for hour, key in sorted(page.hours):
        by_key[key].append((hour, page.hours[hour, key]))
    name = _NAMES[part]
    return b",".join(
        b'%b,"total":%b,"hours":%b}'
        % (_encode(name(key))[:-1], _encode(page.totals[key]), hours_text(hours))
        for key, hours in sorted(by_key.items())
    )


_NAMES: dict[Part, Callable[[Any], dict[str, str]]] = {
    "shards": lambda number: {"shard_id": shard_id(number)},
    "consumers": lambda consumer: {"consumer": consumer},
}
