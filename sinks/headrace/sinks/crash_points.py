"""Places where tests kill the process: nothing at all unless an environment variable names one.

`HEADRACE_SINKS_CRASH_AT=after-plan:3` sends SIGKILL to this very process the third time it comes
to that point. `headrace.sinks.testing.CRASH_POINTS` lists them.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "HEADRACE_SINKS_CRASH_AT"

_name, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count or 1)


def crash_point(name: str) -> None:
    """Die here, if the environment says so."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
