"""Every operation under bad input: an AWS error or a closed connection, and nothing lost."""

from __future__ import annotations

import random

import pytest

from fuzz.exchange import usual_headers
from fuzz.generator import KINESIS, operations
from fuzz.mutations import truncations
from fuzz.player import Fuzz
from fuzz.vitals import Watched
from fuzz.wire_form import CBOR, JSON, encode


def run(watched: Watched, chance: random.Random, rounds: int) -> None:
    fuzz = Fuzz(watched, chance)
    targets = operations()
    try:
        for _ in range(rounds):
            chance.shuffle(targets)
            for target in targets:
                fuzz.one(target)
    finally:
        fuzz.close()
    print(fuzz.statuses)
    refused = set(targets) - fuzz.answered
    assert len(refused) < 20, f"it tests the front door only: {refused}"
    watched.is_well()


def test_every_operation(watched: Watched, chance: random.Random) -> None:
    assert len(operations()) == 40 + 7
    run(watched, chance, rounds=40)


@pytest.mark.slow
def test_every_operation_for_long(watched: Watched, chance: random.Random) -> None:
    run(watched, chance, rounds=2_000)


@pytest.mark.parametrize("content_type", [JSON, CBOR])
def test_requests_cut_off_at_each_byte(
    watched: Watched, chance: random.Random, content_type: str
) -> None:
    """Said to be whole, they are an error; half-sent ones are in `test_http1`."""
    fuzz = Fuzz(watched, chance)
    entry = {"Data": b"abc", "PartitionKey": "k"}
    for target, request in [
        (KINESIS + "PutRecords", {"StreamName": "fuzz-0", "Records": [entry, entry]}),
        (KINESIS + "ListShards", {"StreamName": "fuzz-0", "MaxResults": 10}),
    ]:
        for body in truncations(encode(request, content_type)):
            reply = fuzz.ask(target, usual_headers(target, content_type), body)
            assert reply is not None and reply.status == 400, body
    fuzz.close()
    watched.is_well()
