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

# Streams of up to 10,000 shards come and go in it; those of two of them at once, with the answers
# that name them, take some 50 MB, and what the allocators keep of that afterwards is no leak.
SHARDS_MB = 120


def run(watched: Watched, chance: random.Random, rounds: int, *, grown_mb: float) -> None:
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
    watched.is_well(grown_mb=grown_mb)


def test_every_operation(watched: Watched, chance: random.Random) -> None:
    assert len(operations()) == 40 + 7
    run(watched, chance, rounds=40, grown_mb=SHARDS_MB)


@pytest.mark.slow
def test_every_operation_for_long(watched: Watched, chance: random.Random) -> None:
    """A leak of 0.7 KB a request shows: from where it has seen the largest streams it is level."""
    run(watched, chance, rounds=250, grown_mb=SHARDS_MB)
    watched.begin()
    run(watched, chance, rounds=1_750, grown_mb=60)


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
