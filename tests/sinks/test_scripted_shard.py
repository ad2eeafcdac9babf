"""The shard without a server: what tests of workers that race rest on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from headrace.sinks.testing import ScriptedShard, make_records

RECORDS = make_records([b"x"] * 3)


async def test_workers_that_race_keep_their_checkpoints_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is held up between writing its checkpoint and putting it in place; another is not."""
    file = tmp_path / "checkpoint"
    slow = ScriptedShard(RECORDS, checkpoint_file=file)
    fast = ScriptedShard(RECORDS, checkpoint_file=file)
    real = os.replace
    seen = []

    def held_up(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "replace", real)
        fast._keep(RECORDS[1].sequence_number)
        seen.append(json.loads(file.read_text()))
        real(source, target)

    monkeypatch.setattr(os, "replace", held_up)
    await slow.save(RECORDS[0].sequence_number)
    assert seen == [RECORDS[1].sequence_number]
    assert json.loads(file.read_text()) == RECORDS[0].sequence_number
    assert list(tmp_path.iterdir()) == [file]
