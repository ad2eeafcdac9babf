"""When and after what pause to try again: shared by producer and consumer."""

from __future__ import annotations

import random
from collections.abc import Callable

from headrace.core.errors import EndpointUnreachable, HeadraceError, ServiceError

_PASSING_CODES = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "SlowDown",
        "RequestTimeout",
        "RequestTimeoutException",
        "KMSThrottlingException",
        "ExpiredTokenException",
    }
)
"""Codes without a class of ours that go away by themselves. All but the last two are what botocore
retries (retries/standard.py); expired temporary credentials are about to be renewed."""


class Backoff:
    """Pauses that double from `initial_ms` to `max_ms`, each cut by up to the share `jitter`.

    Jitter keeps many clients that failed at one moment from coming back at one moment.
    """

    def __init__(
        self,
        *,
        initial_ms: float = 100,
        max_ms: float = 10_000,
        jitter: float = 0.5,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not 0 < initial_ms <= max_ms or not 0 <= jitter <= 1:
            raise ValueError("Backoff wants 0 < initial_ms <= max_ms and 0 <= jitter <= 1")
        self._initial_ms = initial_ms
        self._max_ms = max_ms
        self._jitter = jitter
        self._chance = chance

    def next_ms(self, attempt: int) -> float:
        """The pause before trying again after `attempt` (0 for the first) failures in a row."""
        whole_ms = min(self._max_ms, self._initial_ms * 2.0 ** min(attempt, 60))
        return whole_ms * (1 - self._jitter * self._chance())


def is_passing(error: HeadraceError) -> bool:
    """Whether the same request may succeed later without anybody doing anything."""
    if isinstance(error, EndpointUnreachable):
        return True
    if isinstance(error, ServiceError):
        return (
            error.retryable or (error.wire_status or 0) >= 500 or error.wire_code in _PASSING_CODES
        )
    return False
