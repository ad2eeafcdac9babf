"""Runs a pipeline: a process for each part, an order to start and to drain them in.

Start: the stream first; the others once it answers. A part that dies is started again with
backoff, as often as it takes. Drain, on SIGTERM or SIGINT: agent, triggers, sinks, stream, each
with a bounded grace; the parts still needed are kept alive while the ones before them drain. A
second signal ends everything at once, which the parts survive by their own promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from headrace.core.clock import Clock, SystemClock
from headrace.pipeline.config.pipeline_file import PipelineFile
from headrace.pipeline.control import HEALTH_PERIOD_MS, StartPacket
from headrace.pipeline.keeper import Keeper, KeeperSettings
from headrace.pipeline.locks import exclusive
from headrace.pipeline.logs import Prefixed
from headrace.pipeline.parts import DRAIN_ORDER, START_ORDER, PartTable, in_order
from headrace.pipeline.status import PipelineStatus, write_status
from headrace.pipeline.waiting import first_of

LOCK_FILE = "headrace.lock"

#: Between two complaints that the status cannot be written (a full disk lasts a while).
_COMPLAINT_PERIOD_MS = 30_000


class Supervisor:
    """Runs a pipeline until a signal, or until it cannot be kept running."""

    def __init__(
        self,
        pipeline: PipelineFile,
        parts: PartTable,
        log: Prefixed,
        *,
        settings: KeeperSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._log = log
        self._clock = clock or SystemClock()
        self._started_ms = self._clock.now_ms()
        self._state = "starting"
        #: Set once every part has reported that it is well.
        self.running = asyncio.Event()
        self._asked = asyncio.Event()
        self._forced = asyncio.Event()
        self._keepers: dict[str, Keeper] = {}
        for section in in_order(pipeline.running_sections(), START_ORDER):
            packet = StartPacket(
                section=section,
                reference=parts.reference(section),
                values=pipeline.raw[section],
                data=pipeline.data,
                base=pipeline.base,
                target=pipeline.target,
            )
            keeper = Keeper(packet, settings or KeeperSettings(), self._clock, log.line)
            self._keepers[section] = keeper

    def listen_to_signals(self) -> None:
        """Let SIGTERM and SIGINT stop it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    @property
    def was_forced(self) -> bool:
        """Whether a second signal ended it before everything was drained."""
        return self._forced.is_set()

    def stop(self) -> None:
        """Drain, as on a signal. Called again, end everything at once."""
        if self._asked.is_set():
            self._forced.set()
        self._asked.set()

    async def run(self) -> None:
        """Supervise until drained.

        Raises:
            StorageLocked: another pipeline runs on the same data folder.
            ConfigError: a part cannot use its configuration.
            HeadraceError: the stream never came up.
        """
        with exclusive(self._pipeline.data / LOCK_FILE, purpose="a pipeline"):
            tasks = [asyncio.create_task(self._tell()), asyncio.create_task(self._give_up())]
            try:
                await self._start()
                await self._asked.wait()
                self._state = "draining"
                await self._drain()
            finally:
                for task in tasks:
                    task.cancel()
                for keeper in self._keepers.values():
                    keeper.kill()
                self._state = "stopped"
                with contextlib.suppress(OSError):  # then the last one grows stale
                    write_status(self._pipeline.data, self.status())
        for keeper in self._keepers.values():
            if keeper.failure is not None:
                raise keeper.failure

    async def _start(self) -> None:
        self._say(f"data in {self._pipeline.data}")
        if "stream" not in self._keepers:
            self._say(f"the stream is not run here; using {self._pipeline.target.endpoint}")
        for keeper in self._keepers.values():
            if self._asked.is_set():
                return
            keeper.start()
            if keeper.section == "stream":
                await first_of(keeper.ready, self._asked)
        for keeper in self._keepers.values():
            await first_of(keeper.ready, self._asked)
        if not self._asked.is_set():
            self._state = "running"
            self.running.set()
            names = ", ".join(self._keepers)
            self._say(f"running: {names}; the stream is at {self._pipeline.target.endpoint}")

    async def _drain(self) -> None:
        self._say("draining; a second signal ends everything at once")
        for section in in_order(self._keepers, DRAIN_ORDER):
            await self._keepers[section].drain(self._forced)
        self._say("stopped")

    async def _give_up(self) -> None:
        """Drain everything when one part cannot be helped."""
        await first_of(*(keeper.hopeless for keeper in self._keepers.values()))
        self._asked.set()

    def _on_signal(self, number: signal.Signals) -> None:
        again = "again: ending everything at once" if self._asked.is_set() else "received"
        self._say(f"{number.name} {again}")
        self.stop()

    async def _tell(self) -> None:
        complained_ms = -_COMPLAINT_PERIOD_MS
        while True:
            try:
                write_status(self._pipeline.data, self.status())
            except OSError as error:
                now_ms = self._clock.monotonic_ms()
                if now_ms - complained_ms >= _COMPLAINT_PERIOD_MS:
                    complained_ms = now_ms
                    self._say(f"status.json cannot be written: {error.strerror}")
            await asyncio.sleep(HEALTH_PERIOD_MS / 1000)

    def status(self) -> PipelineStatus:
        """What every part is doing now."""
        return PipelineStatus(
            state=self._state,
            pid=os.getpid(),
            file=str(self._pipeline.path),
            endpoint=self._pipeline.target.endpoint,
            started_ms=self._started_ms,
            updated_ms=self._clock.now_ms(),
            parts=tuple(keeper.status() for keeper in self._keepers.values()),
        )

    def _say(self, text: str) -> None:
        self._log.line("headrace", text)
