"""A parsed YAML file: its values, and where in the text each of them stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]
"""The keys and list positions from the top of the file to a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value is: lines and columns from 1, the end exclusive.

    `key` is the place of its key, None for list items and the whole file. `written` is the text
    of a scalar as it stands in the file (variables not expanded), None for collections.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    key: tuple[int, int] | None = None
    written: str | None = None
    is_expanded: bool = False

    @property
    def start(self) -> tuple[int, int]:
        return self.line, self.column


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding about a file. `path` is empty where it is about the file itself."""

    line: int
    column: int
    path: Path
    message: str
    is_error: bool = True

    @property
    def key(self) -> str:
        return dotted(self.path)


@dataclass(slots=True, kw_only=True)
class Document:
    """`value` is plain dicts, lists and scalars; `places` has an entry for every path in it."""

    name: str
    lines: Sequence[str]
    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Place | None:
        return self.places.get(path)

    def value_at(self, path: Path) -> Any:
        """The value at a path. Raises LookupError or TypeError where there is none."""
        value = self.value
        for step in path:
            value = value[step]
        return value


def dotted(path: Path) -> str:
    """`('sinks', 0, 'to')` -> `sinks[0].to`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text
