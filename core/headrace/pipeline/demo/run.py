"""The demo from start to reckoning: web server, visitors, rotations, pipeline, what landed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from headrace.core.errors import HeadraceError
from headrace.pipeline.config.pipeline_file import read_pipeline
from headrace.pipeline.demo.folder import DemoFolder
from headrace.pipeline.demo.screen import Screen
from headrace.pipeline.demo.traffic import Traffic, rotate
from headrace.pipeline.logs import Prefixed
from headrace.pipeline.parts import PartTable
from headrace.pipeline.reckoning import Reckoning
from headrace.pipeline.supervisor import Supervisor

START_TIMEOUT_S = 60.0
LANDING_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 90.0
_POLL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to run. `folder` is emptied first if an earlier demo made it."""

    folder: Path
    seconds: float = 10.0
    requests_per_second: int = 300
    rotations: int = 4
    #: Kill -9 one part after the other while requests are made, the stream too.
    kills: bool = False
    seed: int = 20261122


@dataclass(slots=True, kw_only=True)
class DemoResult:
    """What came of it. `answered` is by status, as the visitors saw it; `rows` as it landed."""

    access: Reckoning
    alerts: Reckoning
    answered: Counter[int] = field(default_factory=Counter)
    killed: tuple[str, ...] = ()
    rows: Counter[int] = field(default_factory=Counter)
    files: int = 0

    @property
    def is_even(self) -> bool:
        return self.access.is_even and self.alerts.is_even


