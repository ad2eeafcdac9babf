"""What a worker prints: into the log line by line, and kept for the dead letter.

A handler may print without end. Per invocation so many lines are logged and so much of the tail
is kept; the rest is counted. Reading never stops, so a handler is never blocked by its output.
"""

from __future__ import annotations

import asyncio
import logging
import os

KEPT_BYTES = 64 * 1024
LOGGED_LINES = 1_000
MAX_LINE_BYTES = 8 * 1024  # a longer one is logged in pieces
_READ_BYTES = 64 * 1024
_DRAIN_READS = 32  # what a pipe can hold, many times; a thread that prints on must not hold us

_log = logging.getLogger("headrace.triggers.function")


class Output:
    """The reading end of a worker's stdout and stderr. Belongs to the running event loop."""

    def __init__(self, fd: int, function_name: str) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._name = function_name
        self._kept = bytearray()
        self._line = bytearray()
        self._lines = 0
        self._left_out_bytes = 0
        self._is_open = True
        asyncio.get_running_loop().add_reader(fd, self._read)

    def begin(self) -> None:
        """A new invocation: its own tail and its own allowance of lines."""
        self._note_left_out()
        self._kept.clear()
        self._lines = 0

    def drain(self) -> None:
        """Take over what is in the pipe by now."""
        for _ in range(_DRAIN_READS):
            if not self._is_open or not self._read():
                return

    def text(self) -> str:
        """The tail of what the current invocation printed, up to 64 KiB."""
        return self._kept.decode(errors="replace")

    def close(self) -> None:
        self.drain()
        self._shut()

    def _read(self) -> bool:
        """One read. False when there is nothing to read now."""
        try:
            chunk = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._shut()
            return False
        self._kept += chunk
        if len(self._kept) > KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]
        self._line += chunk
        *lines, rest = self._line.split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            del rest[:MAX_LINE_BYTES]
        self._line = rest
        for line in lines:
            self._log_line(bytes(line))
        return True

    def _log_line(self, line: bytes) -> None:
        if self._lines >= LOGGED_LINES:
            self._left_out_bytes += len(line) + 1
            return
        self._lines += 1
        _log.info("[%s] %s", self._name, line.decode(errors="replace"))

    def _note_left_out(self) -> None:
        if self._left_out_bytes:
            _log.info(
                "[%s] (%d more bytes of output not logged: over %d lines in one invocation)",
                self._name,
                self._left_out_bytes,
                LOGGED_LINES,
            )
            self._left_out_bytes = 0

    def _shut(self) -> None:
        """At the end of the output, or when nobody wants the rest of it."""
        if not self._is_open:
            return
        self._is_open = False
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        if self._line:
            self._log_line(bytes(self._line))
            self._line.clear()
        self._note_left_out()
