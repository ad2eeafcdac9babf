"""`make bench`: every benchmark of this folder, one after the other, each in its own process.

python -m tests.bench                   all of them
python -m tests.bench storage           tests/bench/bench_storage.py
python -m tests.bench storage --full    the same with its own options
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from headrace.core.speedups import in_use

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def machine() -> str:
    """What the figures were measured on, in one line."""
    cpu = "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    return (
        f"{cpu}, {os.cpu_count()} cores, load {load}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {in_use()}"
    )


def main() -> int:
    scripts = {s.stem.removeprefix("bench_"): s for s in sorted(HERE.glob("bench_*.py"))}
    name, *options = sys.argv[1:] or [""]
    if name:
        if name not in scripts:
            print(f"no such benchmark: {name} (there are {', '.join(scripts)})", file=sys.stderr)
            return 2
        scripts = {name: scripts[name]}
    rooms = [str(ROOT / room) for room in ("core", "agent", "triggers", "sinks", "tests")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(rooms)}
    print(f"machine: {machine()}", flush=True)
    failed = 0
    for title, script in scripts.items():
        print(f"\n== {title}", flush=True)
        command = [sys.executable, str(script), *options]
        failed |= subprocess.run(command, env=env, check=False).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
