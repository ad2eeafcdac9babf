"""A log behind group commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from group_commit_support import WatchedFiles, open_log
from headrace.core.engine.embedded.shard_log import EmbeddedShardLog
from headrace.core.testing.faulty_files import FaultyFiles


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles(WatchedFiles())


@pytest.fixture
async def log(tmp_path: Path, files: FaultyFiles) -> AsyncIterator[EmbeddedShardLog]:
    opened = open_log(tmp_path, files)
    yield opened
    await opened.close()
