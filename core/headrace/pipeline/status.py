"""`<data>/status.json`: what every part is doing, written about once a second.

A file and not a port, because it must be readable when nothing answers any more.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.core.errors import ConfigError

STATUS_FILE = "status.json"

#: A status older than this is of a supervisor that is stuck or was killed.
STALE_AFTER_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """One part. `state`: starting, running, troubled, silent, waiting (to restart), drained."""

    part: str
    state: str
    pid: int | None
    restarts: int
    since_ms: int
    figures: dict[str, int | float | str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStatus:
    """The whole pipeline. `state`: starting, running, draining, stopped."""

    state: str
    pid: int
    file: str
    endpoint: str
    started_ms: int
    updated_ms: int
    parts: tuple[PartStatus, ...]

    def is_alive(self, now_ms: int) -> bool:
        """Whether the supervisor that wrote this still writes."""
        return self.state != "stopped" and now_ms - self.updated_ms < STALE_AFTER_MS

    def is_well(self, now_ms: int) -> bool:
        return self.is_alive(now_ms) and all(p.state == "running" for p in self.parts)


def write_status(data: Path, status: PipelineStatus) -> None:
    """Replace the file in one step. Not synced: after a power cut the status is void anyway."""
    target = data / STATUS_FILE
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(status), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, target)


def read_status(data: Path) -> PipelineStatus:
    """The status last written.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = data / STATUS_FILE
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        parts = [PartStatus(**{**p, "problems": tuple(p["problems"])}) for p in fields["parts"]]
        return PipelineStatus(**{**fields, "parts": tuple(parts)})
    except FileNotFoundError:
        raise ConfigError(
            f"no pipeline has run on {data}", hint="start one: headrace up FILE"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
