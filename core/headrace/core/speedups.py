"""Compiled twins of functions that look at each record of a put, or each header of a request.

Such a function is written in Python and marked `@compiled`. If installing Headrace found a C
compiler, the twin of its name in `_speedups` (the `_*.c` here) takes its place; if not, or with
`HEADRACE_SPEEDUPS=0` in the environment, the Python one runs and everything works the same, only
puts of many records, and small requests, are not as fast. The tests hold both to the same answers.

`python -m headrace.core.speedups` says whether the twins are in use.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

PLAIN: dict[str, Callable[..., Any]] = {}
"""The functions in Python, by name."""

_VERSION = 5  # as in _speedups.c


def _built() -> ModuleType | None:
    """The module, unless it is not wanted or was built of another source than is here."""
    if os.environ.get("HEADRACE_SPEEDUPS") == "0":
        return None
    try:
        module = importlib.import_module("headrace.core._speedups")
    except ImportError:
        return None
    return module if getattr(module, "VERSION", None) == _VERSION else None


_module = _built()
IS_COMPILED = _module is not None


def compiled(function: F) -> F:
    """The twin of this function, which takes arguments by position only; else itself."""
    PLAIN[function.__name__] = function
    return function if _module is None else cast("F", getattr(_module, function.__name__))


def in_use() -> str:
    """Whether the twins are, for people."""
    return "speedups on" if IS_COMPILED else "speedups off"


if __name__ == "__main__":
    print(in_use())
