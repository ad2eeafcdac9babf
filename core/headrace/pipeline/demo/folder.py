"""The demo's folder: made ready for a run, and read for what landed in it."""

from __future__ import annotations

import re
import shutil
import socket
from collections import Counter
from importlib import resources
from pathlib import Path

from headrace.core.errors import ConfigError
from headrace.pipeline.demo.traffic import REQUEST_ID
from headrace.pipeline.reckoning import (
    Reckoning,
    column_values,
    ids_in_logs,
    ids_in_parquet,
    parquet_files,
    reckon,
)

#: Names a folder as one an earlier demo made, so that this one may empty it.
MARKER = ".headrace-demo"

_SERVER_ERROR = re.compile(r'" 5\d\d \d+ "')


class DemoFolder:
    """Logs go in, a lake comes out."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._lake = self._path / "lake"
        self._seen: dict[Path, Counter[str]] = {}

    @property
    def logs(self) -> Path:
        """Where the web server writes its access log."""
        return self._path / "logs"

    @property
    def log_file(self) -> Path:
        """Where the pipeline's own log goes."""
        return self._path / "headrace.log"

    def prepare(self) -> Path:
        """Empty it, and lay out what the pipeline needs. Returns the pipeline's file.

        Raises ConfigError when it is not empty, and no demo made it.
        """
        folder = self._path
        if folder.exists() and any(folder.iterdir()):
            if not (folder / MARKER).exists():
                raise ConfigError(
                    f"{folder} is not empty, and not of an earlier demo",
                    hint="name another folder with --data",
                )
            shutil.rmtree(folder)
        for name in ("logs", "lake", "handlers"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text("made by headrace demo; the next one may empty this folder\n")
        kit = resources.files("headrace.pipeline.demo")
        handler = kit.joinpath("handlers", "errors.py").read_text(encoding="utf-8")
        (folder / "handlers" / "errors.py").write_text(handler, encoding="utf-8")
        text = kit.joinpath("demo.yaml").read_text(encoding="utf-8")
        file = folder / "demo.yaml"
        file.write_text(text.replace("127.0.0.1:4567", f"127.0.0.1:{_free_port()}"))
        return file

    def reckon(self, *, anew: bool = False) -> tuple[Reckoning, Reckoning]:
        """What was logged against what landed: all lines, and those of server errors (alerts).

        Files that were read before are not read again, but with `anew`.
        """
        if anew:
            self._seen.clear()
        logs = sorted(self.logs.glob("access.log*"))
        access = self._lake / "access"
        alerts = self._lake / "alerts"
        return (
            reckon(
                ids_in_logs(logs, REQUEST_ID),
                ids_in_parquet(access, "request", REQUEST_ID, seen=self._seen),
            ),
            reckon(
                ids_in_logs(logs, REQUEST_ID, only=_SERVER_ERROR),
                ids_in_parquet(alerts, "request", REQUEST_ID, seen=self._seen),
            ),
        )

    def answers(self) -> Counter[int]:
        """Rows of the access log by status, as they landed."""
        rows: Counter[int] = Counter()
        for file in parquet_files(self._lake / "access"):
            rows.update(int(value or 0) for value in column_values(file, "response"))
        return rows

    def files(self) -> list[Path]:
        """All Parquet files of the lake."""
        return parquet_files(self._lake)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
