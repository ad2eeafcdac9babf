"""How a server process is: memory, descriptors, CPU time, its log, and records put before."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_support import boto3_client, create, read_stream
from headrace.core.testing.server_process import ServerProcess

KEPT = "kept"  # the stream no test touches
TROUBLE = ("Traceback", "unexpected error", "Exception in", "Internal", "never retrieved", "ERROR")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Vitals:
    rss_mb: float
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Vitals:
        status = Path(f"/proc/{pid}/status").read_text()
        rss_kb = int(status.partition("VmRSS:")[2].split()[0])
        return cls(rss_kb / 1024, len(os.listdir(f"/proc/{pid}/fd")))


def sockets(pid: int) -> int:
    """How many sockets the process has open.

    To be compared where a few descriptors matter: files it also opens when it pleases.
    """
    count = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("socket:")
    return count


def peak_mb(pid: int) -> float:
    """The most memory the process ever had, or has had since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_s(pid: int) -> float:
    """CPU time that the process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


class Watched:
    """A server with records in it, that is to be as well after a test as before."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.kinesis: Any = boto3_client(process.endpoint)
        create(self.kinesis, KEPT, shards=2)
        records = [{"Data": b"%d" % n * 50, "PartitionKey": f"k{n}"} for n in range(200)]
        assert self.kinesis.put_records(StreamName=KEPT, Records=records)["FailedRecordCount"] == 0
        self._kept = read_stream(self.kinesis, KEPT)
        self._before = Vitals.of(process.pid)
        self._log_before = len(process.log_text)

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self) -> None:
        """From here on it is compared."""
        self._before = Vitals.of(self.pid)
        self._log_before = len(self.process.log_text)

    def is_well(self, *, grown_mb: float = 60, descriptors: int = 20) -> None:
        """It answers, has its records, and gave back what it took; its log has no trouble."""
        assert read_stream(self.kinesis, KEPT) == self._kept
        most = self._before.descriptors + descriptors
        until(lambda: Vitals.of(self.pid).descriptors <= most, "descriptors are given back")
        now = Vitals.of(self.pid)
        assert now.rss_mb - self._before.rss_mb < grown_mb, (self._before, now)
        log = self.process.log_text[self._log_before :]
        assert not any(word in log for word in TROUBLE), log[-5_000:]
        assert len(log) < 200_000, "it writes a line for whoever asks for it"
