"""What the tests of the control log share: one of streams, opened, and a command for it."""

from __future__ import annotations

from pathlib import Path

from headrace.core.control.machine import Command, ControlState, apply
from headrace.core.control.streams import CreateStream
from headrace.core.engine.embedded.control_log import SqliteControlLog
from headrace.core.log.files import Files

ControlLog = SqliteControlLog[ControlState, Command]


def open_log(
    path: Path, fatal: list[BaseException] | None = None, files: Files | None = None
) -> ControlLog:
    return SqliteControlLog(
        path,
        state_type=ControlState,
        command_type=Command,
        apply=apply,
        on_fatal=(fatal if fatal is not None else []).append,
        files=files,
    )


def create(name: str) -> CreateStream:
    return CreateStream(
        account="1", region="r", name=name, uid=name, at_ms=1000, mode="PROVISIONED", shards=2
    )
