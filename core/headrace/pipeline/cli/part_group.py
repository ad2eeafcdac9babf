"""`headrace agent …`, `triggers …`, `sinks …`: run a part alone, and the verbs it brings along.

`headrace sinks FILE` is short for `headrace sinks run FILE`; `headrace sinks verify TARGET` is the
part's own verb. A file that is named like a verb needs the long form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from headrace.core.errors import ConfigError
from headrace.pipeline.parts import installed_parts

File = Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline's YAML file.")]

_DEFAULT_VERB = "run"


class PartGroup(TyperGroup):
    """A group whose verbs come from the part, loaded when the group is used and not before."""

    @cached_property
    def _brought(self) -> dict[str, Any]:
        try:
            parts = installed_parts()
            verbs = parts.load(self.name).commands() if self.name and self.name in parts else None
        except ConfigError:
            return {}  # `run` will say what is wrong
        if verbs is None:
            return {}
        # An empty callback keeps it a group when it has a single verb.
        if verbs.registered_callback is None:
            verbs.callback()(lambda: None)
        command: Any = get_command(verbs)
        return dict(command.commands)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self._brought]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or self._brought.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] != "--help" and self.get_command(ctx, args[0]) is None:
            args = [_DEFAULT_VERB, *args]
        return super().parse_args(ctx, args)


def part_app(section: str, summary: str) -> typer.Typer:
    """The group of one part."""
    app = typer.Typer(
        name=section,
        cls=PartGroup,
        help=f"{summary} `headrace {section} FILE` is `headrace {section} run FILE`.",
        no_args_is_help=True,
    )
    app.callback()(lambda: None)
    app.command(_DEFAULT_VERB, help=f"{summary} Ends on SIGTERM or SIGINT, drained.")(
        _run_command(section)
    )
    return app


def _run_command(section: str) -> Callable[..., None]:
    def run(file: File) -> None:
        from headrace.pipeline.config.pipeline_file import read_pipeline
        from headrace.pipeline.control import StartPacket
        from headrace.pipeline.host import host_alone
        from headrace.pipeline.logs import log_to_stderr

        parts = installed_parts()
        pipeline = read_pipeline(file, parts)
        if section not in pipeline.raw:
            raise ConfigError(f"{file} has no section {section}")
        log_to_stderr()
        packet = StartPacket(
            section=section,
            reference=parts.reference(section),
            values=pipeline.raw[section],
            data=pipeline.data,
            base=pipeline.base,
            target=pipeline.target,
        )
        raise typer.Exit(host_alone(packet))

    return run
