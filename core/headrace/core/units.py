"""Durations and sizes as people write them in YAML: `7d`, `2s`, `500ms`, `64MiB`.

`DurationMs` and `SizeBytes` are pydantic field types; inside they are plain integers in the
unit of their name.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*$")
_DURATION_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB|k|M|G|T)?\s*$")
_SIZE_BYTES: dict[str | None, int] = {
    None: 1,
    "B": 1,
    **{u: 1000**n for n, u in enumerate(("KB", "MB", "GB", "TB"), 1)},
    **{u: 1024**n for n, u in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    **{u: 1024**n for n, u in enumerate(("k", "M", "G", "T"), 1)},
}


def parse_duration_ms(value: object) -> object:
    """`7d`, `90s`, `1.5h`, `500ms` -> milliseconds. Raises ValueError on anything else."""
    if isinstance(value, str):
        found = _DURATION.match(value)
        if found:
            return round(float(found[1]) * _DURATION_MS[found[2]])
    raise ValueError("a duration with its unit, such as 500ms, 2s, 5m, 24h or 7d")


def parse_size_bytes(value: object) -> object:
    """`64MiB`, `5MB`, `1024` -> bytes. Raises ValueError on anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        found = _SIZE.match(value)
        if found:
            return round(float(found[1]) * _SIZE_BYTES[found[2]])
    raise ValueError("a size with its unit, such as 512KiB, 64MiB or 1GiB")


def format_duration(duration_ms: int) -> str:
    """Milliseconds -> the shortest exact form: 604800000 -> `7d`."""
    for unit in ("d", "h", "m", "s"):
        if duration_ms and duration_ms % _DURATION_MS[unit] == 0:
            return f"{duration_ms // _DURATION_MS[unit]}{unit}"
    return f"{duration_ms}ms"


def format_size(size_bytes: float) -> str:
    """Bytes for people: 1536 -> `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), Field(ge=0)]
SizeBytes = Annotated[int, BeforeValidator(parse_size_bytes), Field(ge=0)]
Secret = SecretStr
