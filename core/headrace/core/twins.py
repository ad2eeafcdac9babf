"""Noticing a twin: another process that works under this worker's name.

A worker's own leases need no heartbeat to be taken back after a restart, so two processes of one
name would take them from each other for ever. What gives a twin away is the counter of a lease: it
rises with every change of owner, and it rose without this process having taken the lease.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.core.errors import ConfigError
from headrace.core.model.leases import Lease


class Twins:
    """Remembers what this process took, and compares it with what is listed."""

    def __init__(self, *, stream: str, worker: str) -> None:
        self._stream = stream
        self._worker = worker
        self._counters: dict[str, int] = {}  # of leases as last taken here

    def taking(self, shard_id: str) -> None:
        """Until the answer is here nobody knows what the counter is."""
        self._counters.pop(shard_id, None)

    def took(self, lease: Lease) -> None:
        """This process has taken it, with that counter."""
        self._counters[lease.shard_id] = lease.counter

    def check(self, leases: Iterable[Lease]) -> None:
        """Raises ConfigError when a twin has taken one of these."""
        for lease in leases:
            known = self._counters.get(lease.shard_id)
            if known is None or lease.counter <= known:
                continue
            del self._counters[lease.shard_id]
            if lease.owner == self._worker:
                raise ConfigError(
                    f"another process works on stream {self._stream} as worker {self._worker} "
                    f"and has taken {lease.shard_id} from this one",
                    hint="give every process a worker name of its own",
                )
