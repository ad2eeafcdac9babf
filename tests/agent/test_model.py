"""Random lives of log files against a model: written, rotated, copied, truncated, deleted, while
the agent scans, ships, crashes and starts again.

The model knows of every line where it still stood when the agent could have read it. At the end:
no line is in the stream twice, none that nobody wrote, and none is missing but those that were
destroyed unread. Hypothesis prints the failing sequence of steps and how to run it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agent_support import Rig
from headrace.agent.testing import Crash

LOGS = ("a.log", "b.log")


class LifeOfLogs(RuleBasedStateMachine):
    """Two logs below one pattern, an agent, and everything that can happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.rig = Rig(self.folder)
        self.runner = asyncio.Runner()
        self.count = 0
        self.written: list[bytes] = []
        #: Lines destroyed before the agent could know that they were read.
        self.destroyed: set[bytes] = set()
        #: Lines of deleted files that the agent holds open: destroyed if it dies before shipping.
        self.held: set[bytes] = set()

    @initialize(header=st.sampled_from(["", "#Fields: " + "f" * 60, "#Fields: " + "f" * 5000]))
    def begin(self, header: str) -> None:
        self.header = header

    # What happens to files

    @rule(log=st.sampled_from(LOGS), count=st.integers(1, 12), size=st.sampled_from([0, 40, 900]))
    def write(self, log: str, count: int, size: int) -> None:
        path = self.rig.logs / log
        lines: list[bytes] = []
        if not path.exists() or path.stat().st_size == 0:
            lines.append(self.line(0, self.header))
        lines += [self.line(size) for _ in range(count)]
        with path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    @rule(log=st.sampled_from(LOGS))
    def rotate_by_renaming(self, log: str) -> None:
        path = self.rig.logs / log
        if path.exists():
            self.shift(path)
            path.rename(f"{path}.1")

    @rule(log=st.sampled_from(LOGS), is_seen_half_way=st.booleans())
    def rotate_by_copying(self, log: str, is_seen_half_way: bool) -> None:
        path, copy = self.rig.logs / log, Path(f"{self.rig.logs / log}.1")
        if not path.exists():
            return
        self.shift(path)
        content = path.read_bytes()
        if is_seen_half_way:
            copy.write_bytes(content[: len(content) // 2])
            self.scan()
        copy.write_bytes(content)
        if is_seen_half_way:
            self.scan()
        os.truncate(path, 0)

    @rule(log=st.sampled_from(LOGS))
    def truncate(self, log: str) -> None:
        path = self.rig.logs / log
        if path.exists():
            self.destroy(path)
            os.truncate(path, 0)

    @rule(log=st.sampled_from(LOGS), suffix=st.sampled_from(["", ".1", ".2"]))
    def delete(self, log: str, suffix: str) -> None:
        path = self.rig.logs / f"{log}{suffix}"
        if path.exists():
            self.unlink(path)

    # What the agent does

    @rule(times=st.integers(1, 3))
    def step(self, times: int) -> None:
        self.run(self.rig.step(times))

    @rule()
    def long_time(self) -> None:
        self.run(self.rig.settle())

    @rule()
    def scan(self) -> None:
        async def scan() -> None:
            agent = self.rig.agent or await self.rig.start()
            await agent.scan()

        self.run(scan())

    @rule(after_count=st.integers(0, 15))
    def crash_while_shipping(self, after_count: int) -> None:
        self.run(self.rig.step_into_crash(after_count))
        self.let_go()

    @precondition(lambda self: self.rig.agent is not None)
    @rule()
    def crash(self) -> None:
        self.run(self.rig.crash())
        self.let_go()

    @precondition(lambda self: self.rig.agent is not None)
    @rule()
    def stop(self) -> None:
        self.run(self.rig.stop())
        self.let_go()

    # Bookkeeping

    def line(self, size: int, text: str = "") -> bytes:
        self.count += 1
        line = f"{text or self.count} {'x' * size} {self.count}"
        self.written.append(line.encode())
        return line.encode()

    def run(self, work: object) -> None:
        self.runner.run(work)  # type: ignore[arg-type]

    def shift(self, path: Path) -> None:
        last = Path(f"{path}.3")
        if last.exists():
            self.unlink(last)
        for number in (2, 1):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}.{number}").rename(f"{path}.{number + 1}")

    def lines_elsewhere(self, path: Path) -> set[bytes]:
        """Lines that are shipped or stand in another file."""
        lines = set(self.rig.lines)
        for other in self.rig.logs.iterdir():
            if other != path:
                lines |= set(other.read_bytes().split(b"\n"))
        return lines

    def only_in(self, path: Path) -> set[bytes]:
        return set(path.read_bytes().split(b"\n")) - {b""} - self.lines_elsewhere(path)

    def destroy(self, path: Path) -> None:
        self.destroyed |= self.only_in(path)

    def unlink(self, path: Path) -> None:
        if self.is_held(path.stat().st_ino):
            self.held |= self.only_in(path)
        else:
            self.destroy(path)
        path.unlink()

    def is_held(self, inode: int) -> bool:
        if self.rig.agent is None:
            return False
        registry = self.rig.agent.registry
        return any(file.source and file.key.inode == inode for file in registry) or any(
            newcomer.key.inode == inode for newcomer in registry.newcomers.values()
        )

    def let_go(self) -> None:
        """The agent is down: what only it held is destroyed, unless it was shipped."""
        self.destroyed |= self.held - set(self.rig.lines)
        self.held.clear()

    def teardown(self) -> None:
        try:
            self.run(self.rig.settle())
            self.run(self.rig.stop())
            found = Counter(self.rig.lines)
            twice = [line for line, count in found.items() if count > 1]
            missing = set(self.written) - found.keys() - self.destroyed
            assert not twice, f"{len(twice)} lines twice: {twice[:3]!r}"
            assert not missing, f"{len(missing)} lines missing: {sorted(missing)[:3]!r}"
            assert found.keys() <= set(self.written)
        finally:
            with contextlib.suppress(Crash):
                self.runner.close()
            shutil.rmtree(self.folder)


TestLifeOfLogs = LifeOfLogs.TestCase
TestLifeOfLogs.settings = settings(
    max_examples=int(os.environ.get("HEADRACE_MODEL_EXAMPLES", "40")),
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
