"""Pydantic's errors in this file's terms: line, column, key, value, what was expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.pipeline.config.document import Document, Path, Problem
from headrace.pipeline.config.shape import Shape

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (put it in quotes if it looks like a number)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dataclass_type": "a mapping of keys to values",
    "none_required": "nothing",
}
_WRITTEN_MAX_CHARS = 60


def explain(
    errors: Iterable[Mapping[str, Any]], *, section: str, document: Document, shape: Shape
) -> list[Problem]:
    """Problems for the errors of one section's validation, in the order of the file.

    Args:
        errors: what `pydantic.ValidationError.errors()` gives for the section's value.
        section: the top-level key.
        document: the file the value came from.
        shape: the section's schema.
    """
    found: dict[tuple[Path, str], Problem] = {}
    refused = {(problem.path, problem.line, problem.column) for problem in document.problems}
    explained = [(_path(error, section, document), error) for error in errors]
    paths = [path for path, _ in explained]
    for path, error in explained:
        place = document.places.get(path)
        if place and (path, *place.start) in refused:
            continue  # its variable could not be expanded; that is said already
        kind = str(error["type"])
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        if deeper and kind.endswith("_type"):
            continue  # the other half of `a word or a mapping`, when it is a mapping
        problem = _problem(path, error, document, shape)
        found.setdefault((path, problem.message), problem)
    return sorted(_merged(found.values()), key=lambda p: (p.line, p.column))


def nearest(word: str, known: Sequence[str]) -> str:
    """` (did you mean …?)`, or the known words when they are few, or nothing."""
    if word in known:  # a key of another of several shapes the value could have
        return " beside the others given here"
    folded = {_fold(k): k for k in known}
    close = difflib.get_close_matches(_fold(word), list(folded), n=1, cutoff=0.6)
    if not close:
        starts = [k for k in folded if k.startswith(_fold(word)) or _fold(word).startswith(k)]
        close = starts[:1]
    if close:
        return f" (did you mean {folded[close[0]]}?)"
    if 0 < len(known) <= 12:
        return f" (known here: {', '.join(known)})"
    return ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")


def _path(error: Mapping[str, Any], section: str, document: Document) -> Path:
    """The error's location as a path of the file.

    Pydantic puts union tags and marks such as `[key]` among the keys; those are stepped over.
    The last step of a missing key is kept, although nothing is there.
    """
    path: Path = (section,)
    location = list(error["loc"])
    for i, step in enumerate(location):
        is_missing = error["type"] == "missing" and i == len(location) - 1
        if (*path, step) in document.places or is_missing:
            path = (*path, step)
    return path


def _problem(path: Path, error: Mapping[str, Any], document: Document, shape: Shape) -> Problem:
    kind = str(error["type"])
    if kind == "missing":
        place = document.places[_existing(path, document)]
        line, column = place.key or place.start
        return Problem(line=line, column=column, path=path, message="this key is missing")
    place = document.places[path]
    at_key = kind in ("extra_forbidden", "invalid_key") or "[key]" in error["loc"]
    line, column = (place.key or place.start) if at_key else place.start
    if kind == "extra_forbidden":
        message = "unknown key" + nearest(str(path[-1]), shape.known_keys(path[1:-1]))
    else:
        message = _message(kind, path, error, document, shape)
    return Problem(line=line, column=column, path=path, message=message)


def _message(
    kind: str, path: Path, error: Mapping[str, Any], document: Document, shape: Shape
) -> str:
    context = error.get("ctx", {})
    got = _got(path, document, shape)
    near = ""
    if kind in _EXPECTED:
        text = f"expected {_EXPECTED[kind]}"
    elif kind in ("literal_error", "enum"):
        choices = shape.choices(path[1:])
        text = f"expected {context.get('expected', ' or '.join(choices))}"
        written = document.places[path].written
        if written and not shape.is_secret(path[1:]):
            near = nearest(written, choices) if len(choices) > 1 else ""
            near = near if "did you mean" in near else ""
    elif kind in ("value_error", "assertion_error"):
        text = str(context.get("error", error["msg"]))
        if re.match(r"an? ", text):
            text = f"expected {text}"
        if document.places[path].written is None:
            got = ""  # said of a whole mapping or list, in words of its own
    else:
        text = re.sub(r"^(Input|Value|String|List|Dictionary) should ", "should ", error["msg"])
        text = re.sub(r"^should be ", "expected ", text)
        text = re.sub(r"^expected (valid|greater|less|at)", r"expected a value \1", text)
    return _without_secrets(text, path, document, shape) + got + near


def _got(path: Path, document: Document, shape: Shape) -> str:
    """`, got …`: the text as written, so an expanded variable shows its name, not its content."""
    place = document.places[path]
    if shape.is_secret(path[1:]):
        return ""
    if place.written is None:
        value = document.value_at(path)
        return ", got a list" if isinstance(value, list) else ", got a mapping"
    if not place.written:
        return ", got nothing"
    written = place.written.replace("\n", " ")
    if len(written) > _WRITTEN_MAX_CHARS:
        written = written[: _WRITTEN_MAX_CHARS - 1] + "…"
    return f", got {written}"


def _without_secrets(text: str, path: Path, document: Document, shape: Shape) -> str:
    """A validator may quote its input; a secret or an expanded variable is taken out again."""
    place = document.places[path]
    if not (place.is_expanded or shape.is_secret(path[1:])):
        return text
    value = document.value_at(path)
    if isinstance(value, str | int | float) and str(value):
        hidden = place.written if place.is_expanded else None
        return text.replace(str(value), hidden or "****")
    return text


def _existing(path: Path, document: Document) -> Path:
    while path not in document.places:
        path = path[:-1]
    return path


def _merged(problems: Iterable[Problem]) -> list[Problem]:
    """One problem a path: the alternatives of a union are joined by `or`."""
    by_path: dict[Path, Problem] = {}
    for problem in problems:
        before = by_path.get(problem.path)
        if before is None:
            by_path[problem.path] = problem
        else:
            first = before.message.split(", got ")[0]
            joined = f"{first}, or {problem.message.removeprefix('expected ')}"
            by_path[problem.path] = Problem(
                line=before.line, column=before.column, path=problem.path, message=joined
            )
    return list(by_path.values())
