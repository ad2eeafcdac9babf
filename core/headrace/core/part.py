"""What a part of a pipeline is: a section of the YAML file, a run loop, and how it feels.

A part is found through the entry-point group `headrace.parts`; the pipeline knows no more of it
than this class. Parts meet only at the Kinesis API.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTarget:
    """Where the stream's API is: what a part needs to make a client.

    `certificate` is a PEM file whose first certificate is the server's own: exactly that one is
    taken then. Without it an https endpoint is checked as usual, against AWS_CA_BUNDLE or what
    the system trusts.
    """

    endpoint: str = "http://127.0.0.1:4567"
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    certificate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartContext:
    """What a part is given besides its own section.

    `data` is the folder for the part's own durable state (exclusive to it); `base` is the folder
    of the YAML file, which relative paths in it start from.
    """

    data: Path
    base: Path
    target: StreamTarget
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing `headrace check` has to say. `loc` is the path of the key within the section."""

    loc: tuple[str | int, ...]
    message: str
    hint: str | None = None
    is_error: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a part is doing: `figures` are shown by `headrace status`, `problems` too, one a line."""

    ok: bool
    figures: dict[str, int | float | str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Part(abc.ABC):
    """Base of a part.

    `section` is its top-level YAML key; `schema` is the type pydantic validates that section
    with (a model, or e.g. `list[SinkConfig]`).
    """

    section: ClassVar[str]
    schema: ClassVar[Any]

    def __init__(self, config: Any, context: PartContext) -> None:
        self.config = config
        self.context = context

    @abc.abstractmethod
    async def run(self) -> None:
        """Work until `stop` is called; return when drained. Raises on what cannot be survived."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Ask for an orderly end: finish what is in hand, save positions, let `run` return."""

    @abc.abstractmethod
    def health(self) -> Health:
        """How it is doing now. Cheap; called about once a second."""

    @classmethod
    def check(cls, config: Any, *, base: Path, streams: Sequence[str] | None) -> list[Finding]:
        """What is wrong with a section beyond its schema: names no stream has, missing files.

        `streams` are the stream names the file declares, or None when that is not known.
        """
        return []

    @classmethod
    def commands(cls) -> typer.Typer | None:
        """CLI verbs this part adds below its own name, or None."""
        return None
