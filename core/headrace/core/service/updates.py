"""Settings for which a stream is UPDATING for a while: begun now, finished after the delay."""

from __future__ import annotations

from itertools import pairwise

from headrace.core.control.scaling import borders
from headrace.core.control.settings import BeginUpdate, FinishUpdate, changed_since
from headrace.core.control.stream_state import PendingUpdate, StreamState
from headrace.core.errors import LimitExceeded
from headrace.core.limits import ON_DEMAND_STREAM_QUOTA
from headrace.core.model.hashing import HashKeyRange
from headrace.core.service.addressing import address
from headrace.core.service.catalog import Catalog
from headrace.core.service.resharding import halves, reshard
from headrace.core.service.transitions import Transitions

_DAY_MS = 24 * 3600 * 1000


class Updates:
    """Takes streams through UPDATING. `is_limited`: not more often than AWS allows."""

    def __init__(
        self, catalog: Catalog, transitions: Transitions, *, is_limited: bool = False
    ) -> None:
        self._catalog = catalog
        self._transitions = transitions
        self._is_limited = is_limited

    @property
    def is_limited(self) -> bool:
        return self._is_limited

    @property
    def is_delayed(self) -> bool:
        return self._transitions.is_delayed

    async def run(self, stream: StreamState, pending: PendingUpdate) -> None:
        """Begin, and finish after the delay. Raises ResourceInUse unless the stream is ACTIVE."""
        if _reshards(pending):
            self._catalog.opened(stream)  # one that is not served is not resharded either
        await self._catalog.engine.control.submit(
            BeginUpdate(
                **address(stream),
                pending=pending,
                at_ms=self._catalog.clock.now_ms(),
                on_demand_quota=ON_DEMAND_STREAM_QUOTA if self._is_limited else None,
            )
        )
        await self._transitions.after_delay(lambda: self.finish(stream))

    async def finish(self, stream: StreamState) -> None:
        command = FinishUpdate(**address(stream), at_ms=self._catalog.clock.now_ms())
        pending = stream.pending
        if pending is None or not _reshards(pending):
            await self._catalog.engine.control.submit(command)
            return
        await reshard(
            self._catalog,
            stream,
            lambda: {shard.number for shard in stream.open_shards},
            lambda: _ranges(stream, pending),
            command,
        )

    def limit_changes(self, stream: StreamState, kind: str, most: int, what: str) -> None:
        """Raises LimitExceeded after `most` changes of a kind in 24 hours, where that is limited.

        `what` is the operation, for the message.
        """
        since_ms = self._catalog.clock.now_ms() - _DAY_MS
        if self._is_limited and len(changed_since(stream, kind, since_ms)) >= most:
            raise LimitExceeded(
                f"{what} was called {most} times within the last 24 hours for stream "
                f"{stream.name} under account {stream.account}. Limit: {most}."
            )


def _reshards(pending: PendingUpdate) -> bool:
    return pending.shard_count is not None or bool(pending.all_splits or pending.all_merges)


def _ranges(stream: StreamState, pending: PendingUpdate) -> list[HashKeyRange]:
    """Those of the shards to come that are not just old ones joined."""
    if pending.shard_count is None:
        return [
            half for number, at in pending.all_splits for half in halves(stream, number, int(at))
        ]
    ends = borders(stream, pending.shard_count)
    return [HashKeyRange(start, end - 1) for start, end in pairwise([0, *ends])]
