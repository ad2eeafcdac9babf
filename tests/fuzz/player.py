"""Requests to one server, nearly right or wrong, and their answers checked."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

from fuzz.exchange import EVENT_STREAM, Exchange, Reply, complaint, usual_headers
from fuzz.generator import Generator, Known, declared_errors
from fuzz.mutations import mutate_bytes, mutate_headers, mutate_value
from fuzz.vitals import Watched
from fuzz.wire_form import CBOR, JSON, encode

STREAMS = ("fuzz-0", "fuzz-1")
MOST_WAIT_S = 5  # for an answer, on a busy machine


def create_streams(kinesis: Any) -> None:
    """Those of them that are not there."""
    for name in STREAMS:
        with contextlib.suppress(kinesis.exceptions.ResourceInUseException):
            kinesis.create_stream(StreamName=name, ShardCount=2)


def known(watched: Watched) -> Known:
    """Streams to play with, and what can be named of them."""
    found = Known()
    create_streams(watched.kinesis)
    for name in STREAMS:
        summary = watched.kinesis.describe_stream_summary(StreamName=name)
        found.add("StreamName", name)
        found.add("StreamARN", summary["StreamDescriptionSummary"]["StreamARN"])
    arn = found.values["StreamARN"][0]
    with contextlib.suppress(watched.kinesis.exceptions.ResourceInUseException):
        watched.kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="consumer")
    found.learn(watched.kinesis.list_stream_consumers(StreamARN=arn)["Consumers"])
    found.add("ConsumerName", "consumer")
    for number in range(4):
        found.add("ShardId", f"shardId-{number:012d}")
    for key in (0, 2**126, 2**127, 2**128 - 1):
        found.add("HashKey", str(key))
    for name in ("ApplicationName", "WorkerId"):
        found.add(name, "app")
    found.add("EncryptionType", "KMS")
    found.add("Policy", '{"Version": "2012-10-17"}')
    return found


class Fuzz:
    """Requests to one server, their answers checked."""

    def __init__(self, watched: Watched, chance: random.Random) -> None:
        self._watched = watched
        self._chance = chance
        self._known = known(watched)
        self._generator = Generator(chance, self._known)
        self._exchange = Exchange(watched.process.endpoint)
        self.statuses: dict[int, int] = {}
        self.answered: set[str] = set()  # operations that gave a good answer

    def one(self, target: str) -> None:
        """A request, good or with one or two things wrong, in either encoding."""
        chance = self._chance
        own = target.startswith("Headrace")
        content_type = JSON if own and chance.random() < 0.95 else chance.choice([JSON, CBOR])
        request: Any = self._generator.request(target)
        headers = usual_headers(target, content_type)
        kind = chance.randrange(10)
        if 2 <= kind <= 6:
            request = mutate_value(chance, request)
        body = encode(request, content_type)
        if kind in (6, 7):
            body = mutate_bytes(chance, body)
        if kind >= 8:
            headers = mutate_headers(chance, headers)
        self.ask(target, headers, body)

    def ask(self, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Reply | None:
        began = time.monotonic()
        reply = self._exchange.ask(headers, body)
        took_s = time.monotonic() - began
        wrong = complaint(reply, target, declared_errors(target))
        if wrong is None and took_s > MOST_WAIT_S:
            wrong = f"it took {took_s:.1f} s"
        assert wrong is None, f"{wrong}\n{headers}\n{body[:2_000]!r}"
        status = 0 if reply is None else reply.status
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if reply is not None and reply.status == 200 and reply.content_type != EVENT_STREAM:
            self._known.learn(reply.value)
        if status == 200:
            self.answered.add(target)
            if target.endswith(".DeleteStream"):
                create_streams(self._watched.kinesis)
        return reply

    def close(self) -> None:
        self._exchange.close()
