"""How many streams and shards an account may have in a region.

Checked where commands are applied, so that requests side by side cannot pass together. A quota that
is None is not enforced.

Unknown about AWS: its words for too many on-demand streams.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.core.control.stream_state import StreamsState, StreamState
from headrace.core.errors import LimitExceeded


def streams_of(state: StreamsState, account: str, region: str) -> Iterator[StreamState]:
    for stream in state.streams.values():
        if stream.account == account and stream.region == region:
            yield stream


def check_quota(state: StreamsState, account: str, region: str, wanted: int, quota: int) -> None:
    """Raises LimitExceeded when `wanted` more open shards are too many."""
    used = sum(len(stream.open_shards) for stream in streams_of(state, account, region))
    if used + wanted > quota:
        raise shard_quota_exceeded(account, region, used, quota, wanted)


def shard_quota_exceeded(
    account: str, region: str, used: int, quota: int, wanted: int
) -> LimitExceeded:
    return LimitExceeded(
        f"This request would exceed the shard limit for the account {account} in {region}. "
        f"Current shard count for the account: {used}. Limit: {quota}. Number of additional "
        f"shards that would have resulted from this request: {wanted}. Refer to the AWS Service "
        "Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for "
        "current limits and how to request higher limits."
    )


def count_on_demand(state: StreamsState, account: str, region: str) -> int:
    """On-demand streams, and those on their way to being one."""
    return sum(
        stream.mode == "ON_DEMAND"
        or (stream.pending is not None and stream.pending.mode == "ON_DEMAND")
        for stream in streams_of(state, account, region)
    )


def check_on_demand(state: StreamsState, account: str, region: str, quota: int | None) -> None:
    """Raises LimitExceeded when one more on-demand stream is too many."""
    if quota is None:
        return
    used = count_on_demand(state, account, region)
    if used >= quota:
        raise LimitExceeded(
            f"This request would exceed the limit on the number of streams in ON_DEMAND mode for "
            f"the account {account} in {region}. Current count for the account: {used}. "
            f"Limit: {quota}."
        )


def check_changing(state: StreamsState, account: str, region: str, quota: int | None) -> None:
    """Raises LimitExceeded when so many streams are CREATING or DELETING already."""
    if quota is None:
        return
    changing = sum(
        stream.status in ("CREATING", "DELETING") for stream in streams_of(state, account, region)
    )
    if changing >= quota:
        raise LimitExceeded(
            "This request would have exceed the limit on the number of streams that can "
            f"simultaneously be in CREATING or DELETING for the account {account}. Limit: {quota}."
        )
