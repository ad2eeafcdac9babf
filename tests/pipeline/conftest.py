"""Fixtures of the pipeline's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.pipeline.testing import SCRIPTED
from pipeline.support import (
    REAL_PARTS,
    Environment,
    RunningPipeline,
)


@pytest.fixture
def scripted(tmp_path: Path) -> Environment:
    """An environment whose parts are scripted ones."""
    return Environment(tmp_path / "site", SCRIPTED)


@pytest.fixture
def real(tmp_path: Path) -> Environment:
    """An environment with the real parts."""
    return Environment(tmp_path / "site", REAL_PARTS)


@pytest.fixture
def up(scripted: Environment, tmp_path: Path) -> Iterator[Callable[..., RunningPipeline]]:
    """Starts pipelines of scripted parts: `up(agent="drain_ms: 10", sinks="")`."""
    started: list[RunningPipeline] = []

    def start(**scripts: str) -> RunningPipeline:
        running = RunningPipeline(scripted, tmp_path, scripts)
        started.append(running)
        return running

    yield start
    for running in started:
        running.clean_up()
