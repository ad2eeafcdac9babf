"""Environments with parts installed in them, and pipelines as processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = [str(CHECKOUT / room) for room in ("core", "agent", "triggers", "sinks")]
REAL_PARTS = {
    "stream": "headrace.core.stream_part:StreamPart",
    "agent": "headrace.agent.part:AgentPart",
    "triggers": "headrace.triggers.part:TriggersPart",
    "sinks": "headrace.sinks.part:SinksPart",
}

TIMEOUT_S = 60.0


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Poll until it holds. Real processes have no clock to pass in."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)


def wait_gone(pids: Collection[int], what: str) -> None:
    """Until none of these processes is alive; says what those that are do."""
    try:
        wait_for(lambda: not any(map(is_alive, pids)), what)
    except AssertionError as error:
        raise AssertionError(f"{error}; {[_doing(pid) for pid in pids if is_alive(pid)]}") from None


def _doing(pid: int) -> str:
    """A process as the kernel has it: its command, state, and what it waits in."""
    told = [f"{pid}"]
    for name in ("cmdline", "stat", "wchan"):
        with contextlib.suppress(OSError):
            told.append(Path(f"/proc/{pid}/{name}").read_text().replace("\0", " "))
    return " | ".join(told)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


class Environment:
    """An environment in which some parts are installed, to run `headrace` in."""

    def __init__(self, folder: Path, parts: Mapping[str, str]) -> None:
        info = folder / "headrace-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headrace\nVersion: 0.1.0\n")
        lines = [f"{name} = {reference}" for name, reference in parts.items()]
        (info / "entry_points.txt").write_text("\n".join(["[headrace.parts]", *lines, ""]))
        path = os.pathsep.join([str(folder), *ROOMS])
        self.variables = {**os.environ, "PYTHONPATH": path, "COLUMNS": "120"}

    def run(
        self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `headrace ARGUMENTS` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "headrace.pipeline", *arguments],
            env=self.variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `headrace ARGUMENTS`; its stderr is a pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.pipeline", *arguments],
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


class Journal:
    """What scripted parts wrote down: (section, pid, event), in the order it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[tuple[str, int, str]]:
        if not self.path.exists():
            return []
        # without the end of a line that is just being written
        lines = [line.split() for line in self.path.read_text().split("\n")[:-1]]
        return [(words[0], int(words[1]), " ".join(words[2:-1])) for words in lines]

    def events(self, event: str) -> list[str]:
        return [section for section, _, what in self.entries() if what == event]

    def pids(self) -> dict[str, int]:
        """The latest process of each section."""
        return {section: pid for section, pid, _ in self.entries()}


class RunningPipeline:
    """`headrace up` on a file of scripted parts."""

    def __init__(self, environment: Environment, folder: Path, scripts: Mapping[str, str]) -> None:
        self.journal = Journal(folder / "journal")
        self.file = folder / "pipeline.yaml"
        lines = ["data: ./data"]
        for section, script in scripts.items():
            fields = ", ".join(filter(None, [f"journal: {self.journal.path}", script]))
            lines.append(f"{section}: {{{fields}}}")
        self.file.write_text("\n".join(lines) + "\n")
        self.environment = environment
        self.process = environment.start("up", str(self.file))

    def wait_running(self) -> None:
        wait_for(lambda: len(set(self.journal.events("ready"))) == self._count(), "all ready")

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and everything it said."""
        self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def finish(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, said

    def clean_up(self) -> None:
        """Leave nothing running, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        pids = self.journal.pids().values()
        wait_gone(pids, "no child is left")

    def _count(self) -> int:
        return len(self.file.read_text().splitlines()) - 1
