"""How fast lines leave a file, beside what this machine can do at all with the same bytes.

    python -m tests.bench agent [MIB]

Every way reads the same access log (default 128 MiB, in the page cache). Rounds are interleaved,
so that a busy machine hits all alike; the best of three counts. Read the ratios: `x split` is
against reading 1 MiB at a time and splitting at newlines, which is the least that Python can do
to have lines at all. Idle and latency figures are of an agent with nothing behind it.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.agent.agent import Agent
from headrace.agent.config import AgentConfig, FlowConfig
from headrace.agent.identity import new_identity
from headrace.agent.packing import Packer
from headrace.agent.positions import Position
from headrace.agent.source import PlainSource
from headrace.agent.tailer import Tailer
from headrace.core.client import StreamClient
from headrace.core.clock import SystemClock
from headrace.core.limits import MIB
from headrace.core.model.records import PutEntry, PutResult
from headrace.core.producer import Producer
from headrace.core.testing.server_process import ServerProcess

ROUNDS = 3
SAMPLES = 15


class Acknowledging:
    """A stream that costs nothing."""

    def __init__(self) -> None:
        self.count = 0

    async def put_batch(
        self,
        entries: Sequence[PutEntry],
        *,
        producer_id: str | None = None,
        epoch: int = 0,
        sequences: Sequence[int] | None = None,
    ) -> list[PutResult]:
        self.count += len(entries)
        return []


def write_access_log(path: Path, size_bytes: int) -> int:
    """Combined-format lines of about 170 bytes; returns how many."""
    number = random.Random(1).randrange
    block = "".join(
        f"{number(256)}.{number(256)}.{number(256)}.{number(256)} - - "
        f"[{number(28) + 1:02d}/Nov/2026:{number(24):02d}:{number(60):02d}:{number(60):02d} +0000] "
        f'"GET /product-{number(5000)}/detail?id={n} HTTP/1.1" 200 {number(100_000)} '
        f'"https://example.com/ref/{number(1000)}" '
        f'"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120"\n'
        for n in range(20_000)
    ).encode()
    repeats = size_bytes // len(block) + 1
    with path.open("wb") as file:
        for _ in range(repeats):
            file.write(block)
    return repeats * 20_000


def cat(path: Path) -> None:
    with path.open("rb") as file:
        subprocess.run(["cat"], stdin=file, stdout=subprocess.DEVNULL, check=True)


def read_only(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    while os.read(descriptor, MIB):
        pass
    os.close(descriptor)


def read_and_split(path: Path) -> None:
    descriptor, rest = os.open(path, os.O_RDONLY), b""
    while chunk := os.read(descriptor, MIB):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
    os.close(descriptor)


def tail_and_pack(path: Path, **flow: str) -> None:
    """What a worker thread of the agent does: lines to records with keys and sequences."""
    packer = Packer(FlowConfig.model_validate({"files": str(path), "stream": "s", **flow}))
    identity = new_identity()
    position = Position(
        identity=identity, stream="s", home=str(path), path=str(path), device=0, inode=0
    )
    source = PlainSource(str(path))
    tailer = Tailer(source, position, packer)
    while (span := tailer.read()) is not None:
        packer.pack(span, identity=identity, generation=0, file=str(path))
    source.close()


def whole_agent(path: Path, **flow: str) -> None:
    """Scan, read, format, put (to nothing), store positions."""

    async def ship() -> None:
        with tempfile.TemporaryDirectory() as data:
            sink = Acknowledging()
            agent = Agent(
                AgentConfig.model_validate(
                    {"flows": [{"files": str(path), "stream": "s", **flow}]}
                ),
                data=Path(data),
                base=path.parent,
                clock=SystemClock(),
                putter=lambda _: sink,
            )
            agent.open()
            await agent.scan()
            await agent.drain()
            await agent.close()

    asyncio.run(ship())


def to_a_server(path: Path, lines: int, files: int) -> float:
    """Seconds for the real agent code to bring the lines into a real server, in `files` files."""

    async def ship(folder: Path) -> float:
        with ServerProcess(folder / "stream", arguments=("--limits", "off")) as server:
            async with StreamClient(server.target) as client:
                await client.ensure_stream("s", shards=4)
                agent = Agent(
                    AgentConfig.model_validate(
                        {"flows": [{"files": str(folder / "*.log"), "stream": "s"}]}
                    ),
                    data=folder,
                    base=folder,
                    clock=SystemClock(),
                    putter=lambda stream: Producer(client, stream),
                )
                agent.open()
                running = asyncio.create_task(agent.run())
                began = time.perf_counter()
                while agent.counters.lines_shipped < lines:  # noqa: ASYNC110 - a counter
                    await asyncio.sleep(0.005)
                took_s = time.perf_counter() - began
                await agent.stop()
                await running
                await agent.close()
                return took_s

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = path.read_bytes()
        part = len(content) // 20_000 // files
        cut = content.splitlines(keepends=True)
        part = len(cut) // files
        for number in range(files):
            stop = None if number == files - 1 else (number + 1) * part
            (folder / f"{number}.log").write_bytes(b"".join(cut[number * part : stop]))
        del content, cut
        return asyncio.run(ship(folder))


def idle(files: int) -> None:
    """What very many quiet files and one busy one cost: CPU share, descriptors, latency."""

    async def watch(folder: Path) -> None:
        (folder / "logs").mkdir()
        for number in range(files):
            (folder / "logs" / f"{number}.log").write_bytes(b"a line of file %d\n" % number)
        sink = Acknowledging()
        agent = Agent(
            AgentConfig.model_validate(
                {"flows": [{"files": str(folder / "logs" / "*.log"), "stream": "s"}]}
            ),
            data=folder,
            base=folder,
            clock=SystemClock(),
            putter=lambda _: sink,
        )
        agent.open()
        running = asyncio.create_task(agent.run())
        began = time.perf_counter()
        while sink.count < files:  # noqa: ASYNC110 - a counter
            await asyncio.sleep(0.05)
        print(f"{files:>7,} files found and shipped in {time.perf_counter() - began:.1f} s")
        await asyncio.sleep(12)
        cpu_s, began = _cpu_s(), time.perf_counter()
        await asyncio.sleep(10)
        share = (_cpu_s() - cpu_s) / (time.perf_counter() - began)
        figures = agent.health().figures
        print(f"{'':>7} idle: {share:.1%} of one core, {figures['files_open']} files open")
        waits: list[float] = []
        for number in range(SAMPLES):
            seen = sink.count
            with (folder / "logs" / f"{number % 5}.log").open("ab") as file:
                file.write(b"one more\n")
            began = time.perf_counter()
            while sink.count == seen:  # noqa: ASYNC110 - a counter
                await asyncio.sleep(0.002)
            waits.append(time.perf_counter() - began)
        waits.sort()
        print(
            f"{'':>7} a line written is put after {waits[SAMPLES // 2] * 1000:.0f} ms (median), "
            f"{waits[-1] * 1000:.0f} ms (worst of {SAMPLES})"
        )
        await agent.stop()
        await running
        await agent.close()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(watch(Path(name)))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    size_bytes = int(sys.argv[1] if len(sys.argv) > 1 else 128) * MIB
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "access.log"
        lines = write_access_log(path, size_bytes)
        json_path = Path(name) / "lines.json"
        json_path.write_bytes(
            b"".join(
                b'{"at": %d, "level": "info", "message": "something happened", "n": [1, 2.5]}\n' % n
                for n in range(lines)
            )
        )
        ways: dict[str, Callable[[], None]] = {
            "cat": lambda: cat(path),
            "read 1 MiB": lambda: read_only(path),
            "split": lambda: read_and_split(path),
            "tail raw": lambda: tail_and_pack(path),
            "tail common-apache": lambda: tail_and_pack(path, format="common-apache"),
            "tail combined-apache": lambda: tail_and_pack(path, format="combined-apache"),
            "tail json": lambda: tail_and_pack(json_path, format="json"),
            "agent raw": lambda: whole_agent(path),
            "agent combined-apache": lambda: whole_agent(path, format="combined-apache"),
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(ROUNDS):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                best[way] = min(best[way], time.perf_counter() - began)
        print(f"{lines:,} lines, {path.stat().st_size / MIB:.0f} MiB")
        for way, took_s in best.items():
            size = (json_path if "json" in way else path).stat().st_size
            print(
                f"{way:<22} {lines / took_s:>12,.0f} lines/s {size / took_s / MIB:>7,.0f} MiB/s"
                f"   x split {best['split'] / took_s:.3f}   x cat {best['cat'] / took_s:.3f}"
            )
        for files in (1, 8):
            took_s = min(to_a_server(path, lines, files) for _ in range(2))
            print(
                f"{f'server, {files} files':<22} {lines / took_s:>12,.0f} lines/s "
                f"{path.stat().st_size / took_s / MIB:>7,.0f} MiB/s"
                f"   x split {best['split'] / took_s:.3f}   (two processes on the same cores)"
            )
    for files in (100, 20_000):
        idle(files)


if __name__ == "__main__":
    main()
