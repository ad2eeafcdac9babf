"""Dead letters: whole or not at all, and Lambda's document in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from headrace.core.model.records import Record
from headrace.triggers.dead_letters import DeadLetter, failure_document, letter_name, write
from headrace.triggers.event import Batch, EventSource

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/access"
SOURCE = EventSource(STREAM_ARN, "shardId-000000000001", "arn:role", "us-east-1")
BATCH = Batch(
    tuple(
        SOURCE.encode(Record(b"x", "k", number, arrival_ms))
        for number, arrival_ms in (("100", 1_573_691_884_835), ("200", 1_573_691_885_580))
    )
)
LETTER = DeadLetter(
    name=letter_name("alerts", SOURCE.shard_id, BATCH),
    document=b"{}",
    event=BATCH.event(),
    attempts=b"[]",
    traceback="Traceback \ud800",
    output="printed",
)


def test_the_document_is_lambdas() -> None:
    """Layout and values as the developer guide shows them."""
    document = failure_document(
        batch=BATCH,
        shard_id=SOURCE.shard_id,
        stream_arn=SOURCE.stream_arn,
        function_arn="arn:function",
        request_id="id",
        invoke_count=2,
        now_ms=1_573_691_886_021,
        was_invoked=True,
        function_error="Unhandled",
    )
    expected = {
        "requestContext": {
            "requestId": "id",
            "functionArn": "arn:function",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 2,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        },
        "version": "1.0",
        "timestamp": "2019-11-14T00:38:06.021Z",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000001",
            "startSequenceNumber": "100",
            "endSequenceNumber": "200",
            "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
            "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
            "batchSize": 2,
            "streamArn": STREAM_ARN,
        },
    }
    assert json.dumps(document) == json.dumps(expected)


def test_a_letter_is_a_folder(tmp_path: Path) -> None:
    place = write(tmp_path / "dead" / "alerts", LETTER)
    assert place == tmp_path / "dead" / "alerts" / "alerts-shardId-000000000001-100-200"
    assert {file.name for file in place.iterdir()} == set(LETTER.files())
    assert (place / "event.json").read_bytes() == BATCH.event()
    assert (place / "output.txt").read_text() == "printed"


def test_writing_it_again_changes_nothing(tmp_path: Path) -> None:
    place = write(tmp_path, LETTER)
    before = {file.name: file.stat().st_ino for file in place.iterdir()}
    assert write(tmp_path, LETTER) == place
    assert {file.name: file.stat().st_ino for file in place.iterdir()} == before
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
@pytest.mark.parametrize("nth", range(1, 9))
def test_a_failure_at_any_step_leaves_nothing_to_see_and_the_next_try_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    owner = os if call == "fsync" else Path
    real, count = getattr(owner, call), 0

    def failing(*arguments: object, **keywords: object) -> object:
        nonlocal count
        count += 1
        if count == nth:
            raise OSError(28, "No space left on device")
        return real(*arguments, **keywords)

    folder = tmp_path / "dead" / "alerts"
    with monkeypatch.context() as patched:
        patched.setattr(owner, call, failing)
        try:
            write(folder, LETTER)
        except OSError:
            seen = [f for f in folder.glob("*") if not f.name.startswith(".")]
            # Its own name may only be there once all of it is.
            assert all({f.name for f in place.iterdir()} == set(LETTER.files()) for place in seen)
    place = write(folder, LETTER)
    assert (place / "event.json").read_bytes() == BATCH.event()
    assert list(folder.iterdir()) == [place]


def test_names_of_two_triggers_in_one_folder_differ() -> None:
    assert letter_name("a", "s", BATCH) != letter_name("b", "s", BATCH)
