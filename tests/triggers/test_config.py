"""The section of the YAML file: what it takes, and what it says to the rest."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from headrace.core.model.records import StartingPosition
from headrace.triggers.config import Start, TriggerConfig, TriggersConfig

ADAPTER: TypeAdapter[list[TriggerConfig]] = TypeAdapter(TriggersConfig)


def parse(text: str) -> list[TriggerConfig]:
    return ADAPTER.validate_python(yaml.safe_load(text))


def one(**values: Any) -> TriggerConfig:
    return TriggerConfig.model_validate({"function": "a.py:f", "stream": "s", **values})


def complaint(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        one(**values)
    return caught.value.errors()[0]["msg"]


def test_the_example_of_the_design() -> None:
    (trigger,) = parse(
        """
        - function: handlers/alerts.py:on_errors
          stream: access
          batch: {size: 100, window: 2s}
          retries: 3
          on_failure: dead-letters/alerts
        """
    )
    assert trigger.name == "alerts-on_errors"
    assert (trigger.batch.size, trigger.batch.window) == (100, 2_000)
    assert trigger.on_failure == "dead-letters/alerts"


def test_defaults() -> None:
    trigger = one()
    assert trigger.batch.size == 100
    assert trigger.batch.window == 0
    assert trigger.start == Start(StartingPosition.TRIM_HORIZON)
    assert trigger.retries == 3
    assert trigger.timeout == 60_000
    assert trigger.memory is None
    assert not trigger.report_batch_item_failures
    assert trigger.on_failure is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beginning", Start(StartingPosition.TRIM_HORIZON)),
        ("TRIM_HORIZON", Start(StartingPosition.TRIM_HORIZON)),
        ("latest", Start(StartingPosition.LATEST)),
        ("LATEST", Start(StartingPosition.LATEST)),
        ("2026-11-22T10:00:00Z", Start(StartingPosition.AT_TIMESTAMP, 1_795_341_600_000)),
        ("'2026-11-22T10:00:00Z'", Start(StartingPosition.AT_TIMESTAMP, 1_795_341_600_000)),
        ("2026-11-22T11:00:00+01:00", Start(StartingPosition.AT_TIMESTAMP, 1_795_341_600_000)),
        ("2026-11-22 10:00:00.5", Start(StartingPosition.AT_TIMESTAMP, 1_795_341_600_500)),
        ("2026-11-22", Start(StartingPosition.AT_TIMESTAMP, 1_795_305_600_000)),
    ],
)
def test_starts(text: str, expected: Start) -> None:
    (trigger,) = parse(f"- {{function: 'a.py:f', stream: s, start: {text}}}")
    assert trigger.start == expected
    assert one(start=trigger.model_dump()["start"]).start == expected


def test_forever_in_both_spellings() -> None:
    assert one(retries="forever").retries == one(retries=-1).retries == -1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"function": "handlers/alerts.py"}, "such as handlers/alerts.py:on_errors"),
        ({"function": "alerts:on_errors"}, "such as handlers/alerts.py:on_errors"),
        ({"function": "a.py:on-errors"}, "such as handlers/alerts.py:on_errors"),
        ({"start": "yesterday"}, "beginning, latest, or a time"),
        ({"start": 5}, "beginning, latest, or a time"),
        ({"batch": {"size": 0}}, "greater than or equal to 1"),
        ({"batch": {"size": 10_001}}, "less than or equal to 10000"),
        ({"batch": {"window": "6m"}}, "less than or equal to 300000"),
        ({"batch": {"window": 5}}, "a duration with its unit"),
        ({"retries": -2}, "greater than or equal to -1"),
        ({"retries": "often"}, "valid integer"),
        ({"timeout": "0s"}, "greater than or equal to 1"),
        ({"memory": "1MiB"}, "greater than or equal to 67108864"),
        ({"stream": "with spaces"}, "match pattern"),
        ({"name": "no/slashes"}, "letters, digits"),
        ({"retrys": 3}, "Extra inputs"),
    ],
)
def test_complaints(values: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**values)


def test_two_triggers_of_one_name_would_share_their_checkpoints() -> None:
    with pytest.raises(ValidationError, match="two triggers are called 'a-f'"):
        parse("[{function: 'a.py:f', stream: s}, {function: 'x/a.py:f', stream: t}]")
    assert len(parse("[{function: 'a.py:f', stream: s}, {function: 'a.py:f', stream: t, name: b}]"))
