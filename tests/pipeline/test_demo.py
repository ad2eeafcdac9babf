"""The demo's own pieces: its web server, its visitors, its rotations."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from headrace.core.errors import ConfigError
from headrace.pipeline.demo.run import Demo, DemoOptions, web_server
from headrace.pipeline.demo.screen import Screen
from headrace.pipeline.demo.site import answer
from headrace.pipeline.demo.traffic import REQUEST_ID, Traffic, rotate
from headrace.pipeline.parts import PartTable
from headrace.pipeline.reckoning import ids_in_logs

COMBINED = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"(GET|POST) /\S* HTTP/1\.1" \d{3} \d+ "-" "[^"]+"'
)


async def test_traffic_is_logged_once_a_request_across_rotations(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    rotations = iter(range(20, 200, 60))
    due = next(rotations)

    def on_answer(done: int) -> None:
        nonlocal due
        if done >= due and log.exists():
            rotate(tmp_path)
            due = next(rotations, 10**9)

    async with web_server(log) as url:
        traffic = Traffic(url, requests_per_second=1000, seconds=0.2, seed=1)
        await traffic.run(on_answer)
    files = sorted(tmp_path.glob("access.log*"))
    assert [file.name for file in files][:4] == [
        "access.log",
        "access.log.1",
        "access.log.2",
        "access.log.3",
    ]
    ids = ids_in_logs(files, REQUEST_ID)
    assert ids == dict.fromkeys((f"{n:08d}" for n in range(200)), 1)
    for line in "".join(file.read_text() for file in files).splitlines():
        assert COMBINED.fullmatch(line), line
    assert traffic.answered.total() == 200
    assert {200, 404, 500} <= traffic.answered.keys()


async def test_the_web_server_ends_with_the_demo(tmp_path: Path) -> None:
    """Whoever holds the other end of its stdin is gone, however that came about."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.pipeline.demo.site", str(tmp_path / "access.log")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"http://127.0.0.1:")
    process.stdin.close()
    async with asyncio.timeout(10):
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/items/5", 200),
        ("GET", "/items/4000", 404),
        ("GET", "/gone/5", 404),
        ("POST", "/orders", 201),
        ("GET", "/old", 301),
        ("GET", "/report", 500),
    ],
)
def test_pages(method: str, path: str, status: int) -> None:
    assert answer(method, path)[0] == status


def test_rotation_shifts_and_removes_nothing(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "access.log").write_text(str(number))
        assert rotate(tmp_path) == number + 1
    assert [(tmp_path / f"access.log.{n}").read_text() for n in (1, 2, 3)] == ["2", "1", "0"]
    assert not (tmp_path / "access.log").exists()


async def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    demo = Demo(DemoOptions(folder=tmp_path), PartTable({}), Screen(Console(quiet=True)))
    with pytest.raises(ConfigError, match="is not empty, and not of an earlier demo"):
        await demo.run()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
