"""The `triggers` section of a pipeline's YAML file: a list of these."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
)

from headrace.core.model.records import StartingPosition
from headrace.core.units import DurationMs, SizeBytes
from headrace.triggers.event import iso_ms
from headrace.triggers.function import FunctionName
from headrace.triggers.retry import FOREVER

MAX_BATCH_RECORDS = 10_000  # Lambda's BatchSize
MAX_WINDOW_MS = 300_000  # Lambda's MaximumBatchingWindowInSeconds
MAX_RETRIES = 10_000  # Lambda's MaximumRetryAttempts
#: Room for Python (measured: 30 MiB) and for Lambda's largest event as bytes and as objects.
MIN_MEMORY_BYTES = 64 * 1024 * 1024

_TRIGGER_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_STREAM_NAME = r"^[a-zA-Z0-9_.-]{1,128}$"
_START_WORDS = {
    "beginning": StartingPosition.TRIM_HORIZON,
    "trim_horizon": StartingPosition.TRIM_HORIZON,
    "latest": StartingPosition.LATEST,
}


class Start(NamedTuple):
    """Where to begin on a shard that has no checkpoint. `at_ms` with AT_TIMESTAMP only."""

    position: StartingPosition
    at_ms: int | None = None


def parse_start(value: object) -> Start:
    """`beginning`, `latest` (or Lambda's words), or an ISO 8601 time; without a zone it is UTC.

    Raises ValueError on anything else. YAML reads a bare time as a time already.
    """
    if isinstance(value, Start):
        return value
    if isinstance(value, str):
        if word := _START_WORDS.get(value.lower()):
            return Start(word)
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return Start(StartingPosition.AT_TIMESTAMP, round(moment.timestamp() * 1000))
    raise ValueError("beginning, latest, or a time such as 2026-11-22T10:00:00Z")


def _write_start(start: Start) -> str:
    if start.at_ms is not None:
        return iso_ms(start.at_ms)
    return "latest" if start.position is StartingPosition.LATEST else "beginning"


def _parse_retries(value: object) -> object:
    return FOREVER if value == "forever" else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class BatchConfig(_Section):
    """How many records an invocation gets, and how long they are gathered."""

    size: int = Field(
        default=100, ge=1, le=MAX_BATCH_RECORDS, description="Most records in one invocation."
    )
    window: DurationMs = Field(
        default=0,
        le=MAX_WINDOW_MS,
        description="How long to gather records for a batch that is not full; 0s sends at once.",
    )


class TriggerConfig(_Section):
    """One function on one stream."""

    function: str = Field(
        description="file.py:name; the file is looked for from the folder of the YAML file."
    )
    stream: str = Field(pattern=_STREAM_NAME, description="The stream whose records it gets.")
    name: str = Field(
        default="",
        description=(
            "What checkpoints are kept under, and the function is called in logs; by default "
            "made of the file's and the function's name. Keep it and you may rename those."
        ),
    )
    batch: BatchConfig = Field(default_factory=BatchConfig)
    start: Annotated[
        Start, BeforeValidator(parse_start), PlainSerializer(_write_start, return_type=str)
    ] = Field(
        default=Start(StartingPosition.TRIM_HORIZON),
        description="Where to begin when there is no checkpoint: beginning, latest, or a time.",
    )
    retries: Annotated[int, BeforeValidator(_parse_retries)] = Field(
        default=3,
        ge=FOREVER,
        le=MAX_RETRIES,
        description=(
            "How often a failed batch is tried again before it becomes a dead letter (3 means 4 "
            "invocations); `forever` blocks the shard until the batch succeeds."
        ),
    )
    timeout: DurationMs = Field(
        default=60_000, ge=1, description="How long one invocation may take before it is killed."
    )
    memory: SizeBytes | None = Field(
        default=None,
        ge=MIN_MEMORY_BYTES,
        description="Most address space of a worker process; unlimited when not given.",
    )
    report_batch_item_failures: bool = Field(
        default=False, description="Honour a returned batchItemFailures; otherwise it is ignored."
    )
    on_failure: str | None = Field(
        default=None,
        min_length=1,
        description="Folder for dead letters; by default one in the data folder.",
    )
    workers: int = Field(
        default=8,
        ge=1,
        le=1_000,
        description="Most invocations of this function at once, over all shards.",
    )

    @field_validator("function")
    @classmethod
    def _is_function(cls, value: str) -> str:
        FunctionName.parse(value)
        return value

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if value and not _TRIGGER_NAME.match(value):
            raise ValueError("1 to 64 letters, digits, - and _")
        return value

    def model_post_init(self, _context: Any) -> None:
        if not self.name:
            object.__setattr__(self, "name", FunctionName.parse(self.function).default_trigger_name)


def _have_own_names(triggers: list[TriggerConfig]) -> list[TriggerConfig]:
    seen: dict[str, TriggerConfig] = {}
    for trigger in triggers:
        other = seen.setdefault(trigger.name, trigger)
        if other is not trigger:
            raise ValueError(
                f"two triggers are called {trigger.name!r} ({other.function} on {other.stream} "
                f"and {trigger.function} on {trigger.stream}); give one of them a `name:`"
            )
    return triggers


TriggersConfig = Annotated[list[TriggerConfig], AfterValidator(_have_own_names)]
