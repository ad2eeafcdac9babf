"""Batches that failed for good, each a folder with all it takes to understand and run it again.

| file            | content                                                                  |
|-----------------|--------------------------------------------------------------------------|
| `document.json` | Lambda's on-failure document                                             |
| `event.json`    | the event document the function was invoked with, byte for byte          |
| `attempts.json` | trigger, function and its content's SHA-256, every attempt with its error |
| `traceback.txt` | of the last attempt; empty when there was none                           |
| `output.txt`    | the tail of what the last attempt printed                                |

A folder appears whole or not at all, and its name is that of the batch, so writing one again
after a crash changes nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from headrace.triggers.event import Batch, iso_ms

RETRIES_EXHAUSTED = "RetryAttemptsExhausted"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation that failed. `code` is the SHA-256 of the function's file."""

    number: int
    at: str
    duration_ms: int
    request_id: str
    code: str
    error_type: str
    message: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A folder to be: its name, and its files."""

    name: str
    document: bytes
    event: bytes
    attempts: bytes
    traceback: str
    output: str

    def files(self) -> dict[str, bytes]:
        return {
            "document.json": self.document,
            "event.json": self.event,
            "attempts.json": self.attempts,
            "traceback.txt": self.traceback.encode(errors="replace"),
            "output.txt": self.output.encode(errors="replace"),
        }


def letter_name(trigger: str, shard_id: str, batch: Batch) -> str:
    """Unique over triggers that share a folder; sorts by trigger, shard, place in the shard."""
    first, last = batch.first.sequence_number, batch.last.sequence_number
    return f"{trigger}-{shard_id}-{first}-{last}"


def failure_document(
    *,
    batch: Batch,
    shard_id: str,
    stream_arn: str,
    function_arn: str,
    request_id: str,
    invoke_count: int,
    now_ms: int,
    was_invoked: bool,
    function_error: str | None,
) -> dict[str, Any]:
    """Lambda's on-failure document.

    `function_error` is "Unhandled" after an error, None after a response that reported the
    failure. Without an invocation there is no responseContext, as on Lambda.
    """
    document: dict[str, Any] = {
        "requestContext": {
            "requestId": request_id,
            "functionArn": function_arn,
            "condition": RETRIES_EXHAUSTED,
            "approximateInvokeCount": invoke_count,
        },
    }
    if was_invoked:
        document["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": function_error,
        }
    document |= {
        "version": "1.0",
        "timestamp": iso_ms(now_ms),
        "KinesisBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": batch.first.sequence_number,
            "endSequenceNumber": batch.last.sequence_number,
            "approximateArrivalOfFirstRecord": iso_ms(batch.first.approximate_arrival_ms),
            "approximateArrivalOfLastRecord": iso_ms(batch.last.approximate_arrival_ms),
            "batchSize": len(batch),
            "streamArn": stream_arn,
        },
    }
    return document


def write(folder: Path, letter: DeadLetter) -> Path:
    """Make the letter durable below `folder`, which is created when missing.

    Returns:
        Where it is. On return it survives a power loss.

    Raises:
        OSError: it could not be written; nothing is visible of it.
    """
    target = folder / letter.name
    if target.is_dir():
        _sync_folder(folder)  # the crash may have come between its rename and this
        return target
    _make_durable_folder(folder)
    unfinished = folder / f".{letter.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a crash
    unfinished.mkdir()
    for name, content in letter.files().items():
        with (unfinished / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(unfinished)
    try:
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():  # somebody else wrote the same letter meanwhile
            raise
        shutil.rmtree(unfinished, ignore_errors=True)
    _sync_folder(folder)
    return target


def _make_durable_folder(folder: Path) -> None:
    missing = [folder, *folder.parents]
    missing = missing[: next(n for n, parent in enumerate(missing) if parent.exists())]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        _sync_folder(parent.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
