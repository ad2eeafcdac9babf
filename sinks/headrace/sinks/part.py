"""The `sinks` part: every sink of the file, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from headrace.core.client import StreamClient
from headrace.core.errors import DeliveryError
from headrace.core.part import Finding, Health, Part, PartContext
from headrace.sinks.config import SinkConfig
from headrace.sinks.sink import Sink

if TYPE_CHECKING:
    import typer


class SinksPart(Part):
    """Streams into Parquet. A sink that cannot run does not hold up the others."""

    section: ClassVar[str] = "sinks"
    schema = list[SinkConfig]

    def __init__(self, config: list[SinkConfig], context: PartContext) -> None:
        super().__init__(config, context)
        self._client = StreamClient(context.target)
        self._sinks = [
            Sink(entry, base=context.base, client=self._client, clock=context.clock)
            for entry in config
        ]

    async def run(self) -> None:
        """Deliver until `stop`.

        Raises the DeliveryError of a sink only when none of them can run: one refused target
        is a problem `health` tells about. What no sink could survive, such as an endpoint
        that keeps no leases, ends all of them.
        """
        async with self._client:
            tasks = [asyncio.create_task(_run_one(sink)) for sink in self._sinks]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        refused = [error for task in tasks if (error := task.result()) is not None]
        if refused and len(refused) == len(self._sinks):
            raise refused[0]

    async def stop(self) -> None:
        await asyncio.gather(*(sink.stop() for sink in self._sinks))

    def health(self) -> Health:
        contexts = [sink.context for sink in self._sinks]
        figures = [context.figures for context in contexts]
        now_ms = self.context.clock.monotonic_ms()
        problems = tuple(line for sink in self._sinks for line in sink.problems())
        return Health(
            ok=not problems,
            figures={
                "rows": sum(figure.rows for figure in figures),
                "files": sum(figure.files for figure in figures),
                "bytes": sum(figure.bytes for figure in figures),
                "buffered_bytes": sum(context.budget.used_bytes for context in contexts),
                "behind_ms": max((figure.behind_ms(now_ms) for figure in figures), default=0),
                "lost_ranges": sum(figure.lost_ranges for figure in figures),
            },
            problems=problems,
        )

    @classmethod
    def check(
        cls, config: list[SinkConfig], *, base: Path, streams: Sequence[str] | None
    ) -> list[Finding]:
        findings: list[Finding] = []
        owners: dict[tuple[str, ...], int] = {}
        for index, entry in enumerate(config):
            if streams is not None and entry.stream not in streams:
                findings.append(
                    Finding(
                        (index, "stream"),
                        f"the file declares no stream {entry.stream!r}",
                        hint="declare it under stream: streams:, unless it is made elsewhere",
                        is_error=False,
                    )
                )
            target = entry.to.rstrip("/") if entry.is_s3 else str((base / entry.to).resolve())
            for what, value in (("name", entry.sink_name), ("stream", entry.stream)):
                other = owners.setdefault((what, target, value), index)
                if other != index:
                    findings.append(
                        Finding(
                            (index, "to"),
                            f"sinks {other + 1} and {index + 1} have the same target and {what}",
                            hint="give one of them a target of its own",
                        )
                    )
                    break
        return findings

    @classmethod
    def commands(cls) -> typer.Typer | None:
        from headrace.sinks.commands import app

        return app


async def _run_one(sink: Sink) -> DeliveryError | None:
    try:
        await sink.run()
    except DeliveryError as error:
        return error
    return None
