"""A part that does what its section says: come up late, drain slowly, die, hang.

For tests of what runs parts. It journals what happens to it, so that a test can read the order of
events over all processes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.part import Finding, Health, Part, PartContext

if TYPE_CHECKING:
    import typer


class Script(BaseModel):
    """What a scripted part shall do. Times are milliseconds."""

    model_config = ConfigDict(extra="forbid")

    journal: str
    ready_after_ms: int = 0
    drain_ms: int = 0
    fail_after_ms: int | None = None
    fails_to_configure: bool = False
    ignores_stop: bool = False
    starts_helper: bool = False
    problem: str | None = None
    stream: str | None = None


class ScriptedPart(Part):
    """Writes `section pid event [detail]` to its journal, a line an event."""

    section = "scripted"
    schema = Script

    config: Script

    def __init__(self, config: Script, context: PartContext) -> None:
        super().__init__(config, context)
        self._stopping = asyncio.Event()
        self._is_ready = False

    async def run(self) -> None:
        script = self.config
        self._note("run")
        if script.fails_to_configure:
            raise ConfigError("there is no such bucket")
        if script.starts_helper:
            code = "import time; time.sleep(600)"
            helper = subprocess.Popen([sys.executable, "-c", code])  # noqa: ASYNC220
            self._note(f"helper {helper.pid}")
        await asyncio.sleep(script.ready_after_ms / 1000)
        self._is_ready = True
        self._note("ready")
        print(f"{self.section} says hello", flush=True)
        if script.fail_after_ms is not None:
            await asyncio.sleep(script.fail_after_ms / 1000)
            raise HeadraceError("the script says so")
        await self._stopping.wait()
        await asyncio.sleep(script.drain_ms / 1000)
        self._note("drained")

    async def stop(self) -> None:
        self._note("stop")
        if not self.config.ignores_stop:
            self._stopping.set()

    def health(self) -> Health:
        problems = (self.config.problem,) if self.config.problem else ()
        return Health(ok=self._is_ready, figures={"answer": 42}, problems=problems)

    @classmethod
    def check(cls, config: Script, *, base: Path, streams: Sequence[str] | None) -> list[Finding]:
        if config.stream is None or streams is None or config.stream in streams:
            return []
        message = f"no stream is called {config.stream}"
        return [Finding(("stream",), message, f"declared are: {', '.join(streams)}")]

    @classmethod
    def commands(cls) -> typer.Typer:
        import typer

        verbs = typer.Typer()

        @verbs.command()
        def greet(name: str) -> None:
            """Say hello."""
            print(f"{cls.section} says hello to {name}")

        return verbs

    def _note(self, event: str) -> None:
        line = f"{self.section} {os.getpid()} {event} {time.time():.3f}\n"
        with Path(self.config.journal).open("a", encoding="utf-8") as journal:
            journal.write(line)


class ScriptedStream(ScriptedPart):
    section = "stream"


class ScriptedAgent(ScriptedPart):
    section = "agent"


class ScriptedTriggers(ScriptedPart):
    section = "triggers"


class ScriptedSinks(ScriptedPart):
    section = "sinks"


SCRIPTED = {
    cls.section: f"headrace.pipeline.testing:{cls.__name__}"
    for cls in (ScriptedStream, ScriptedAgent, ScriptedTriggers, ScriptedSinks)
}
