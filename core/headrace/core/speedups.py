"""Compiled twins of the functions that look at each record of a put, where they could be built.

Such a function is written in Python and marked `@compiled`. If installing Headrace found a C
compiler, the twin of its name in `_speedups.c` takes its place; if not, or with
`HEADRACE_SPEEDUPS=0` in the environment, the Python one runs and everything works the same, only
puts of many records not as fast. The tests hold both to the same answers.

`python -m headrace.core.speedups` says which are in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

PLAIN: dict[str, Callable[..., Any]] = {}
"""The functions in Python, by name."""


def _built() -> ModuleType | None:
    if os.environ.get("HEADRACE_SPEEDUPS") == "0":
        return None
    try:
        from headrace.core import _speedups
    except ImportError:
        return None
    return _speedups


_module = _built()
IS_COMPILED = _module is not None


def compiled(function: F) -> F:
    """The twin of this function, which takes arguments by position only; else itself."""
    PLAIN[function.__name__] = function
    return cast("F", getattr(_module, function.__name__, function))


def in_use() -> str:
    """Which functions run, in two words for people."""
    return "speedups compiled" if IS_COMPILED else "speedups not compiled"


if __name__ == "__main__":
    print(in_use())
