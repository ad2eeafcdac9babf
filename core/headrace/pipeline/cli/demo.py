"""`headrace demo`."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.pipeline.cli.console import plain_table
from headrace.pipeline.parts import installed_parts

if TYPE_CHECKING:
    from headrace.pipeline.demo.run import Demo, DemoResult
    from headrace.pipeline.demo.screen import Screen


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long requests are made.")] = 10.0,
    requests_per_second: Annotated[
        int, typer.Option(min=1, help="How many are made; a slow machine takes longer.")
    ] = 300,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder for everything the demo writes; it is kept then."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder.")] = False,
) -> None:
    """See the whole pipeline at work: a web server's log, through a stream, into Parquet.

    Starts a web server, makes real requests, tails its access log while that is rotated, runs a
    handler that raises an alert for each server error, lands everything as Parquet, and reads
    log files and Parquet files back to compare them line by line. Ends with 1 if a line is
    missing or there twice.
    """
    from rich.console import Console

    from headrace.pipeline.demo.run import Demo, DemoOptions
    from headrace.pipeline.demo.screen import Screen

    folder = data or Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    screen = Screen(Console(highlight=False))
    options = DemoOptions(folder=folder, seconds=seconds, requests_per_second=requests_per_second)
    is_kept = keep or data is not None
    succeeded = False
    try:
        run = Demo(options, installed_parts(), screen)
        result = asyncio.run(_cancellable(run))
        _report(screen, result, folder if is_kept else None)
        succeeded = result.is_even
    finally:
        if not is_kept and succeeded:
            shutil.rmtree(folder, ignore_errors=True)
        elif not is_kept and any(folder.iterdir()):
            screen.warn(f"everything is left in {folder} to look at")
        elif not is_kept:
            folder.rmdir()
    raise typer.Exit(0 if succeeded else 1)


async def _cancellable(run: Demo) -> DemoResult:
    """Let SIGTERM end it as Ctrl-C does: drained."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run.run()


def _report(screen: Screen, result: DemoResult, folder: Path | None) -> None:
    screen.blank()
    table = plain_table("status", "answered", "rows in Parquet")
    for column in table.columns[1:]:
        column.justify = "right"
    for status in sorted(result.answered.keys() | result.rows.keys()):
        table.add_row(str(status), f"{result.answered[status]:,}", f"{result.rows[status]:,}")
    table.add_section()
    table.add_row("all", f"{result.answered.total():,}", f"{result.rows.total():,}", style="bold")
    screen.table(table)
    screen.blank()
    if folder is None:
        screen.say("files", f"{result.files} Parquet files, removed now; --keep leaves them")
    else:
        screen.say("pipeline", str(folder / "demo.yaml"))
        screen.say("log files", str(folder / "logs"))
        screen.say("Parquet", f"{folder / 'lake'} ({result.files} files)")
        screen.say("own log", str(folder / "headrace.log"))
    alerts = result.alerts
    screen.say(
        "alerts",
        f"errors={alerts.lines} rows={alerts.rows} "
        f"missing={alerts.missing} duplicated={alerts.duplicated}",
    )
    screen.blank()
    screen.line(str(result.access))
