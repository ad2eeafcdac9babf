"""The triggers as a part of a pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from headrace.core.client import StreamClient
from headrace.core.part import Finding, Health, Part, PartContext
from headrace.triggers.check import check_trigger
from headrace.triggers.config import TriggerConfig, TriggersConfig
from headrace.triggers.trigger import Trigger, no_seam


class TriggersPart(Part):
    """Runs every entry of the `triggers` section."""

    section: ClassVar[str] = "triggers"
    schema: ClassVar[Any] = TriggersConfig

    def __init__(
        self,
        config: list[TriggerConfig],
        context: PartContext,
        *,
        seam: Callable[[str], None] = no_seam,
    ) -> None:
        super().__init__(config, context)
        context.data.mkdir(parents=True, exist_ok=True)
        self._client = StreamClient(context.target)
        worker = _worker_name(context.data / "worker")
        self._triggers = [
            Trigger(entry, context, self._client, worker=worker, seam=seam) for entry in config
        ]

    async def run(self) -> None:
        try:
            async with self._client, asyncio.TaskGroup() as group:
                for trigger in self._triggers:
                    group.create_task(trigger.run(), name=f"trigger {trigger.config.name}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the first ended the others

    async def stop(self) -> None:
        await asyncio.gather(*(trigger.stop() for trigger in self._triggers))

    def health(self) -> Health:
        now_ms = self.context.clock.now_ms()
        figures: dict[str, int | float | str] = {}
        problems: list[str] = []
        for trigger in self._triggers:
            for name, value in trigger.stats.figures(now_ms).items():
                figures[f"{trigger.config.name}.{name}"] = value
            problems.extend(trigger.problems())
        return Health(ok=not problems, figures=figures, problems=tuple(problems))

    @classmethod
    def check(
        cls, config: list[TriggerConfig], *, base: Path, streams: Sequence[str] | None
    ) -> list[Finding]:
        return [
            Finding((index, *found.loc), found.message, found.hint, found.is_error)
            for index, trigger in enumerate(config)
            for found in check_trigger(trigger, base=base, streams=streams)
        ]


def _worker_name(file: Path) -> str:
    """This installation's name as a worker, the same after every restart.

    The data folder is ours alone, so a lease under this name is one of an earlier life and can
    be had back at once, without waiting for it to expire.
    """
    with contextlib.suppress(FileNotFoundError):
        if name := file.read_text().strip():
            return name
    name = f"{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())[:64]}-{secrets.token_hex(8)}"
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(name + "\n")
    unfinished.replace(file)
    return name
