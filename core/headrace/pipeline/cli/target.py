"""Which stream endpoint a command talks to: `--endpoint`, or the one of a pipeline's file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headrace.core.part import StreamTarget
from headrace.pipeline.parts import installed_parts

Endpoint = Annotated[
    str | None,
    typer.Option(
        envvar="HEADRACE_ENDPOINT",
        help="URL of the stream's API.",
        show_default=StreamTarget.endpoint,
    ),
]
Region = Annotated[
    str | None,
    typer.Option(envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], help="Region to sign for."),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="Endpoint, region and keys of this pipeline's file."
    ),
]


def make_target(endpoint: str | None, region: str | None, file: Path | None) -> StreamTarget:
    """Put a target together; keys come from the file, or AWS_ACCESS_KEY_ID and its secret.

    Raises:
        ConfigError: the file has errors.
    """
    target = StreamTarget()
    if file is not None:
        from headrace.pipeline.config.pipeline_file import read_pipeline

        target = read_pipeline(file, installed_parts()).target
    if target.access_key_id is None:
        target = replace(
            target,
            access_key_id=os.environ.get("AWS_ACCESS_KEY_ID"),
            secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        )
    if endpoint is not None:
        target = replace(target, endpoint=endpoint.rstrip("/"))
    if region is not None:
        target = replace(target, region=region)
    return target
