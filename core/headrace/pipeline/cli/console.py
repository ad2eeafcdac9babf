"""Where words and data go: data to stdout, talk to stderr, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

out = Console(highlight=False)
talk = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    print(json.dumps(value, indent=2, default=str))


def print_json_line(value: Any) -> None:
    """One JSON value a line, flushed: somebody may be following."""
    print(json.dumps(value, default=str), flush=True)


def print_table(table: Table) -> None:
    """A table as wide as it needs to be: a pipe has no width to cut it to."""
    if sys.stdout.isatty():
        out.print(table)
    else:
        Console(highlight=False, width=200, file=sys.stdout).print(table)


def plain_table(*columns: str) -> Table:
    """The house's table: no frame, a header, columns two blanks apart."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table
