"""What a handler's return value says about its batch, when it may report batch item failures.

Source: Lambda's developer guide, "Reporting batch item failures", and responses recorded
against the real service.

| response                                                                  | verdict       |
|---------------------------------------------------------------------------|---------------|
| null, "", [], {}, `batchItemFailures` empty or null                       | all done      |
| identifiers of records of this batch                                      | from the first|
| an identifier that is empty, null, no string, or of no record here; an    | all failed    |
| entry without `itemIdentifier`; `batchItemFailures` that is no list       |               |

What Lambda makes of another kind of value (a text, a number) is unknown; here it names no
failure, so all is done: many handlers return a greeting.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failed_from` is the index of the first record not done; None when all are."""

    failed_from: int | None
    complaint: str | None = None


ALL_DONE = Verdict(None)


def judge(payload: bytes, sequence_numbers: Sequence[str]) -> Verdict:
    """What the return value `payload` (JSON) says about a batch of these records, in order.

    Several failures count as the lowest: a shard is done in order, so what comes after the
    first failure is not done either. Lowest is by place in the shard, not by text.
    """
    response = json.loads(payload)
    failures = response.get("batchItemFailures") if isinstance(response, dict) else None
    if failures is None or failures == []:
        return ALL_DONE
    if not isinstance(failures, list):
        return _whole(f"batchItemFailures is {type(failures).__name__}, not a list")
    places = {number: place for place, number in enumerate(sequence_numbers)}
    first = len(places)
    for failure in failures:
        if not isinstance(failure, dict) or "itemIdentifier" not in failure:
            return _whole('an entry of batchItemFailures is not {"itemIdentifier": …}')
        identifier = failure["itemIdentifier"]
        place = places.get(identifier) if isinstance(identifier, str) else None
        if place is None:
            return _whole(f"itemIdentifier {identifier!r:.80} is not of a record of this batch")
        first = min(first, place)
    return Verdict(first, f"the handler reported record {first + 1} of {len(places)} as failed")


def _whole(complaint: str) -> Verdict:
    return Verdict(0, f"invalid response, so the whole batch failed: {complaint}")
