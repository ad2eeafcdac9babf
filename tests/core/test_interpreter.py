"""A process that serves shares its interpreter as its writer's thread needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.core.interpreter import SWITCH_INTERVAL_S

SERVE = """
import sys, uvloop
from headrace.core.serve import serve
from headrace.core.server import ServerConfig
def run(main):
    main.close()
    print(sys.getswitchinterval())
uvloop.run = run
serve(ServerConfig(port=0, data={folder}))
"""


def test_a_serving_process_hands_over_soon(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE.format(folder=repr(str(tmp_path)))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{SWITCH_INTERVAL_S}\n", done.stderr
