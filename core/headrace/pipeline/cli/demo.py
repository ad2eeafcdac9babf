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
    from rich.table import Table

    from headrace.pipeline.demo.run import Demo, DemoResult
    from headrace.pipeline.demo.screen import Screen


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long requests are made.")] = 10.0,
    requests_per_second: Annotated[
        int, typer.Option(min=1, help="How many are made; a slow machine takes longer.")
    ] = 300,
    kills: Annotated[
        bool, typer.Option("--kill", help="Kill -9 every part once while requests are made.")
    ] = False,
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
    options = DemoOptions(
        folder=folder, seconds=seconds, requests_per_second=requests_per_second, kills=kills
    )
    is_kept = keep or data is not None
    succeeded = False
    screen.title("A web server's log, through a stream, into Parquet")
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
    screen.table(_statuses(screen, result))
    screen.blank()
    alerts = result.alerts
    screen.note(
        "alerts",
        f"{alerts.lines} server errors, {alerts.rows} alerts by the handler "
        f"(missing={alerts.missing} duplicated={alerts.duplicated})",
    )
    if folder is None:
        screen.note("files", f"{result.files} Parquet files, removed by now; --keep leaves them")
    else:
        screen.note("pipeline", str(folder / "demo.yaml"))
        screen.note("access log", str(folder / "logs"))
        screen.note("Parquet", f"{folder / 'lake'} ({result.files} files)")
        screen.note("its log", str(folder / "headrace.log"))
    screen.blank()
    screen.verdict(str(result.access), is_good=result.is_even)


def _statuses(screen: Screen, result: DemoResult) -> Table:
    """Requests by status: as the visitors counted them, and as they stand in Parquet."""
    table = plain_table("status", "requests", "rows in Parquet", "")
    for column in table.columns[1:3]:
        column.justify = "right"
    total = max(result.rows.total(), 1)
    for status in sorted(result.answered.keys() | result.rows.keys()):
        rows = result.rows[status]
        bar = screen.bar(rows / total)
        table.add_row(str(status), f"{result.answered[status]:,}", f"{rows:,}", bar)
    all_rows = f"{result.rows.total():,}"
    table.add_row("all", f"{result.answered.total():,}", all_rows, style="bold")
    return table
