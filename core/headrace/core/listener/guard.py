"""What peers may make a server wait for and keep, and what they make it keep at the moment.

| bound                   | on what                                | beyond it                     |
|-------------------------|----------------------------------------|-------------------------------|
| `patience_s`            | a head that is not whole               | closed                        |
| the same                | `MIN_PROGRESS_BYTES` more of a body    | closed (HTTP/2: stream reset) |
| the same                | any of an answer being taken           | closed (HTTP/2: stream reset) |
| `MAX_STILL_LOOKS` times | the same, of an answer that goes on    | the same                      |
| `MAX_HEAD_BYTES`        | request line and headers, or trailers  | 431, or closed                |
| `MAX_PIPELINED`         | requests sent before the answer        | closed after those before     |
| `max_connections`       | connections                            | closed when accepted          |
| `max_held_bytes`        | unanswered requests and unsent answers | 503 (HTTP/2: stream refused)  |

Connections look at themselves every `patience_s`, so a bound in time holds once to twice that
long, and costs a request nothing.
"""

from __future__ import annotations

import logging

from headrace.core.clock import SystemClock
from headrace.core.limits import KIB, MIB
from headrace.core.troubles import Troubles

PATIENCE_S = 20.0
MIN_PROGRESS_BYTES = 10_000  # 500 bytes a second, as web servers commonly ask
MAX_STILL_LOOKS = 15  # five minutes: the consumer of a subscription may be busy with what it has
MAX_HEAD_BYTES = 64 * KIB
MAX_PIPELINED = 16
MAX_HELD_BYTES = 1_024 * MIB

_log = logging.getLogger("headrace.core")


class Guard:
    """One for all connections of a server. `max_connections` None is without bound."""

    def __init__(
        self,
        *,
        patience_s: float = PATIENCE_S,
        max_connections: int | None = None,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.patience_s = patience_s
        self.max_connections = max_connections
        self.max_held_bytes = max_held_bytes
        self.held_bytes = 0
        self._troubles = Troubles(_log, SystemClock())

    @property
    def is_full(self) -> bool:
        """No room for more requests until others are answered, or given up."""
        return self.held_bytes > self.max_held_bytes

    def takes(self, connection_count: int) -> bool:
        """Whether there is room for one more connection beside so many."""
        if self.max_connections is None or connection_count < self.max_connections:
            return True
        self.report(
            "connections",
            f"{connection_count} connections are open and no more are taken: "
            "raise the limit on open files (ulimit -n) if clients need more",
        )
        return False

    def report(self, key: str, message: str) -> None:
        """Log what peers do; the same again every 30 s at most, with a count."""
        self._troubles.report(key, message)
