"""The tree of verbs, and the one place where errors become words and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from headrace.core.errors import ConfigError, HeadraceError
from headrace.pipeline.cli.console import talk
from headrace.pipeline.cli.demo import demo
from headrace.pipeline.cli.part_group import part_app
from headrace.pipeline.cli.pipeline import check, status, up
from headrace.pipeline.cli.records import put, tail
from headrace.pipeline.cli.serve import SERVE_HELP, serve_main
from headrace.pipeline.cli.streams import streams_app
from headrace.pipeline.cli.usage import usage

app = typer.Typer(
    name="headrace",
    help="The Kinesis pipeline as software you own: logs in, a durable stream, your functions, "
    "Parquet out.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad usage or configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_PIPELINE = "A pipeline"
_PART = "One part alone"
_STREAM = "The stream"


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"headrace {version('headrace')}")
        except PackageNotFoundError:
            print("headrace, from a checkout that is not installed")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def _serve(context: typer.Context) -> None:
    raise typer.Exit(serve_main(context.args))


app.command(rich_help_panel=_PIPELINE)(up)
app.command(rich_help_panel=_PIPELINE)(check)
app.command(rich_help_panel=_PIPELINE)(status)
app.command(rich_help_panel=_PIPELINE)(demo)
app.command(
    "serve",
    help=SERVE_HELP,
    rich_help_panel=_PART,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(_serve)
for _section, _summary in (
    ("agent", "Ship log files into streams."),
    ("triggers", "Run handlers on records."),
    ("sinks", "Land records as Parquet."),
):
    app.add_typer(part_app(_section, _summary), rich_help_panel=_PART)
app.add_typer(streams_app, rich_help_panel=_STREAM)
app.command(rich_help_panel=_STREAM)(put)
app.command(rich_help_panel=_STREAM)(tail)
app.command(rich_help_panel=_STREAM)(usage)


def run_app() -> int:
    """Run the command line. Returns the exit code."""
    try:
        app(prog_name="headrace")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ConfigError as error:
        _complain(error)
        return 2
    except HeadraceError as error:
        _complain(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(HeadraceError(f"{where}{error.strerror or error}"))
        return 1
    return 0


def _complain(error: HeadraceError) -> None:
    """One line, or the findings of a file as they are."""
    text = str(error)
    lead = "" if "\n" in text else "headrace: error: "
    talk.print(f"{lead}{text}", markup=False, soft_wrap=True)
