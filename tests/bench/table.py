"""The table of a benchmark beside a peer: a line a figure, with its bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OURS, THEIRS = "headrace", "kinesalite"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@dataclass
class Row:
    """One line of the table. A bar is of ours : theirs if it ends in x, else of ours alone."""

    figure: str
    unit: str
    bar: str
    values: Mapping[str, float]
    """By the server's name; of ours alone where there is no peer."""
    note: str = ""

    @property
    def ours(self) -> float:
        return self.values[OURS]

    @property
    def theirs(self) -> float | None:
        return self.values.get(THEIRS)

    @property
    def ratio(self) -> str:
        return "-" if self.theirs is None else f"{self.ours / self.theirs:.2f}x"

    @property
    def verdict(self) -> str:
        """Whether the bar is reached; nothing where there is no peer to compare with."""
        relation, bound, *_ = self.bar.removesuffix("x").split()
        value = self.ours
        if self.bar.endswith("x"):
            if self.theirs is None:
                return ""
            value = self.ours / self.theirs
        reached = value >= float(bound) if relation == ">=" else value <= float(bound)
        return "reached" if reached else "missed"

    def show(self) -> None:
        print(
            f"{self.figure:<52} {_number(self.ours):>12} {_number(self.theirs):>12} "
            f"{self.ratio:>9}  {self.bar:<10} {self.verdict:<8} {self.unit} {self.note}",
            flush=True,
        )


def show_header() -> None:
    print(f"{'figure':<52} {OURS:>12} {THEIRS:>12} {'ratio':>9}  {'bar':<19} unit")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
