"""What several of the agent's tests use: an agent driven by hand, and logs that rotate."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from headrace.agent.agent import Agent
from headrace.agent.config import AgentConfig
from headrace.agent.positions import Loss, Position
from headrace.agent.testing import Crash, RecordingSink
from headrace.core.testing.manual_clock import ManualClock


class Log:
    """A log file as a server writes it: appends, and is rotated in every known way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: list[bytes] = []
        self._numbers = itertools.count()
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, *lines: str | bytes) -> None:
        """Append whole lines."""
        raw = [line.encode() if isinstance(line, str) else line for line in lines]
        with self.path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in raw))
        self.written += raw

    def write_numbered(self, count: int, *, tail: str = "") -> None:
        """Append lines that are each different, and say what they are."""
        self.write(*(self.numbered(tail) for _ in range(count)))

    def numbered(self, tail: str = "") -> str:
        text = f"{self.path.name} {next(self._numbers)}{tail}"
        return f"{text} {crc32(text.encode()):08x}"

    def rotate(self, count: int = 9) -> Path:
        """By renaming: .1 becomes .2 and so on, the file becomes .1, a new empty one is made."""
        self._shift(count)
        first = self._old(1)
        self.path.rename(first)
        self.path.touch()
        return first

    def copytruncate(self, count: int = 9, *, to: Path | None = None) -> Path:
        """By copying to .1 and truncating."""
        self._shift(count)
        target = to or self._old(1)
        shutil.copyfile(self.path, target)
        self.truncate()
        return target

    def truncate(self) -> None:
        with self.path.open("r+b") as file:
            file.truncate(0)

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _shift(self, count: int) -> None:
        self._old(count).unlink(missing_ok=True)
        for number in range(count - 1, 0, -1):
            if self._old(number).exists():
                self._old(number).rename(self._old(number + 1))


class Rig:
    """An agent on a folder of logs, with a sink for a stream. Time and scans go by hand."""

    def __init__(self, folder: Path, *, files: str = "*.log*", **flow: Any) -> None:
        self.logs = folder / "logs"
        self.data = folder / "data"
        self.logs.mkdir(exist_ok=True)
        self.data.mkdir(exist_ok=True)
        self.clock = ManualClock()
        self.sinks: dict[str, RecordingSink] = {}
        self.settings: dict[str, Any] = {}
        self.flows: list[dict[str, Any]] = [
            {"files": str(self.logs / files), "stream": "lines", **flow}
        ]
        self.agent: Agent | None = None

    @property
    def sink(self) -> RecordingSink:
        return self.sink_of("lines")

    def sink_of(self, stream: str) -> RecordingSink:
        return self.sinks.setdefault(stream, RecordingSink())

    @property
    def config(self) -> AgentConfig:
        return AgentConfig.model_validate({"flows": self.flows, **self.settings})

    def log(self, name: str = "a.log") -> Log:
        return Log(self.logs / name)

    async def start(self) -> Agent:
        self.agent = Agent(
            self.config,
            data=self.data,
            base=self.logs,
            clock=self.clock,
            putter=self.sink_of,
        )
        self.agent.open()
        return self.agent

    @property
    def running(self) -> Agent:
        assert self.agent is not None
        return self.agent

    async def step(self, times: int = 1) -> None:
        """Scan, ship what the scan found, store positions; then a scan interval passes."""
        for _ in range(times):
            if self.agent is None:
                await self.start()
            await self.running.scan()
            await self.running.drain()
            await self.running.shipper.commit()
            await self.clock.advance(1000)

    async def settle(self) -> None:
        """Steps until long after every waiting time."""
        await self.step(40)

    async def stop(self) -> None:
        """An orderly end."""
        agent, self.agent = self.running, None
        await agent.close()

    async def crash(self) -> None:
        """End without storing anything more."""
        agent, self.agent = self.agent, None
        if agent is not None:
            await asyncio.sleep(0)
            agent.abandon()

    async def step_into_crash(self, after_count: int) -> None:
        """Ship, and die once the sink has stored so many more records."""
        self.sink.crash_after_count = after_count
        with contextlib.suppress(Crash):
            await self.step()
        self.sink.crash_after_count = None
        await self.crash()

    def positions(self) -> list[Position]:
        return [file.position for file in self.running.registry]

    def losses(self) -> list[Loss]:
        return self.running.store.losses()

    @property
    def lines(self) -> list[bytes]:
        return self.sink.lines

    def assert_once(self, *logs: Log) -> None:
        """Every line of these logs is in the stream once, and nothing else is."""
        expected = Counter(line for log in logs for line in log.written)
        found = Counter(self.lines)
        missing, extra = expected - found, found - expected
        assert not missing and not extra, (
            f"missing {missing.total()}: {list(missing)[:5]}; "
            f"extra {extra.total()}: {list(extra)[:5]}"
        )


