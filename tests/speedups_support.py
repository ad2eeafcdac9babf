"""For the tests of what is compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from headrace.core import speedups

compiled_only = pytest.mark.skipif(
    not speedups.IS_COMPILED and "CI" not in os.environ,
    reason="not built: there was no C compiler when Headrace was installed",
)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in Python that has this name."""
    return speedups.PLAIN[function.__name__]
