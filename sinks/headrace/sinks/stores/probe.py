"""What a store says about put-if-absent is tried before anything is promised.

One after the other, then eight at once: some servers check the condition and write in two steps,
which only a race shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid

from headrace.core.errors import DeliveryError
from headrace.sinks.stores.protocol import ObjectStore

RACERS = 8


async def require_put_if_absent(store: ObjectStore, folder: str) -> None:
    """Return if the store keeps the promise; leaves nothing behind.

    Args:
        folder: where the probe's objects go, without `/` at its end.

    Raises:
        DeliveryError: not retryable when the store does not keep it; retryable when that could
            not be found out now.
    """
    run = uuid.uuid4().hex
    alone, raced = f"{folder}/{run}-alone", f"{folder}/{run}-raced"
    try:
        first = await store.put_if_absent(alone, b"first", {})
        second = await store.put_if_absent(alone, b"second", {})
        if not first or second or await store.get(alone) != b"first":
            raise _unfit(store, "replaced an object that was there, although asked not to")
        wins = await asyncio.gather(
            *(store.put_if_absent(raced, str(i).encode(), {}) for i in range(RACERS)),
            return_exceptions=True,
        )
        for outcome in wins:
            if isinstance(outcome, BaseException):
                raise outcome
        if wins.count(True) != 1 or await store.get(raced) != str(wins.index(True)).encode():
            raise _unfit(store, f"let {wins.count(True)} of {RACERS} writers win one key")
    finally:
        for key in (alone, raced):
            # Without the permission to delete, a few bytes stay behind in a folder that no
            # reader looks into.
            with contextlib.suppress(DeliveryError):
                await store.delete(key)


def _unfit(store: ObjectStore, what: str) -> DeliveryError:
    return DeliveryError(
        f"{store.destination}: the store {what}",
        destination=store.destination,
        retryable=False,
        hint="files could double after a crash, so the sink does not start; use a store that "
        "honours If-None-Match: * (AWS S3 does), or a folder",
    )
