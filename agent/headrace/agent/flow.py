"""One flow of the configuration, made ready: its patterns, its packer, where it puts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from headrace.agent.config import FlowConfig
from headrace.agent.globs import Glob
from headrace.agent.packing import Packer
from headrace.core.model.records import PutEntry, PutResult


class Putter(Protocol):
    """What the agent needs of a producer (`headrace.core.producer.Producer` is one)."""

    async def put_batch(
        self,
        entries: Sequence[PutEntry],
        *,
        producer_id: str | None = None,
        epoch: int = 0,
        sequences: Sequence[int] | None = None,
    ) -> list[PutResult]:
        """Return when every entry is acknowledged; raise what a retry cannot mend."""


class Flow:
    """What the configuration says of some files, and the tools to do it."""

    def __init__(self, config: FlowConfig, *, base: Path, putter: Callable[[str], Putter]) -> None:
        """`base`: the folder relative patterns start from. `putter` gives one for a stream."""
        self.config = config
        self.stream = config.stream
        self.globs = [Glob(pattern, base=base) for pattern in config.patterns]
        self.exclusions = [
            Glob(pattern, base=base, name_suffices=True) for pattern in config.exclusions
        ]
        self.packer = Packer(config)
        self.putter = putter(config.stream)
        self.dead_putter = putter(config.dead_letter) if config.dead_letter else None
        #: True until the first scan of its very first run is done.
        self.is_first_run = False
        #: Names the flow in the store, to know that run.
        self.key = json.dumps([config.stream, sorted(glob.pattern for glob in self.globs)])

    def matches(self, path: str) -> bool:
        """Whether a path is one of this flow's."""
        return any(glob.matches(path) for glob in self.globs) and not self.excludes(path)

    def excludes(self, path: str) -> bool:
        """Whether a path is left out though it matches."""
        return any(glob.matches(path) for glob in self.exclusions)
