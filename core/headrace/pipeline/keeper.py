"""Keeps one part running: starts its process, starts it again when it dies, drains it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass

from headrace.core.clock import Clock
from headrace.core.errors import ConfigError, HeadraceError
from headrace.pipeline.child import Child
from headrace.pipeline.control import StartPacket
from headrace.pipeline.status import PartStatus
from headrace.pipeline.waiting import first_of

Say = Callable[[str, str], None]
"""Takes a source's name and a line of text."""

_POST_MORTEM_LINES = 5
_CONFIG_EXIT_CODE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Times and counts, for all parts alike."""

    restart_initial_ms: int = 500
    restart_max_ms: int = 30_000
    #: A part that ran this long had recovered; its next death starts the backoff over.
    steady_ms: int = 60_000
    #: What a part gets to drain before it is killed (and loses nothing by it).
    grace_ms: int = 20_000
    #: Deaths of the stream before it ever answered, after which starting is given up.
    start_attempts: int = 3
    #: Without a word of its health for this long a part is called silent.
    silent_ms: int = 5_000


class Keeper:
    """One part under supervision.

    `ready` is set when the part first reports that it is well; `hopeless` when starting it again
    cannot help, with the reason in `failure`.
    """

    def __init__(
        self, packet: StartPacket, settings: KeeperSettings, clock: Clock, say: Say
    ) -> None:
        self.section = packet.section
        self.ready = asyncio.Event()
        self.hopeless = asyncio.Event()
        self.failure: HeadraceError | None = None
        self._packet = packet
        self._settings = settings
        self._clock = clock
        self._say = say
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._is_killed = False
        self._is_waiting = False
        self._restarts = 0
        self._attempt = 0
        self._since_ms = clock.now_ms()

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def drain(self, forced: asyncio.Event) -> None:
        """Ask the part to stop and wait for its end; kill it after its grace, or when forced."""
        self._stopping.set()
        if self._task is None:
            return
        if self._child is not None:
            self._child.ask_to_stop()
        began_ms = self._clock.monotonic_ms()
        grace = asyncio.create_task(self._clock.sleep_ms(self._settings.grace_ms))
        await first_of(self._task, grace, forced)
        grace.cancel()
        if self._task.done():
            took_ms = self._clock.monotonic_ms() - began_ms
            self._say("headrace", f"{self.section} drained in {took_ms / 1000:.1f} s")
        elif not forced.is_set():
            seconds = self._settings.grace_ms / 1000
            self._say("headrace", f"{self.section} did not drain within {seconds:g} s; killed")
        self.kill()
        await self._task

    def kill(self) -> None:
        """End the part's process, and all it started, now."""
        self._is_killed = True
        self._stopping.set()
        if self._child is not None:
            self._child.kill()

    def status(self) -> PartStatus:
        child = self._child if self._child and not self._child.exited.is_set() else None
        health = child.health if child else None
        last = self._child.health if self._child else None
        return PartStatus(
            part=self.section,
            state=self._state(child),
            pid=child.pid if child else None,
            restarts=self._restarts,
            since_ms=self._since_ms,
            figures=last.figures if last else {},
            problems=health.problems if health else (),
        )

    def _state(self, child: Child | None) -> str:
        if child is None:
            if self._stopping.is_set():
                return "drained"
            return "waiting" if self._is_waiting else "starting"
        if self._clock.monotonic_ms() - child.heard_monotonic_ms > self._settings.silent_ms:
            return "silent"
        if child.health is None or not child.ready.is_set():
            return "starting"
        return "running" if child.health.ok else "troubled"

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            child = await self._spawn()
            if child is None:
                continue
            await first_of(child.exited, child.ready)
            if child.ready.is_set():
                self.ready.set()
            await child.exited.wait()
            if self._stopping.is_set() or self._is_hopeless(child):
                return
            await self._back_off(child)

    async def _spawn(self) -> Child | None:
        try:
            child = await Child.start(
                self._packet, clock=self._clock, on_line=lambda t: self._say(self.section, t)
            )
        except OSError as error:  # out of memory or of processes: both pass
            words = f"{self.section} cannot be started: {error.strerror}; trying again"
            self._say("headrace", words)
            await self._wait(self._settings.restart_max_ms)
            return None
        self._child = child
        self._since_ms = child.started_ms
        if self._is_killed:
            child.kill()
        elif self._stopping.is_set():
            child.ask_to_stop()
        return child

    def _is_hopeless(self, child: Child) -> bool:
        """Whether it never came up and never will. What was well once may be so again."""
        if self.ready.is_set():
            return False
        attempts = self._settings.start_attempts
        last = child.last_lines[-1] if child.last_lines else _exit_words(child.exit_code)
        if child.exit_code == _CONFIG_EXIT_CODE:
            self.failure = ConfigError(f"{self.section} cannot use its configuration: {last}")
        elif (
            self.section == "stream" and not self.ready.is_set() and self._restarts + 1 >= attempts
        ):
            words = f"the stream did not come up in {attempts} attempts: {last}"
            self.failure = HeadraceError(words)
        else:
            return False
        self.hopeless.set()
        return True

    async def _back_off(self, child: Child) -> None:
        settings = self._settings
        lived_ms = self._clock.monotonic_ms() - child.started_monotonic_ms
        if lived_ms >= settings.steady_ms:
            self._attempt = 0
        delay_ms = min(settings.restart_initial_ms * 2**self._attempt, settings.restart_max_ms)
        self._attempt = min(self._attempt + 1, 16)
        self._restarts += 1
        self._say(
            "headrace",
            f"{self.section} {_exit_words(child.exit_code)} after {lived_ms / 1000:.1f} s; "
            f"starting it again in {delay_ms / 1000:.1f} s. Its last lines:",
        )
        for line in child.last_lines[-_POST_MORTEM_LINES:] or ["(none)"]:
            self._say("headrace", f"    {line}")
        await self._wait(delay_ms)

    async def _wait(self, delay_ms: int) -> None:
        self._is_waiting = True
        slept = asyncio.create_task(self._clock.sleep_ms(delay_ms))
        await first_of(slept, self._stopping)
        slept.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await slept
        self._is_waiting = False


def _exit_words(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return "ended by itself" if code == 0 else f"failed (exit code {code})"
