"""`headrace serve` as a real process on a real port, to be killed and started again.

For the tests of whatever talks to a stream, ours and other people's.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.core.part import StreamTarget

START_TIMEOUT_S = 30.0
_READY = re.compile(r"headrace: listening on (https?://\S+:(\d+))")


class ServerProcess:
    """One server on one data folder. Keeps its port over restarts.

    Use as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        data: Path,
        *,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        max_open_files: int | None = None,
        soft_open_files: int | None = None,
    ) -> None:
        """`soft_open_files` is a limit that the server may raise, `max_open_files` one for good."""
        self.data = data
        self.endpoint = ""
        self._arguments = arguments
        self._env = {**os.environ, **(env or {})}
        self._open_files = {"-S": soft_open_files, "": max_open_files}
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self._log = data.parent / f"{data.name}.log"

    @property
    def target(self) -> StreamTarget:
        """What clients are made from."""
        made = self.data / "tls" / "certificate.pem" if self.endpoint[:5] == "https" else None
        return StreamTarget(endpoint=self.endpoint, certificate=str(made) if made else None)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log_text(self) -> str:
        """All that the server has written to standard error, over all its lives."""
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> ServerProcess:
        """Start it and wait until it listens. Raises RuntimeError with its log if it does not."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as errors:
            self._process = subprocess.Popen(
                [
                    *self._limit(), sys.executable, "-m", "headrace.pipeline", "serve",
                    "--port", str(self._port), "--data", str(self.data), *self._arguments,
                ],
                env=self._env, stdout=subprocess.PIPE, stderr=errors, text=True,
                start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        line = self._process.stdout.readline()
        found = _READY.search(line)
        if found is None or time.monotonic() > deadline:
            self.kill()
            raise RuntimeError(f"the server did not start: {line!r}\n{self.log_text}")
        self.endpoint, self._port = found[1], int(found[2])
        return self

    def _limit(self) -> tuple[str, ...]:
        """What lowers the process's limits on open files."""
        kinds = self._open_files.items()
        lower = [f"ulimit {kind} -n {most}" for kind, most in kinds if most is not None]
        return ("sh", "-c", " && ".join([*lower, 'exec "$@"']), "sh") if lower else ()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal and go on."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait until it ends by itself; returns the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        code = process.wait(START_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()
        return code

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()
