"""`up`, `check`, `status`: a whole pipeline."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from headrace.core.errors import ConfigError
from headrace.core.units import format_size
from headrace.pipeline.cli.console import AsJson, plain_table, print_json, print_table, talk
from headrace.pipeline.parts import installed_parts

if TYPE_CHECKING:
    from headrace.pipeline.status import PipelineStatus

File = Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline's YAML file.")]

_STATE_STYLE = {"running": "green", "drained": "dim", "starting": "cyan"}


def up(file: File) -> None:
    """Run the whole pipeline of FILE: every part its own process, kept running.

    SIGTERM or SIGINT drains it in order: agent, triggers, sinks, stream; a second one ends
    everything at once, and nothing is lost by that either.
    """
    from headrace.pipeline.config.pipeline_file import read_pipeline
    from headrace.pipeline.logs import Prefixed
    from headrace.pipeline.supervisor import Supervisor

    parts = installed_parts()
    pipeline = read_pipeline(file, parts)
    names = pipeline.running_sections()
    if not names:
        raise ConfigError(f"{file} has nothing to run", hint="add a section, such as stream:")
    log = Prefixed(sys.stderr, names)

    async def supervise() -> bool:
        supervisor = Supervisor(pipeline, parts, log)
        supervisor.listen_to_signals()
        await supervisor.run()
        return supervisor.was_forced

    raise typer.Exit(1 if asyncio.run(supervise()) else 0)


def check(file: File, as_json: AsJson = False) -> None:
    """Check FILE: its YAML, every key and value, and whether names in it meet.

    Prints one finding a line, file:line:column first. Ends with 2 when there is an error.
    """
    from headrace.pipeline.config.pipeline_file import Reading

    reading = Reading(file, installed_parts())
    if as_json:
        print_json({"ok": not reading.has_errors, "findings": reading.dicts()})
    elif reading.problems:
        print(reading.text())
    if not as_json:
        errors = sum(problem.is_error for problem in reading.problems)
        words = f"{errors} error{'s' * (errors != 1)}" if errors else "fine"
        talk.print(f"{file}: {words}", markup=False)
    raise typer.Exit(2 if reading.has_errors else 0)


def status(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The pipeline's YAML file.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The data folder, instead of a file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what every part of a running pipeline does. Ends with 0 when all is well, else 1."""
    from dataclasses import asdict

    from headrace.pipeline.status import read_status

    found = read_status(_data_folder(file, data))
    now_ms = time.time_ns() // 1_000_000
    if as_json:
        print_json({**asdict(found), "alive": found.is_alive(now_ms)})
    else:
        _show(found, now_ms)
    raise typer.Exit(0 if found.is_well(now_ms) else 1)


def _data_folder(file: Path | None, data: Path | None) -> Path:
    if data is not None:
        return data
    if file is None:
        return Path("data")
    from headrace.pipeline.config.pipeline_file import read_pipeline

    return read_pipeline(file, installed_parts()).data


def _show(found: PipelineStatus, now_ms: int) -> None:
    alive = found.is_alive(now_ms)
    if alive:
        up = _ago(now_ms - found.started_ms)
        print(f"{found.file}: {found.state} for {up}, process {found.pid}")
    else:
        ago = _ago(now_ms - found.updated_ms)
        how = "stopped" if found.state == "stopped" else "killed or stuck: last heard of"
        print(f"{found.file}: not running, {how} {ago} ago")
    table = plain_table("part", "state", "pid", "up", "restarts", "figures")
    for part in found.parts:
        style = _STATE_STYLE.get(part.state, "yellow") if alive else "dim"
        table.add_row(
            part.part,
            Text(part.state if alive else "-", style=style),
            str(part.pid or "-") if alive else "-",
            _ago(now_ms - part.since_ms) if alive and part.pid else "-",
            str(part.restarts),
            Text(_figures(part.figures)),
        )
    print_table(table)
    for part in found.parts:
        for problem in part.problems:
            talk.print(f"{part.part}: {problem}", style="yellow", markup=False, soft_wrap=True)


def _figures(figures: Mapping[str, int | float | str]) -> str:
    """Figures for people: what is nought is left out (--json has it), a line for each `name.`."""
    groups: dict[str, list[str]] = {}
    for key, value in figures.items():
        group, _, name = key.rpartition(".")
        if value:
            groups.setdefault(group, []).append(_figure(name, value))
    lines = [f"{group}: " * bool(group) + ", ".join(shown) for group, shown in groups.items()]
    return "\n".join(lines)


def _figure(name: str, value: float | str) -> str:
    words = name.replace("_", " ")
    if isinstance(value, str):
        return f"{words} {value}"
    if name.endswith("_ms"):
        return f"{words.removesuffix(' ms')} {value / 1000:,.1f} s"
    if name.endswith("bytes") or name.startswith("bytes"):
        return f"{words} {format_size(value)}"
    return f"{words} {value:,}" if isinstance(value, int) else f"{words} {value:,.1f}"


def _ago(duration_ms: int) -> str:
    seconds = max(duration_ms, 0) // 1000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} d"
