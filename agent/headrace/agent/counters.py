"""What the agent has done since it started."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from headrace.agent.packing import Batch


@dataclass(slots=True)
class Counters:
    """Counts since the process started; bytes are of the files, newlines included."""

    lines_shipped: int = 0
    bytes_shipped: int = 0
    parse_errors: int = 0
    lines_dropped: int = 0
    long_lines_split: int = 0
    nul_bytes_skipped: int = 0
    rotations_seen: int = 0
    truncations_seen: int = 0
    bytes_lost: int = 0

    def add(self, batch: Batch) -> None:
        """A batch has been acknowledged."""
        self.lines_shipped += batch.line_count - batch.dropped_count
        self.bytes_shipped += batch.span.end - batch.span.start
        self.parse_errors += batch.parse_error_count
        self.lines_dropped += batch.dropped_count
        self.long_lines_split += batch.long_line_count
        self.nul_bytes_skipped += batch.span.nul_count

    def figures(self) -> dict[str, int | float | str]:
        return asdict(self)
