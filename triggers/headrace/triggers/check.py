"""What is wrong with a trigger's function, found by reading its file: nothing is imported."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.core.part import Finding
from headrace.triggers.config import TriggerConfig
from headrace.triggers.function import FunctionName


def check_trigger(
    trigger: TriggerConfig, *, base: Path, streams: Sequence[str] | None
) -> Iterator[Finding]:
    """Findings on one trigger, with locations inside its own entry."""
    if streams is not None and trigger.stream not in streams:
        yield Finding(
            ("stream",),
            f"no stream is called {trigger.stream!r}",
            _nearest(trigger.stream, streams),
        )
    if trigger.on_failure is not None and (base / trigger.on_failure).is_file():
        yield Finding(
            ("on_failure",),
            f"{base / trigger.on_failure} is a file",
            "name a folder for dead letters",
        )
    name = FunctionName.parse(trigger.function)
    path = base / name.file
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        yield Finding(
            ("function",),
            f"cannot read {path}: {error.strerror}",
            "the path starts from the folder of the YAML file",
        )
        return
    except (SyntaxError, ValueError) as error:
        yield Finding(("function",), f"{path} is not Python: {error}")
        return
    yield from _check_handler(tree, name)
    yield from _check_emits(tree, trigger.stream, streams)


def _check_handler(tree: ast.Module, name: FunctionName) -> Iterator[Finding]:
    bound = dict(_bindings(tree.body))
    if name.attribute not in bound:
        if "*" in bound:  # `from somewhere import *` may bring it
            return
        functions = [n for n, node in bound.items() if isinstance(node, _FUNCTIONS)]
        hint = _nearest(name.attribute, functions)
        yield Finding(("function",), f"{name.file} has no function {name.attribute!r}", hint)
        return
    handler = bound[name.attribute]
    if isinstance(handler, _FUNCTIONS) and not handler.decorator_list and not _takes_two(handler):
        yield Finding(
            ("function",),
            f"{name.attribute} in {name.file}, line {handler.lineno}, cannot be called with two "
            "arguments",
            f"def {name.attribute}(event, context):",
        )


def _check_emits(tree: ast.Module, source: str, streams: Sequence[str] | None) -> Iterator[Finding]:
    """`something.emit("stream", …)` with the stream written out."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="emit"), args=[ast.Constant(value=str(target)), *_]
            ):
                if target == source:
                    yield Finding(
                        ("function",),
                        f"line {node.lineno} emits to {target!r}, the stream this trigger reads; "
                        "that is refused when it runs",
                        "emit to another stream",
                        is_error=False,
                    )
                elif streams is not None and target not in streams:
                    yield Finding(
                        ("function",),
                        f"line {node.lineno} emits to {target!r}, which is not declared; the "
                        "trigger waits there until the stream exists",
                        _nearest(target, streams),
                        is_error=False,
                    )


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _bindings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names a module binds at its top level, also inside `if` and `try`."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node
            case ast.Assign(targets=targets):
                for target in targets:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name):
                            yield part.id, node
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    yield alias.asname or alias.name.partition(".")[0], node
            case ast.If(body=inner, orelse=other):
                yield from _bindings([*inner, *other])
            case ast.Try(body=inner, handlers=handlers, orelse=other, finalbody=final):
                caught = [statement for handler in handlers for statement in handler.body]
                yield from _bindings([*inner, *caught, *other, *final])
            case ast.With(body=inner):
                yield from _bindings(inner)


def _takes_two(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    keywords = any(default is None for default in arguments.kw_defaults)
    return required <= 2 and (positional >= 2 or arguments.vararg is not None) and not keywords


def _nearest(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(map(repr, known))}" if known else None
