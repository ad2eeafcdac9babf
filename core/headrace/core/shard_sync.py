"""Keeping an application's leases in step with its stream's shards: every shard has one.

Shards come by splits and merges, of which nobody tells the consumer; it lists them now and then.
"""

from __future__ import annotations

from headrace.core.client import StreamClient
from headrace.core.clock import Clock
from headrace.core.errors import HeadraceError, UnknownOperation, ValidationError
from headrace.core.leases import LeaseStore
from headrace.core.troubles import Troubles


class ShardSync:
    """Makes leases for new shards, every `period_ms`; the first time at once."""

    def __init__(
        self,
        client: StreamClient,
        leases: LeaseStore,
        *,
        stream: str,
        period_ms: int,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._client = client
        self._leases = leases
        self._stream = stream
        self._period_ms = period_ms
        self._clock = clock
        self._troubles = troubles
        self._due_ms = clock.monotonic_ms()

    def hasten(self) -> None:
        """There may be new shards: it is time now."""
        self._due_ms = self._clock.monotonic_ms()

    async def run_if_due(self) -> None:
        """Make leases for new shards, when it is time. A failure is reported, and tried again with
        the next call; raises what cannot pass: a store that has no such operation."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._due_ms:
            return
        try:
            shards = await self._client.list_shards(self._stream)
            await self._leases.sync(shards)
        except (UnknownOperation, ValidationError):
            raise
        except HeadraceError as error:
            self._troubles.report("shards", f"cannot list the shards of {self._stream}: {error}")
        else:
            self._troubles.clear("shards")
            self._due_ms = now_ms + self._period_ms
