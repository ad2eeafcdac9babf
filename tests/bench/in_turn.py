"""Measuring several contenders in one run, so that the machine's bad seconds meet all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.stolen_time import StolenTime

T = TypeVar("T")

SETTLE_S = 0.2
MOST_STOLEN = 0.03  # of the time of each contender in a steady round
PATIENCE = 3  # so many times as many rounds at most, to have enough steady ones


@dataclass(frozen=True)
class Round(Generic[T]):
    """One value of each contender, by its name."""

    values: dict[str, T]
    stolen: float
    """Of the time of the contender who was robbed most: see `stolen_time`."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """All rounds that were measured, and which count."""

    tried: list[Round[T]]
    count: int

    @property
    def counted(self) -> list[Round[T]]:
        """Those in which the least was stolen, as many as were asked for."""
        return sorted(self.tried, key=lambda one: one.stolen)[: self.count]

    def values(
        self, value: Callable[[list[T]], float], rounds: Sequence[Round[T]] | None = None
    ) -> dict[str, float]:
        """Each contender's value of some rounds, by its name; else of those that count."""
        chosen = self.counted if rounds is None else rounds
        return {name: value([one.values[name] for one in chosen]) for name in chosen[0].values}

    @property
    def steadiness(self) -> str:
        """How many rounds count and how steady they were; empty where nothing was left out."""
        most = max(one.stolen for one in self.counted)
        if len(self.tried) == self.count and most <= MOST_STOLEN:
            return ""
        return f"{self.count} of {len(self.tried)} rounds, with up to {most:.0%} stolen"


def in_turn(rounds: int, measures: Mapping[str, Callable[[], T]]) -> Found[T]:
    """What each of `measures` gave, by its name, a value a round.

    Every second round goes backwards: what becomes slower all the time then favours none. What one
    left to be done later (pages not yet written, tables to be merged) is done before the next.
    Where the machine's host took much of the time of one of them there is another round.
    """
    tried: list[Round[T]] = []
    steady = 0
    while steady < rounds and len(tried) < PATIENCE * rounds:
        values: dict[str, T] = {}
        stolen = 0.0
        for name in reversed(list(measures)) if len(tried) % 2 else measures:
            os.sync()
            time.sleep(SETTLE_S)
            time_ = StolenTime()
            values[name] = measures[name]()
            stolen = max(stolen, time_.share())
        tried.append(Round(values, stolen))
        steady += stolen <= MOST_STOLEN
    return Found(tried, rounds)