class Demo:
    """One run. The folders of a finished one stay for looking at."""

    def __init__(self, options: DemoOptions, parts: PartTable, screen: Screen) -> None:
        self._options = options
        self._parts = parts
        self._screen = screen
        self._folder = DemoFolder(options.folder)
        self._killed: list[str] = []

    @property
    def log_file(self) -> Path:
        """Where the pipeline's own log goes."""
        return self._folder.log_file

    async def run(self) -> DemoResult:
        """Run it all.

        Raises:
            ConfigError: the folder is not empty, and no demo made it.
            HeadraceError: the web server or the pipeline did not start, or ended under way.
        """
        file = self._folder.prepare()
        pipeline = read_pipeline(file, self._parts)
        with self.log_file.open("w", encoding="utf-8") as log:
            prefixed = Prefixed(log, pipeline.running_sections())
            supervisor = Supervisor(pipeline, self._parts, prefixed)
            async with web_server(self._folder.logs / "access.log") as url:
                self._screen.done("web server", url)
                supervising = asyncio.create_task(supervisor.run())
                try:
                    await self._until_running(supervisor, supervising)
                    answered = await self._traffic(url, supervisor, supervising)
                    await self._landing(supervisor, supervising, answered.total())
                finally:
                    await self._drain(supervisor, supervising)
        return self._result(answered)

    async def _until_running(self, supervisor: Supervisor, supervising: asyncio.Task[None]) -> None:
        began = time.monotonic()
        running = asyncio.create_task(supervisor.running.wait())
        await asyncio.wait(
            (running, supervising),
            timeout=START_TIMEOUT_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        running.cancel()
        self._check_alive(supervising)
        if not supervisor.running.is_set():
            slow = [
                f"{part.part} is {part.state} {' '.join(part.problems)}".rstrip()
                for part in supervisor.status().parts
                if part.state != "running"
            ]
            raise HeadraceError(
                f"not running after {START_TIMEOUT_S:.0f} s: {'; '.join(slow)}",
                hint=f"see {self.log_file}",
            )
        parts = ", ".join(part.part for part in supervisor.status().parts)
        self._screen.done("pipeline", f"{parts}: running after {time.monotonic() - began:.1f} s")

    async def _traffic(
        self, url: str, supervisor: Supervisor, supervising: asyncio.Task[None]
    ) -> Counter[int]:
        options = self._options
        traffic = Traffic(
            url,
            requests_per_second=options.requests_per_second,
            seconds=options.seconds,
            seed=options.seed,
        )
        began = time.monotonic()
        with self._screen.progress("requests", traffic.total) as advance:
            beside = [asyncio.create_task(self._rotate())]
            if options.kills:
                beside.append(asyncio.create_task(self._kill(supervisor)))
            try:
                await traffic.run(advance)
            except aiohttp.ClientError as error:
                raise HeadraceError(f"the demo's web server went away: {error}") from error
            finally:
                for task in beside:
                    task.cancel()
        self._check_alive(supervising)
        took_s = time.monotonic() - began
        rotations = len(list(self._folder.logs.glob("access.log.*")))
        self._screen.done(
            "requests",
            f"{traffic.total:,} answered in {took_s:.1f} s ({traffic.total / took_s:,.0f}/s), "
            f"the log rotated {rotations} times meanwhile",
        )
        if self._killed:
            self._screen.done("killed", f"{', '.join(self._killed)}: each with kill -9, meanwhile")
        return traffic.answered

    async def _rotate(self) -> None:
        pause_s = self._options.seconds / (self._options.rotations + 1)
        for _ in range(self._options.rotations):
            await asyncio.sleep(pause_s)
            with contextlib.suppress(FileNotFoundError):  # nothing written since the last one
                rotate(self._folder.logs)

    async def _kill(self, supervisor: Supervisor) -> None:
        """Kill every part once, without warning, spread over the time of the requests."""
        parts = [part.part for part in supervisor.status().parts]
        pause_s = self._options.seconds / (len(parts) + 1)
        for name in parts:
            await asyncio.sleep(pause_s)
            pid = next(p.pid for p in supervisor.status().parts if p.part == name)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self._killed.append(name)

    async def _landing(
        self, supervisor: Supervisor, supervising: asyncio.Task[None], total: int
    ) -> None:
        """Wait until every line has its row, or time is up: then the reckoning tells."""
        began = time.monotonic()
        with self._screen.progress("landing", total) as advance:
            while True:
                access, alerts = await asyncio.to_thread(self._folder.reckon)
                advance(min(access.rows, total))
                took_s = time.monotonic() - began
                if access.lines >= total and access.missing == 0 and alerts.missing == 0:
                    break
                self._check_alive(supervising)
                if took_s > LANDING_TIMEOUT_S:
                    break
                await asyncio.sleep(_POLL_S)
        if access.missing or alerts.missing:
            self._screen.warn(
                f"after {took_s:.0f} s {access.missing} of {access.lines} lines and "
                f"{alerts.missing} of {alerts.lines} alerts have not landed; see {self.log_file}"
            )
            for part in supervisor.status().parts:
                for problem in part.problems:
                    self._screen.warn(f"{part.part}: {problem}")
            return
        self._screen.done(
            "landed", f"{access.rows:,} rows, the last one {took_s:.1f} s after the last request"
        )

    async def _drain(self, supervisor: Supervisor, supervising: asyncio.Task[None]) -> None:
        began = time.monotonic()
        supervisor.stop()
        done, _ = await asyncio.wait((supervising,), timeout=DRAIN_TIMEOUT_S)
        if not done:
            supervisor.stop()
        with contextlib.suppress(HeadraceError):  # it ended by itself; that is said already
            await supervising
        self._screen.done("drained", f"in {time.monotonic() - began:.1f} s")

    def _check_alive(self, supervising: asyncio.Task[None]) -> None:
        if supervising.done():
            reason = supervising.exception() or "it ended"
            raise HeadraceError(f"the pipeline failed: {reason}", hint=f"see {self.log_file}")

    def _result(self, answered: Counter[int]) -> DemoResult:
        # from the files as they are now, not as they were under way
        access, alerts = self._folder.reckon(anew=True)
        return DemoResult(
            access=access,
            alerts=alerts,
            answered=answered,
            killed=tuple(self._killed),
            rows=self._folder.answers(),
            files=len(self._folder.files()),
        )


@contextlib.asynccontextmanager
async def web_server(log_file: Path) -> AsyncIterator[str]:
    """The demo's web server in a process of its own; ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.pipeline.demo.site",
        str(log_file),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise HeadraceError("the demo's web server did not start")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
