"""Measuring several contenders in one run, so that the machine's bad seconds meet all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def in_turn(rounds: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each of `measures` gave, by its name, a value a round.

    Every second round goes backwards: what becomes slower all the time then favours none.
    """
    found: dict[str, list[T]] = {name: [] for name in measures}
    for round_ in range(rounds):
        for name in reversed(list(measures)) if round_ % 2 else measures:
            found[name].append(measures[name]())
    return found
