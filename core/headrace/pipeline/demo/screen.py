"""What the demo shows: a line a step, bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

Advance = Callable[[int], None]
"""Takes how much is done by now, not the difference."""

_LABEL_WIDTH = 11
_PLAIN_PERIOD_S = 2.0


class Screen:
    """Steps on the way; everything goes to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        speaks_unicode = console.encoding.lower().startswith("utf")
        self._done = "✓ " if speaks_unicode else "* "
        self._block = "█" if speaks_unicode else "#"

    def title(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))
        self._console.print()

    def done(self, label: str, text: str) -> None:
        """A step that is done."""
        self._line((self._done, "green"), label, text)

    def note(self, label: str, text: str) -> None:
        """Something good to know."""
        self._line(("  ", ""), label, text)

    def warn(self, text: str) -> None:
        self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def blank(self) -> None:
        self._console.print()

    def table(self, table: Table) -> None:
        self._console.print(Padding(table, (0, 0, 0, 2), expand=False))

    def bar(self, share: float, width: int = 24) -> Text:
        """A share of one as a bar; what is not nothing shows."""
        length = max(round(share * width), 1 if share else 0)
        return Text(self._block * length, style="cyan")

    def verdict(self, text: str, *, is_good: bool) -> None:
        """Exactly this line: programs read it."""
        self._console.print(Text(text, style="bold green" if is_good else "bold red"))

    def _line(self, mark: tuple[str, str], label: str, text: str) -> None:
        labelled = (f"{label:<{_LABEL_WIDTH}}  ", "bold")
        self._console.print(Text.assemble(mark, labelled, text), soft_wrap=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """A bar with count and rate; a plain line every two seconds where there is no terminal."""
        if not self._console.is_terminal:
            yield self._plain(label, total)
            return
        columns = (
            SpinnerColumn(),
            TextColumn(f"[bold]{label:<{_LABEL_WIDTH}}"),
            BarColumn(bar_width=32),
            TextColumn("{task.completed:,} of {task.total:,}"),
            _Rate(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=done)

    def _plain(self, label: str, total: int) -> Advance:
        told = time.monotonic()

        def advance(done: int) -> None:
            nonlocal told
            if time.monotonic() - told >= _PLAIN_PERIOD_S and done < total:
                told = time.monotonic()
                self.note(label, f"{done:,} of {total:,}")

        return advance


class _Rate(ProgressColumn):
    """Steps a second, over the last seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")
