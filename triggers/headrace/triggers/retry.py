"""What to do after an invocation: pure decisions, no time and no I/O.

Every decision about going on, trying again and giving up is here, so that the order of a
shard's records can be argued in one place.
"""

from __future__ import annotations

from dataclasses import dataclass

FOREVER = -1  # as Lambda writes it
FIRST_BACKOFF_MS = 1_000  # doubles with every failure in a row
MAX_BACKOFF_MS = 60_000


@dataclass(frozen=True, slots=True)
class Done:
    """The batch is done up to `count` records; the rest, if any, is a new batch."""

    count: int


@dataclass(frozen=True, slots=True)
class Again:
    """The same batch once more, under the same request id."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The batch goes to the dead letters."""


Decision = Done | Again | GiveUp


def decide(*, size: int, failed_from: int | None, invokes: int, retries: int) -> Decision:
    """After the `invokes`-th invocation (from 1) of a batch of `size` records.

    `failed_from` is the index of the first record not done, None when all are done. `retries`
    of N means N + 1 invocations. Progress, however little, makes the rest a new batch with
    retries of its own; a failure of the first record is none, and uses them up.
    """
    if failed_from is None:
        return Done(size)
    if failed_from > 0:
        return Done(failed_from)
    if retries == FOREVER or invokes <= retries:
        return Again()
    return GiveUp()
