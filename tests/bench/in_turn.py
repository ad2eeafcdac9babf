"""Measuring several contenders in one run, so that the machine's bad seconds meet all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

SETTLE_S = 0.2


def in_turn(rounds: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each of `measures` gave, by its name, a value a round.

    Every second round goes backwards: what becomes slower all the time then favours none. What one
    left to be done later (pages not yet written, tables to be merged) is done before the next.
    """
    found: dict[str, list[T]] = {name: [] for name in measures}
    for round_ in range(rounds):
        for name in reversed(list(measures)) if round_ % 2 else measures:
            os.sync()
            time.sleep(SETTLE_S)
            found[name].append(measures[name]())
    return found
