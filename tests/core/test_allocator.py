"""What a serving process does about its memory; in processes of their own, not in this one."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("calls", "is_left_out"),
    [
        (["leave_out_of_collections()"], True),
        (["leave_out_of_collections(again=True)"], False),
        (["leave_out_of_collections()", "leave_out_of_collections(again=True)"], True),
    ],
)
def test_only_a_process_that_was_asked_to_is_left_out_of_collections(
    calls: list[str], is_left_out: bool
) -> None:
    program = [
        "import gc",
        "from headrace.core.allocator import leave_out_of_collections",
        *calls[:1],
        "later = [[] for _ in range(50_000)]",
        *calls[1:],
        "print(gc.get_freeze_count(), len(gc.get_objects()))",
    ]
    run = [sys.executable, "-c", "\n".join(program)]
    out = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
    frozen, looked_at = map(int, out.split())
    assert (frozen > 0) == is_left_out
    assert (looked_at > 50_000) == (len(calls) == 1)
