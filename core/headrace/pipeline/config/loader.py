"""YAML text to a Document: YAML 1.2 core scalars, places kept, duplicate keys refused.

Composes with PyYAML (libyaml where it is built in) and constructs the values here, because
PyYAML's own construction drops the places, takes the last of two equal keys in silence and reads
scalars by YAML 1.1. All problems of a text are gathered; only a syntax error ends the reading.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from headrace.pipeline.config.document import Document, Path, Place, Problem
from headrace.pipeline.config.scalars import Scalar, plain_value
from headrace.pipeline.config.variables import VariableError, expand, has_variables

#: Values in one file after aliases are followed; what is beyond is an alias bomb, not a pipeline.
MAX_VALUES = 100_000

_PLAIN = "headrace:plain"
_QUOTED = "headrace:quoted"
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset((_PLAIN, _QUOTED, *(_TAG + t for t in ("str", "int", "float", "bool"))))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Tells plain scalars from quoted ones and resolves nothing."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return _TAG + ("seq" if kind is yaml.SequenceNode else "map")


def load(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Read YAML text.

    Args:
        text: the whole file.
        name: what to call it in messages.
        environment: where `${NAME}` looks; the process's own environment by default.

    Returns:
        A Document; its `problems` hold everything found wrong. After a syntax error its value
        is None.
    """
    document = Document(name=name, lines=text.splitlines())
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error, document.lines))
        return document
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"character U+{error.character:04X} is not allowed in YAML"
        document.problems.append(Problem(line=line, column=column, path=(), message=message))
        return document
    if root is not None:
        variables = os.environ if environment is None else environment
        document.value = _Construction(document, variables).value(root, (), None)
    return document


def _syntax_problem(error: yaml.MarkedYAMLError, lines: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    words = [error.problem or "not YAML"]
    if error.context:
        words.append(error.context)
        if error.context_mark and error.context_mark.line + 1 != line:
            words[-1] += f" that began on line {error.context_mark.line + 1}"
    message = ", ".join(words)
    written = lines[line - 1] if line <= len(lines) else ""
    if "!{" in written:
        message += "; put an expression that begins with ! in quotes"
    elif "\t" in written[: max(column, 1)]:
        message += "; YAML does not allow tabs for indentation"
    return Problem(line=line, column=column, path=(), message=message)


class _Construction:
    """One walk over the composed nodes."""

    def __init__(self, document: Document, environment: Mapping[str, str]) -> None:
        self._document = document
        self._environment = environment
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: Path, key: yaml.Node | None) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            if self._count == MAX_VALUES + 1:
                self._problem(node, path, f"more than {MAX_VALUES} values; too many aliases?")
            return None
        self._document.places[path] = _place(node, key)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            self._problem(node, path, "an alias that contains itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, path, "seq")
                return [self.value(item, (*path, i), None) for i, item in enumerate(node.value)]
            self._check_tag(node, path, "map")
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, path, "a key must be a word, not a mapping or a list")
                continue
            name = key.value
            if name == "<<" and key.tag == _PLAIN:
                merged.append(value)
                continue
            if name in first:
                line = first[name].start_mark.line + 1
                message = f"the same key again: it is already on line {line}; remove one of them"
                self._problem(key, (*path, name), message)
                continue
            first[name] = key
            out[name] = self.value(value, (*path, name), key)
        for source in merged:
            self._merge(source, path, out)
        return out

    def _merge(self, source: yaml.Node, path: Path, out: dict[str, Any]) -> None:
        """`<<: *alias` or `<<: [*a, *b]`: keys that are not there yet."""
        for one in source.value if isinstance(source, yaml.SequenceNode) else [source]:
            if not isinstance(one, yaml.MappingNode):
                self._problem(one, path, "<< takes an alias of a mapping")
                continue
            for key, value in one.value:
                if isinstance(key, yaml.ScalarNode) and key.value not in out:
                    out[key.value] = self.value(value, (*path, key.value), key)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Scalar:
        text: str = node.value
        if node.tag not in _SCALAR_TAGS and node.tag != _TAG + "null":
            message = f"the tag {node.tag.removeprefix(_TAG)} is not known here"
            self._problem(node, path, f"{message}; a text that begins with ! belongs in quotes")
            return None
        if has_variables(text):
            # Always text: the schema makes a number of it where it wants one, and a password
            # of digits stays what it is.
            place = replace(self._document.places[path], is_expanded=True)
            self._document.places[path] = place
            try:
                return expand(text, self._environment)
            except VariableError as error:
                self._problem(node, path, str(error))
                return None
        return text if node.tag in (_QUOTED, _TAG + "str") else plain_value(text)

    def _check_tag(self, node: yaml.Node, path: Path, kind: str) -> None:
        if node.tag != _TAG + kind:
            self._problem(node, path, f"the tag {node.tag} is not known here")

    def _problem(self, node: yaml.Node, path: Path, message: str) -> None:
        mark = node.start_mark
        self._document.problems.append(
            Problem(line=mark.line + 1, column=mark.column + 1, path=path, message=message)
        )


def _place(node: yaml.Node, key: yaml.Node | None) -> Place:
    return Place(
        line=node.start_mark.line + 1,
        column=node.start_mark.column + 1,
        end_line=node.end_mark.line + 1,
        end_column=node.end_mark.column + 1,
        key=(key.start_mark.line + 1, key.start_mark.column + 1) if key else None,
        written=node.value if isinstance(node, yaml.ScalarNode) else None,
    )
