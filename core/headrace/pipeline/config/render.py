"""Problems as people read them: one finding a line, the source below it, a caret under the column.

pipeline.yaml:7:11  error  streams.web.mode: expected 'on-demand' or 'provisioned', got fast
    7 |     mode: fast
      |           ^
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from headrace.pipeline.config.document import Document, Path, Problem

IsSecret = Callable[[Path], bool]


def finding_line(problem: Problem, document: Document) -> str:
    """`file:line:col  error  key: message`."""
    level = "error" if problem.is_error else "warning"
    key = f"{problem.key}: " if problem.path else ""
    return f"{document.name}:{problem.line}:{problem.column}  {level}  {key}{problem.message}"


def render(problems: Iterable[Problem], document: Document, is_secret: IsSecret) -> str:
    """All findings with their source lines; secrets in those are starred out."""
    out: list[str] = []
    for problem in problems:
        out.append(finding_line(problem, document))
        out.extend(_excerpt(problem, document, is_secret))
    return "\n".join(out)


def as_dicts(problems: Iterable[Problem], document: Document) -> list[dict[str, Any]]:
    """For `--json`: file, line, column, key, level, message."""
    return [
        {
            "file": document.name,
            "line": problem.line,
            "column": problem.column,
            "level": "error" if problem.is_error else "warning",
            "key": problem.key,
            "message": problem.message,
        }
        for problem in problems
    ]


def _excerpt(problem: Problem, document: Document, is_secret: IsSecret) -> list[str]:
    if not 1 <= problem.line <= len(document.lines):
        return []
    number = f"{problem.line:>5}"
    text = _hidden(problem, document, is_secret)
    indent = "".join("\t" if c == "\t" else " " for c in text[: problem.column - 1])
    return [f"{number} | {text}", f"{'':>5} | {indent}^"]


def _hidden(problem: Problem, document: Document, is_secret: IsSecret) -> str:
    """The source line, with every secret scalar on it replaced by stars of no telling length.

    The value of an unknown key is hidden too: it may be a secret under a misspelled name. A file
    that is not YAML has no places, so there everything after a colon is hidden.
    """
    text = document.lines[problem.line - 1]
    if document.value is None:
        head, colon, _ = text.partition(": ")
        return f"{head}{colon}…" if colon and problem.column <= len(head) + 2 else head + colon
    spans: list[tuple[int, int]] = []
    for path, place in document.places.items():
        if place.written is None or not place.line <= problem.line <= place.end_line:
            continue
        is_unknown = path == problem.path and problem.message.startswith("unknown key")
        if is_unknown or is_secret(path):
            start = place.column - 1 if place.line == problem.line else 0
            end = place.end_column - 1 if place.end_line == problem.line else len(text)
            spans.append((start, end))
    for start, end in sorted(spans, reverse=True):
        if end > start:
            text = f"{text[:start]}****{text[end:]}"
    return text
