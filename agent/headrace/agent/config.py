"""The `agent` section of a pipeline file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from headrace.core.limits import DEFAULT_MAX_RECORD_BYTES, KIB, MAX_RECORD_BYTES
from headrace.core.units import DurationMs, SizeBytes

#: Left of a record's limit for its partition key (ours take at most 60 characters).
KEY_ROOM_BYTES = 1 * KIB

FormatName = Literal["raw", "json", "common-apache", "combined-apache"]
StreamName = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]+$", min_length=1, max_length=128)
]


class BatchConfig(BaseModel):
    """How many lines go together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=500, ge=1, le=500, description="Most records in one request.")
    window: DurationMs = Field(
        default=200, description="How long a line waits for others to go with it, such as 200ms."
    )


class FlowConfig(BaseModel):
    """Which files go to which stream, and in what form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="Path pattern or list of them: * ? [a-z] within a name, ** for any depth."
        " Relative ones start at the folder of this file."
    )
    exclude: str | list[str] = Field(
        default_factory=list,
        description="Patterns to leave out; one without a slash is tried on the name alone.",
    )
    stream: StreamName = Field(description="Name of the stream to ship to.")
    format: FormatName = Field(
        default="raw",
        description="raw ships each line as it is; json checks that it is a JSON object;"
        " common-apache and combined-apache turn it into one.",
    )
    start: Literal["beginning", "end"] = Field(
        default="beginning",
        description="Where to start in files found on the very first run. Later ones are always"
        " read from their beginning.",
    )
    partition_by: Literal["line", "file"] = Field(
        default="line",
        description="line spreads lines over all shards; file keeps the lines of one file in one"
        " shard, in order.",
    )
    on_parse_error: Literal["raw", "drop", "dead-letter"] = Field(
        default="raw",
        description="What becomes of a line that is not in the format: raw ships it wrapped in a"
        " JSON object, drop leaves it out (and counts it), dead-letter ships it wrapped to the"
        " stream named by dead_letter.",
    )
    dead_letter: StreamName | None = Field(
        default=None, description="Stream for lines that are not in the format."
    )
    batch: BatchConfig = Field(default_factory=lambda: BatchConfig())
    max_line: SizeBytes = Field(
        default=DEFAULT_MAX_RECORD_BYTES - KEY_ROOM_BYTES,
        ge=1 * KIB,
        le=MAX_RECORD_BYTES - KEY_ROOM_BYTES,
        description="A longer line is split into records that each carry their place. Beyond"
        " 1023KiB the stream must allow larger records.",
    )

    @property
    def patterns(self) -> list[str]:
        return [self.files] if isinstance(self.files, str) else self.files

    @property
    def exclusions(self) -> list[str]:
        return [self.exclude] if isinstance(self.exclude, str) else self.exclude

    @model_validator(mode="after")
    def _dead_letter_is_named(self) -> FlowConfig:
        if (self.on_parse_error == "dead-letter") != (self.dead_letter is not None):
            raise ValueError(
                "on_parse_error: dead-letter and dead_letter: STREAM go together; give both or none"
            )
        if self.dead_letter == self.stream:
            raise ValueError("dead_letter must be another stream than the flow's own")
        if self.format == "raw" and self.on_parse_error != "raw":
            raise ValueError("format: raw accepts every line; on_parse_error has no use there")
        return self


class AgentConfig(BaseModel):
    """The section itself: flows, and how closely their files are watched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flows: list[FlowConfig] = Field(min_length=1, description="What to ship where.")
    scan_interval: DurationMs = Field(
        default=1000,
        ge=10,
        description="How often all files are looked at. The scan takes at most a twentieth of the"
        " time: with very many files it comes less often.",
    )
    rotation_wait: DurationMs = Field(
        default=30_000,
        description="How long a rotated file must be quiet before its unfinished last line is"
        " shipped, and before a deleted one is let go.",
    )
    copy_wait: DurationMs = Field(
        default=5_000,
        description="How long a new file that is a copy of a tailed one waits for the original to"
        " be truncated, before it counts as a file of its own.",
    )
    max_open_files: int = Field(
        default=1024, ge=8, description="Most files held open. Beyond it, quiet ones are closed."
    )
    concurrency: int = Field(
        default=8, ge=1, le=64, description="Most files shipped at the same time."
    )