class AgentProcess:
    """`headrace agent` as a real process, to be killed and started again."""

    def __init__(self, folder: Path, endpoint: str, **settings: Any) -> None:
        """Settings are those of the one flow, but for those that only the section has."""
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.endpoint = endpoint
        section = {key: settings.pop(key) for key in list(settings) if key in SECTION_KEYS}
        flow = {"files": "logs/*.log*", "stream": "lines", **settings}
        self.config = {
            "data": "./agent-data",
            "stream": {"endpoint": endpoint},
            "agent": {"flows": [flow], **section},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        file = self.folder / "agent.yaml"
        file.write_text(json.dumps(self.config))  # JSON is YAML
        with (self.folder / "agent.output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace.pipeline", "agent", str(file)],
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        path = self.folder / "agent.output"
        return path.read_text() if path.exists() else ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def positions(self) -> list[Position]:
        """As stored by now."""
        path = self.folder / "agent-data" / "agent" / "positions.db"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            try:
                rows = connection.execute("SELECT state FROM positions").fetchall()
            except sqlite3.OperationalError:  # the agent has not come to making its table yet
                return []
        return [msgspec.json.decode(state, type=Position) for (state,) in rows]

    def shipped_bytes(self) -> int:
        """Acknowledged by now, of all files that are still tracked."""
        return sum(position.offset for position in self.positions())

    def __enter__(self) -> AgentProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


SECTION_KEYS = frozenset(AgentConfig.model_fields) - {"flows"}


class BusyLogs(threading.Thread):
    """Servers writing their logs and rotating them, at random, until stopped.

    Every line is `NAME NUMBER CRC`, some are long. Files are rotated by renaming or by copying,
    each log in its own way; nothing is ever thrown away, so at the end the folder has every line.
    """

    def __init__(self, folder: Path, *, names: int, seed: int, lines_per_second: int) -> None:
        super().__init__(daemon=True)
        self._logs = [Log(folder / f"server-{number}.log") for number in range(names)]
        self._random = random.Random(seed)
        self._pause_s = 50 / lines_per_second
        self._stopping = threading.Event()
        self.rotations = 0

    def run(self) -> None:
        while not self._stopping.wait(self._random.random() * 2 * self._pause_s):
            log = self._random.choice(self._logs)
            tail = " " + "x" * self._random.choice([0, 10, 100, 1000])
            log.write_numbered(self._random.randrange(1, 100), tail=tail)
            if self._random.random() < 0.05:
                self.rotations += 1
                by_copy = self._logs.index(log) % 2
                (log.copytruncate if by_copy else log.rotate)(count=10_000)

    def finish(self) -> None:
        """Stop writing."""
        self._stopping.set()
        self.join()

    def __enter__(self) -> BusyLogs:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


def lines_of(folder: Path) -> Counter[bytes]:
    """Every whole line in the files of a folder."""
    found: Counter[bytes] = Counter()
    for path in folder.iterdir():
        found.update(path.read_bytes().split(b"\n")[:-1])
    return found


def reckon(written: Counter[bytes], stored: Counter[bytes]) -> str:
    """What is missing or there too often, in words; empty if nothing is."""
    missing, extra = written - stored, stored - written
    if not missing and not extra:
        return ""
    return (
        f"of {written.total()} lines {missing.total()} are missing {list(missing)[:3]!r} "
        f"and {extra.total()} too many {list(extra)[:3]!r}"
    )
