"""Runs one part in this process: `headrace agent FILE`, and every child of the supervisor.

Exit codes: 0 drained, 1 the part failed, 2 its configuration cannot be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.part import Part, PartContext
from headrace.pipeline.control import (
    HEALTH_PERIOD_MS,
    ControlSocket,
    StartPacket,
    encode_health,
)
from headrace.pipeline.locks import exclusive
from headrace.pipeline.logs import log_to_stderr
from headrace.pipeline.parts import load_part

#: After the supervisor is gone: time for an orderly end. Parts survive a kill -9 anyway.
ORPHAN_GRACE_S = 5.0

#: A part of a killed supervisor may still be draining when the next one starts.
LOCK_WAIT_MS = 10_000

_log = logging.getLogger("headrace.pipeline")


def host_child(descriptor: int) -> int:
    """The whole life of a supervisor's child. Returns the exit code."""
    # Ctrl-C is the supervisor's to handle; it decides who stops when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = ControlSocket(socket.socket(fileno=descriptor))
    line = control.read_line()
    if not line:
        return 1  # the supervisor died before it could say anything
    packet = StartPacket.decode(line)
    log_to_stderr()
    return _guarded(lambda: _host(packet, control), packet.section)


def host_alone(packet: StartPacket) -> int:
    """Run one part in the foreground until SIGTERM or SIGINT; a second one ends it at once."""
    return _guarded(lambda: _host(packet, None), packet.section)


def _guarded(run: Callable[[], None], section: str) -> int:
    """Map what a part raises to an exit code, once, with words."""
    try:
        run()
    except ConfigError as error:
        _log.error("%s: %s", section, error)
        return 2
    except HeadraceError as error:
        _log.error("%s: %s", section, error)
        return 1
    except OSError as error:
        _log.error("%s: %s", section, error)
        _log.debug("where it happened", exc_info=True)
        return 1
    except Exception:
        _log.exception("%s: failed", section)
        return 1
    return 0


def _host(packet: StartPacket, control: ControlSocket | None) -> None:
    cls = load_part(packet.reference)
    try:
        config = TypeAdapter(cls.schema).validate_python(packet.values)
    except ValidationError as error:
        raise ConfigError(f"the section changed under way: {error.error_count()} errors") from None
    data: Path = packet.data / packet.section
    data.mkdir(parents=True, exist_ok=True)
    context = PartContext(data=data, base=packet.base, target=packet.target)
    lock = packet.data / f"{packet.section}.lock"
    wait_ms = 0 if control is None else LOCK_WAIT_MS
    with (
        exclusive(lock, purpose=f"the part {packet.section}", wait_ms=wait_ms),
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_live(cls, config, context, control))


async def _live(
    cls: type[Part], config: Any, context: PartContext, control: ControlSocket | None
) -> None:
    part = cls(config, context)
    stopper = _Stopper(part.stop)
    stopper.listen_to_signals(is_alone=control is None)
    if control is not None:
        stopper.listen_to(control)
    running = asyncio.create_task(part.run())
    telling = asyncio.create_task(_tell(part, control)) if control is not None else None
    try:
        await running
    finally:
        if telling is not None:
            telling.cancel()
        await stopper.finish()
        if control is not None:
            with contextlib.suppress(OSError):
                control.send(encode_health(part.health()))  # the figures it ends with


async def _tell(part: Part, control: ControlSocket) -> None:
    """Send the part's health up, about once a second, off the loop's thread."""
    while True:
        line = encode_health(part.health())
        try:
            await asyncio.to_thread(control.send, line)
        except OSError:
            return  # the supervisor is gone; the reader's thread deals with it
        await asyncio.sleep(HEALTH_PERIOD_MS / 1000)


class _Stopper:
    """Turns a signal, a `stop` on the socket, or the supervisor's death into one `part.stop()`."""

    def __init__(self, stop: Callable[[], Awaitable[None]]) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def listen_to_signals(self, *, is_alone: bool) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._on_signal, is_alone)
        if is_alone:
            self._loop.add_signal_handler(signal.SIGINT, self._on_signal, is_alone)

    def listen_to(self, control: ControlSocket) -> None:
        """Watch the socket from a thread: it answers even when the loop is busy or stuck."""
        threading.Thread(target=self._watch, args=(control,), daemon=True).start()

    async def finish(self) -> None:
        """Let a `stop` that is under way end, so that its failure is not lost."""
        if self._task is not None:
            await self._task

    def _watch(self, control: ControlSocket) -> None:
        if control.read_line():
            self._ask_from_thread()
            control.read_line()  # returns when the supervisor closes, or is gone
        self._ask_from_thread()
        timer = threading.Timer(ORPHAN_GRACE_S, _end_group)
        timer.daemon = True
        timer.start()

    def _ask_from_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped already
            self._loop.call_soon_threadsafe(self._ask)

    def _on_signal(self, is_alone: bool) -> None:
        if is_alone and self._task is not None:
            _log.warning("second signal: ending at once")
            os._exit(1)
        self._ask()

    def _ask(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        await self._stop()


def _end_group() -> None:
    """End this child and everything it started, now. Children lead their own process group."""
    os.killpg(os.getpid(), signal.SIGKILL)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
