"""The agent as a part of a pipeline: the YAML section `agent`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from headrace.agent.agent import Agent
from headrace.agent.config import AgentConfig
from headrace.agent.flow import Putter
from headrace.agent.globs import Glob
from headrace.agent.shipper import stream_problem
from headrace.core.client import StreamClient
from headrace.core.errors import HeadraceError, ResourceNotFound
from headrace.core.part import Finding, Health, Part, PartContext
from headrace.core.producer import Producer
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.agent")


class AgentPart(Part):
    """Tails files into streams, every line once (see the room's README for what that takes)."""

    section = "agent"
    schema = AgentConfig

    def __init__(self, config: AgentConfig, context: PartContext) -> None:
        super().__init__(config, context)
        self._troubles = Troubles(log, context.clock)
        self._stopping = asyncio.Event()
        self._agent: Agent | None = None

    async def run(self) -> None:
        """Tail until stopped.

        Raises:
            StorageLocked: another agent works with the data folder.
            StorageError: the positions cannot be used.
        """
        context = self.context
        context.data.mkdir(parents=True, exist_ok=True)
        async with StreamClient(context.target) as client:

            def producer(stream: str) -> Putter:
                return Producer(
                    client,
                    stream,
                    clock=context.clock,
                    on_retry=lambda error: self._report_retry(stream, error),
                )

            agent = Agent(
                self.config,
                data=context.data,
                base=context.base,
                clock=context.clock,
                putter=producer,
                troubles=self._troubles,
            )
            agent.open()
            self._agent = agent
            if self._stopping.is_set():
                await agent.stop()
            try:
                await agent.run()
            finally:
                await agent.close()

    async def stop(self) -> None:
        """Finish the puts under way, store positions, let `run` return."""
        self._stopping.set()
        if self._agent is not None:
            await self._agent.stop()

    def health(self) -> Health:
        """How far it is: lines and bytes shipped, bytes behind, files open, problems."""
        if self._agent is None:
            return Health(ok=False, problems=("starting",))
        return self._agent.health()

    @classmethod
    def check(
        cls, config: AgentConfig, *, base: Path, streams: Sequence[str] | None
    ) -> list[Finding]:
        """Streams that are not declared, folders that are not there."""
        findings: list[Finding] = []
        for number, flow in enumerate(config.flows):
            for key, stream in (("stream", flow.stream), ("dead_letter", flow.dead_letter)):
                if stream is not None and streams is not None and stream not in streams:
                    findings.append(
                        Finding(
                            ("flows", number, key),
                            f"there is no stream {stream}",
                            hint=f"declare it under stream.streams: {stream}: {{}}",
                        )
                    )
            for pattern in flow.patterns:
                root = Glob(pattern, base=base).root
                if not root.is_dir():
                    findings.append(
                        Finding(
                            ("flows", number, "files"),
                            f"{pattern} matches nothing: there is no folder {root}",
                            hint="it is picked up once the folder exists",
                            is_error=False,
                        )
                    )
        return findings

    def _report_retry(self, stream: str, error: HeadraceError) -> None:
        hint = ""
        if isinstance(error, ResourceNotFound):
            hint = f"; create it with `headrace streams create {stream}`, lines wait until then"
        self._troubles.report(
            stream_problem(stream),
            f"cannot put to stream {stream} at {self.context.target.endpoint}: {error}{hint}",
        )
