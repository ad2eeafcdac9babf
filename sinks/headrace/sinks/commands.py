"""`headrace sinks verify`: is every record there, once?"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from headrace.core.errors import HeadraceError
from headrace.core.units import format_size
from headrace.sinks.config import S3Config
from headrace.sinks.stores.local import LocalStore
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.stores.s3 import S3Store
from headrace.sinks.verify import Report, verify

app = typer.Typer()


@app.command("verify")
def verify_command(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="The sink's to:, a folder or s3://bucket/prefix/."),
    ],
    sink: Annotated[str | None, typer.Option(help="Only the sink of this name.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(envvar="AWS_ENDPOINT_URL_S3", help="URL of an S3-compatible server."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="Region of the bucket.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Prove from files and plan log that every record landed exactly once.

    Reads every file below TARGET. Keys for a bucket come from AWS's usual chain. Exit code 0: all
    is proven; 1: something is missing, doubled, changed or lost; 2: there is nothing to verify.
    """
    try:
        report = asyncio.run(_verify(_store(target, endpoint, region), sink, quiet=as_json))
    except HeadraceError as error:
        Console(stderr=True, highlight=False).print(str(error), markup=False)
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps({**dataclasses.asdict(report), "proven": report.is_proven}, indent=2))
    else:
        _print(report)
    raise typer.Exit(0 if report.is_proven else 1)


def _store(target: str, endpoint: str | None, region: str | None) -> ObjectStore:
    if not target.startswith("s3://"):
        return LocalStore(Path(target.removeprefix("file://")))
    config = S3Config(
        endpoint=endpoint,
        region=region,
        access_key_id=None,
        secret_access_key=None,
        session_token=None,
    )
    return S3Store(target, config)


async def _verify(store: ObjectStore, sink: str | None, *, quiet: bool) -> Report:
    if isinstance(store, S3Store):
        await store.open()
    console = Console(stderr=True)
    try:
        with Progress(
            console=console, transient=True, disable=quiet or not sys.stderr.isatty()
        ) as bar:
            task = bar.add_task("reading", total=None)
            return await verify(
                store,
                sink=sink,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        await store.close()


def _print(report: Report) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("sink", "stream", "shard", "plans", "files", "rows", "size", "state"):
        table.add_column(column)
    for shard in report.shards:
        state = "proven" if not (shard.problems or shard.lost) else "NOT PROVEN"
        if shard.unfinished:
            state += f", {shard.unfinished} plan under way"
        table.add_row(
            shard.sink,
            shard.stream,
            shard.shard,
            str(shard.plans),
            str(shard.files),
            str(shard.rows),
            format_size(shard.bytes),
            state,
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)
    for shard in report.shards:
        for text in shard.problems:
            console.print(f"{shard.sink}, {shard.shard}: {text}", markup=False)
        for text in shard.lost:
            console.print(f"{shard.sink}, {shard.shard}: LOST records {text}", markup=False)
    for key in report.foreign:
        console.print(f"{key}: no plan names this file; its rows are counted, too", markup=False)
    verdict = "every record once" if report.is_proven else "NOT every record once"
    console.print(f"{report.files} files, {report.rows} rows: {verdict}")
