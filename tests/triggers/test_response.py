"""Returned values: the table of responses recorded against the real service (scenario 10)."""

from __future__ import annotations

import json

import pytest

from headrace.triggers.response import judge

BATCH = ["9", "10", "11"]


@pytest.mark.parametrize(
    "response", ["", [], None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}]
)
def test_success(response: object) -> None:
    assert judge(json.dumps(response).encode(), BATCH).failed_from is None


@pytest.mark.parametrize(
    "failures",
    [
        [{"itemIdentifier": ""}],
        [{"itemIdentifier": None}],
        [{"foo": 123}],
        [{"foo": None}],
        [{"itemIdentifier": 123}],
        [{"itemIdentifier": "123"}],  # of no record of this batch: a stale one, say
        [{"itemIdentifier": 10}],  # a number is no sequence number
        [{"itemIdentifier": ["10"]}],
        [{"itemIdentifier": "11"}, {"foo": 1}],  # one bad entry spoils them all
        ["10"],
        "10",
        {"itemIdentifier": "10"},
        True,
    ],
)
def test_failure_of_the_whole_batch(failures: object) -> None:
    verdict = judge(json.dumps({"batchItemFailures": failures}).encode(), BATCH)
    assert verdict.failed_from == 0
    assert verdict.complaint


@pytest.mark.parametrize(("identifier", "place"), [("9", 0), ("10", 1), ("11", 2)])
def test_failure_from_a_record_on(identifier: str, place: int) -> None:
    response = {"batchItemFailures": [{"itemIdentifier": identifier}]}
    assert judge(json.dumps(response).encode(), BATCH).failed_from == place


def test_the_lowest_of_several_counts_by_number_not_by_text() -> None:
    """Scenario 11: "9" is the lowest number, and the highest text."""
    response = {"batchItemFailures": [{"itemIdentifier": n} for n in ("11", "9", "10")]}
    assert judge(json.dumps(response).encode(), BATCH).failed_from == 0
    response = {"batchItemFailures": [{"itemIdentifier": n} for n in ("11", "10")]}
    assert judge(json.dumps(response).encode(), BATCH).failed_from == 1


@pytest.mark.parametrize("greeting", ["Successfully processed 3 records.", 3, True, [1], {"a": 1}])
def test_other_values_name_no_failure(greeting: object) -> None:
    assert judge(json.dumps(greeting).encode(), BATCH).failed_from is None
