"""`headrace demo` whole: real server, real parts, real files; undisturbed, killed, interrupted."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.support import Environment, wait_gone

DEMO_TIMEOUT_S = 240.0
RECKONING = re.compile(r"lines=(\d+) rows=(\d+) missing=(\d+) duplicated=(\d+)")


def children(parent: int) -> list[int]:
    """The processes a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def reckoning(said: str) -> tuple[str, ...]:
    found = RECKONING.fullmatch(said.splitlines()[-1])
    assert found, said
    return found.groups()


def test_every_line_lands_once(real: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    found = real.run(
        *("demo", "--seconds", "3", "--requests-per-second", "150", "--data", str(folder)),
        timeout_s=DEMO_TIMEOUT_S,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert reckoning(found.stdout) == ("450", "450", "0", "0")
    assert len(list((folder / "logs").glob("access.log.*"))) == 4, "it was rotated under way"
    assert list((folder / "lake/access").rglob("*.parquet"))
    assert list((folder / "lake/alerts").rglob("*.parquet"))
    assert "\x1b" not in found.stdout
    status = real.run("status", str(folder / "demo.yaml"))
    assert status.returncode == 1
    assert "not running" in status.stdout

    again = real.run(
        *("demo", "--seconds", "1", "--requests-per-second", "50", "--data", str(folder)),
        timeout_s=DEMO_TIMEOUT_S,
    )
    assert reckoning(again.stdout) == ("50", "50", "0", "0"), "an earlier demo's folder is emptied"


@pytest.mark.crash
def test_every_line_lands_once_while_every_part_is_killed(
    real: Environment, tmp_path: Path
) -> None:
    found = real.run(
        *("demo", "--kill", "--seconds", "8", "--requests-per-second", "150"),
        *("--data", str(tmp_path / "demo")),
        timeout_s=DEMO_TIMEOUT_S,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert reckoning(found.stdout) == ("1200", "1200", "0", "0")
    assert re.search(r"killed +stream, sinks, triggers, agent", found.stdout)


def test_a_file_that_is_lost_is_missed(real: Environment, tmp_path: Path) -> None:
    """Taken away after everything has landed, while the parts drain: no counter would know."""
    folder = tmp_path / "demo"
    for _ in range(3):  # a test that is held up just then takes it away after the reckoning
        demo = real.start(
            *("demo", "--seconds", "1", "--requests-per-second", "50", "--data", str(folder))
        )
        assert demo.stdout is not None
        while "landed" not in demo.stdout.readline():
            assert demo.poll() is None
        victim = next((folder / "lake/access").rglob("*.parquet"))
        rows = pq.read_metadata(victim).num_rows
        victim.unlink()
        rest, _ = demo.communicate(timeout=DEMO_TIMEOUT_S)
        if demo.returncode:
            break
    assert demo.returncode == 1
    assert reckoning(rest) == ("50", str(50 - rows), str(rows), "0")


def test_interrupted_it_leaves_nothing_running(real: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = real.start("demo", "--seconds", "60", "--data", str(folder))
    assert demo.stdout is not None
    while "requests" not in demo.stdout.readline():
        assert demo.poll() is None
    pids = children(demo.pid)
    assert len(pids) >= 5, "four parts and the web server"
    demo.send_signal(signal.SIGINT)
    _, said = demo.communicate(timeout=DEMO_TIMEOUT_S)
    assert demo.returncode == 130
    assert "Traceback" not in said
    wait_gone(pids, "everything it started is gone")
