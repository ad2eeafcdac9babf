"""What a request may cost: no large value holds the loop or fills the memory."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from fuzz.bystander import Bystander
from fuzz.exchange import Exchange, usual_headers
from fuzz.generator import EXTENSION, KINESIS
from fuzz.mutations import Large, large_values
from fuzz.player import Fuzz
from fuzz.vitals import Watched, cpu_s, forget_peak, peak_mb
from fuzz.wire_form import CBOR, JSON, Odd, encode, to_cbor, to_json
from headrace.core.testing.server_process import ServerProcess

MOST_MB = 150  # of memory for one request, at most 14 MB large
MOST_SHARE = 0.5  # of the time a first look takes, that others wait: 1 if it holds the loop
MOST_S = 2.0  # of CPU time for one request; it holds the loop meanwhile


def placed(value: Any) -> list[tuple[str, Any]]:
    """A value where it does most harm: operation and request."""
    return [
        ("DescribeStream", value),
        ("DescribeStream", {"StreamName": value}),
        ("DescribeStream", {"StreamARN": value}),
        ("PutRecord", {"StreamName": "fuzz-0", "PartitionKey": "k", "Data": value}),
        ("PutRecord", {"StreamName": "fuzz-0", "PartitionKey": value, "Data": b"x"}),
        ("PutRecords", {"StreamName": "fuzz-0", "Records": value}),
        ("GetRecords", {"ShardIterator": value, "Limit": value}),
        ("AddTagsToStream", {"StreamName": "fuzz-0", "Tags": value}),
        ("UntagResource", {"ResourceARN": value, "TagKeys": value}),
        ("ListShards", {"NextToken": value}),
        ("PutResourcePolicy", {"ResourceARN": value, "Policy": value}),
        ("ListStreams", {"Unknown": value}),
        ("SyncLeases", {"ApplicationName": "a", "StreamName": "a", "Shards": value}),
        ("Heartbeat", {"ApplicationName": "a", "StreamName": "a", "WorkerId": value}),
    ]


def run_large(watched: Watched, chance: random.Random, large: list[Large], places: int) -> None:
    """Each large value in some places: what it costs in time and memory."""
    fuzz, pid = Fuzz(watched, chance), watched.pid
    costs = []
    for name, make in large:
        value = make()
        ready = Odd(to_json(value), to_cbor(value))
        for operation, request in chance.sample(placed(ready), places):
            own = operation in ("SyncLeases", "Heartbeat")
            target = (EXTENSION if own else KINESIS) + operation
            for content_type in (JSON, CBOR):
                body = encode(request, content_type)
                forget_peak(pid)
                before_s, before_mb = cpu_s(pid), peak_mb(pid)
                fuzz.ask(target, usual_headers(target, content_type), body)
                used_s, taken_mb = cpu_s(pid) - before_s, peak_mb(pid) - before_mb
                costs.append((used_s, taken_mb, name, operation, content_type, len(body)))
    fuzz.close()
    slowest, largest = max(costs), max(costs, key=lambda cost: cost[1])
    print(f"slowest {slowest}, largest {largest}")
    assert slowest[0] < MOST_S, slowest
    assert largest[1] < MOST_MB, largest
    watched.is_well(grown_mb=150)


def test_no_request_holds_the_loop_or_fills_the_memory(
    watched: Watched, chance: random.Random
) -> None:
    run_large(watched, chance, chance.sample(large_values(), 7), places=1)


@pytest.mark.slow
def test_no_large_value_anywhere_holds_the_loop(watched: Watched, chance: random.Random) -> None:
    run_large(watched, chance, large_values(), places=len(placed(None)))


def test_the_first_look_at_management_holds_up_nobody(tmp_path: Path) -> None:
    shares = []
    for attempt in range(4):  # a busy machine may hold up this test itself
        with (
            ServerProcess(tmp_path / f"stream {attempt}") as server,
            Bystander(server.endpoint) as bystander,
        ):
            exchange = Exchange(server.endpoint)
            began = time.monotonic()
            reply = exchange.send(b"GET /healthz HTTP/1.1\r\n\r\n", "GET")
            took_s = time.monotonic() - began
            assert reply is not None and reply.status == 200
            exchange.close()
        print(f"waited {bystander.longest_s:.3f} s of {took_s:.3f} s")
        shares.append(bystander.longest_s / took_s)
        if shares[-1] < MOST_SHARE:
            break
    assert shares[-1] < MOST_SHARE, shares


def test_credentials_leave_nothing_behind(watched: Watched) -> None:
    exchange = Exchange(watched.process.endpoint)
    watched.begin()
    for number in range(2_000):
        headers = dict(usual_headers(KINESIS + "ListStreams", JSON))
        longest = b"%d" % number + b"k" * 30_000
        headers[b"Authorization"] = headers[b"Authorization"].replace(b"test", longest)
        reply = exchange.ask(list(headers.items()), b"{}")
        assert reply is not None and reply.value["__type"] == "UnrecognizedClientException"
    exchange.close()
    watched.is_well(grown_mb=40)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /healthz/ HTTP/1.1\r\nHost: 127.0.0.1", 403),
        (b"GET //evil.example/ HTTP/1.1", 403),
        (b"TRACE / HTTP/1.1", 403),
        (b"GET /%00%ff%2e%2e HTTP/1.1", 403),
        (b"OPTIONS / HTTP/1.1\r\nOrigin: http://localhost\r\nX-Y: a\tb", 200),
    ],
)
def test_other_routes(watched: Watched, request_line: bytes, status: int) -> None:
    exchange = Exchange(watched.process.endpoint)
    reply = exchange.send(request_line + b"\r\n\r\n", request_line.split()[0].decode())
    exchange.close()
    assert reply is not None and reply.status == status
