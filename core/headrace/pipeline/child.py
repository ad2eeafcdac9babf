"""One part's process as the supervisor sees it: start, health, log lines, stop, kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

from headrace.core.clock import Clock
from headrace.core.part import Health
from headrace.pipeline.control import STOP, StartPacket, decode_health
from headrace.pipeline.logs import LineSplitter

#: A health line beyond this is a part gone mad; its connection is dropped.
_HEALTH_LINE_MAX_BYTES = 1024 * 1024

#: For a dead part's log to run dry; something that left its group may hold the pipe open.
_LAST_WORDS_S = 2.0


class Child:
    """A started process. `exited` is set once it is reaped and its last log line is out.

    The process leads a group of its own, so that Ctrl-C in a terminal reaches only the
    supervisor, and so that nothing it started outlives it.
    """

    def __init__(self, process: asyncio.subprocess.Process, clock: Clock) -> None:
        self._process = process
        self._clock = clock
        self._writer: asyncio.StreamWriter | None = None
        self._lines = LineSplitter()
        self._tasks: list[asyncio.Task[None]] = []
        self._was_asked = False
        self.started_ms = clock.now_ms()
        self.started_monotonic_ms = clock.monotonic_ms()
        self.health: Health | None = None
        self.heard_monotonic_ms = self.started_monotonic_ms
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()

    @classmethod
    async def start(
        cls,
        packet: StartPacket,
        *,
        clock: Clock,
        on_line: Callable[[str], None],
    ) -> Child:
        """Start a part's process. Raises OSError when the system refuses."""
        ours, theirs = socket.socketpair()
        # A pipe of our own: asyncio's would hold back the news of the process's end for as long
        # as anything that it started keeps the pipe open.
        log_end, child_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headrace.pipeline",
                "run-part",
                packet.section,
                "--control",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=child_end,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except BaseException:
            ours.close()
            os.close(log_end)
            raise
        finally:
            theirs.close()
            os.close(child_end)
        child = cls(process, clock)
        child._tasks = [
            asyncio.create_task(child._read_log(log_end, on_line)),
            asyncio.create_task(child._reap()),
            asyncio.create_task(child._talk(ours, packet)),
        ]
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As the shell has it: minus the signal's number when a signal ended it."""
        return self._process.returncode

    @property
    def last_lines(self) -> list[str]:
        return list(self._lines.tail)

    def ask_to_stop(self) -> None:
        """Ask for an orderly end. Asking again, or asking a dead one, is nothing."""
        self._was_asked = True
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(STOP)

    def kill(self) -> None:
        """End it and everything it started, now."""
        if self.exited.is_set():
            return  # the group's number may be somebody else's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _talk(self, connection: socket.socket, packet: StartPacket) -> None:
        reader, writer = await asyncio.open_connection(
            sock=connection, limit=_HEALTH_LINE_MAX_BYTES
        )
        try:
            writer.write(packet.encode())
            if self._was_asked:
                writer.write(STOP)
            self._writer = writer
            with contextlib.suppress(OSError, ValueError):
                while line := await reader.readline():
                    self.health = decode_health(line)
                    self.heard_monotonic_ms = self._clock.monotonic_ms()
                    if self.health.ok:
                        self.ready.set()
        finally:
            self._writer = None
            writer.close()

    async def _read_log(self, log_end: int, on_line: Callable[[str], None]) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(log_end, "rb", buffering=0)
        )
        try:
            while data := await reader.read(65536):
                for line in self._lines.feed(data):
                    on_line(line)
            for line in self._lines.end():
                on_line(line)
        finally:
            transport.close()

    async def _reap(self) -> None:
        await self._process.wait()
        self.kill()  # whatever it started and left behind; also lets go of the log pipe
        reading = self._tasks[0]
        await asyncio.wait((reading,), timeout=_LAST_WORDS_S)
        reading.cancel()
        self.exited.set()
