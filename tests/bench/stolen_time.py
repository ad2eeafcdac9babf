"""Time that a virtual machine's host gave to others while this machine had work to do.

A machine that shares its processors stands still now and then, for milliseconds, mostly when it
wakes up from waiting: for the disk, for an answer. Who waits often, and works two milliseconds in
between, is held up by that far more often, in proportion, than who works for forty without a
pause. A second in which much was stolen says more about the neighbours than about a server.
"""

from __future__ import annotations

from pathlib import Path

_IDLE, _IO_WAIT, _STOLEN = 3, 4, 7  # the columns of /proc/stat, see proc(5)


class StolenTime:
    """The stolen share of the time in which there was work, since it was last asked for.

    Nothing is stolen on a machine of one's own, and where the kernel does not tell.
    """

    def __init__(self) -> None:
        self._before = _ticks()

    def share(self) -> float:
        """From 0 to 1."""
        now = _ticks()
        since = [after - before for before, after in zip(self._before, now, strict=True)]
        self._before = now
        at_work = sum(since) - since[_IDLE] - since[_IO_WAIT]
        return since[_STOLEN] / at_work if at_work > 0 else 0.0


def _ticks() -> list[int]:
    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except FileNotFoundError:
        return [0] * (_STOLEN + 1)
    return [int(column) for column in line.split()[1 : _STOLEN + 2]]
