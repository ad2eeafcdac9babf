"""The section `agent`, and what `headrace check` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from headrace.agent.config import AgentConfig
from headrace.agent.part import AgentPart


def parse(**flow: Any) -> AgentConfig:
    return AgentConfig.model_validate({"flows": [{"files": "*.log", "stream": "s", **flow}]})


def test_defaults() -> None:
    (flow,) = parse().flows
    assert (flow.format, flow.start, flow.partition_by, flow.on_parse_error) == (
        "raw",
        "beginning",
        "line",
        "raw",
    )
    assert (flow.batch.size, flow.batch.window) == (500, 200)
    assert flow.max_line == 1023 * 1024
    assert parse().scan_interval == 1000


def test_units_and_lists() -> None:
    config = parse(
        files=["a", "b"],
        exclude="*.tmp",
        max_line="2MiB",
        batch={"size": 10, "window": "1s"},
    )
    (flow,) = config.flows
    assert flow.patterns == ["a", "b"]
    assert flow.exclusions == ["*.tmp"]
    assert flow.max_line == 2 << 20
    assert flow.batch.window == 1000


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ({"stream": "no spaces"}, "String should match pattern"),
        ({"format": "apache"}, "'raw', 'json', 'common-apache' or 'combined-apache'"),
        ({"files": []}, "at least 1 item"),
        ({"batch": {"size": 501}}, "less than or equal to 500"),
        ({"max_line": "11MiB"}, "less than or equal to"),
        ({"max_line": 10}, "greater than or equal to 1024"),
        ({"format": "json", "on_parse_error": "dead-letter"}, "go together"),
        ({"format": "json", "dead_letter": "d"}, "go together"),
        (
            {"format": "json", "on_parse_error": "dead-letter", "dead_letter": "s"},
            "another stream",
        ),
        ({"on_parse_error": "drop"}, "accepts every line"),
        ({"file": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_refused(flow: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        parse(**flow)


def test_check_knows_streams_and_folders(tmp_path: Path) -> None:
    config = parse(
        files="missing/*.log", format="json", on_parse_error="dead-letter", dead_letter="dead"
    )
    findings = AgentPart.check(config, base=tmp_path, streams=["other"])
    assert [(finding.loc, finding.is_error) for finding in findings] == [
        (("flows", 0, "stream"), True),
        (("flows", 0, "dead_letter"), True),
        (("flows", 0, "files"), False),
    ]
    (tmp_path / "missing").mkdir()
    assert AgentPart.check(config, base=tmp_path, streams=["s", "dead"]) == []
    assert AgentPart.check(config, base=tmp_path, streams=None) == []
