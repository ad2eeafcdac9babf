"""Log lines: how a process writes them, and how the supervisor passes on its children's."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from typing import TextIO

TAIL_LINES = 20
_LINE_MAX_BYTES = 64 * 1024
_COLORS = {"headrace": 36, "stream": 34, "sinks": 35, "triggers": 33, "agent": 32}


def log_to_stderr(level: int | None = None) -> None:
    """Plain lines with the time, to stderr. `HEADRACE_LOG=debug` shows more."""
    name = os.environ.get("HEADRACE_LOG", "info").upper()
    chosen = level if level is not None else logging.getLevelNamesMapping().get(name, logging.INFO)
    logging.basicConfig(
        level=chosen,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(message)s",
        force=True,
    )
    # These report every request or every reload of a credential at INFO.
    for noisy in ("botocore", "aiobotocore", "urllib3", "watchdog", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(max(chosen, logging.WARNING))


class Prefixed:
    """Writes whole lines of several sources to one stream, each with its source's name.

    Colored only on a terminal, and not where NO_COLOR is set.
    """

    def __init__(self, stream: TextIO, names: list[str]) -> None:
        self._stream = stream
        self._width = max(map(len, [*names, "headrace"]))
        self._lock = threading.Lock()
        self._has_color = stream.isatty() and "NO_COLOR" not in os.environ

    def line(self, name: str, text: str) -> None:
        prefix = f"{name:<{self._width}} |"
        if self._has_color:
            prefix = f"\x1b[{_COLORS.get(name, 37)}m{prefix}\x1b[0m"
        with self._lock:
            try:
                self._stream.write(f"{prefix} {text}\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass  # nobody reads any more (closed terminal, broken pipe): go on working


class LineSplitter:
    """Bytes as they come off a pipe -> whole lines; the last ones are kept for a post-mortem."""

    def __init__(self) -> None:
        self._rest = b""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, data: bytes) -> list[str]:
        """Lines completed by `data`. A line beyond 64 KiB is cut into several."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_MAX_BYTES:
            whole.append(self._rest)
            self._rest = b""
        return self._keep(whole)

    def end(self) -> list[str]:
        """What was left without a newline."""
        rest, self._rest = self._rest, b""
        return self._keep([rest] if rest else [])

    def _keep(self, lines: list[bytes]) -> list[str]:
        out = [line.rstrip(b"\r").decode(errors="replace") for line in lines]
        self.tail.extend(out)
        return out
