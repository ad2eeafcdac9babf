"""RegisterStreamConsumer, DeregisterStreamConsumer, DescribeStreamConsumer, ListStreamConsumers."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, NamedTuple

from headrace.core.control.consumers import (
    ActivateConsumer,
    RegisterConsumer,
    RemoveConsumer,
    StartConsumerRemoval,
)
from headrace.core.control.stream_state import ConsumerState, StreamState
from headrace.core.errors import InvalidArgument, ResourceNotFound
from headrace.core.limits import MAX_COMMITTED_CONSUMERS, MAX_CONSUMERS
from headrace.core.service.account import has_commitment
from headrace.core.service.addressing import address, find_consumer
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog, check_creation
from headrace.core.service.tags import check_tags
from headrace.core.service.tokens import issue_token, of_another_stream, read_token
from headrace.core.service.transitions import Transitions

_LIST_LIMIT = 100  # ListStreamConsumers documentation: MaxResults unless given


class _Place(NamedTuple):
    """Where ListStreamConsumers goes on: after a consumer of a stream."""

    uid: str
    after: str


class ConsumerService:
    """Consumers with throughput of their own; what they subscribe to is in `subscriptions`."""

    def __init__(self, catalog: Catalog, transitions: Transitions) -> None:
        self._catalog = catalog
        self._clock = catalog.clock
        self._transitions = transitions

    async def register_stream_consumer(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream = self._catalog.find_active(caller, None, request["StreamARN"])
        tags = request.get("Tags", {})
        check_tags(tags, stream.account, stream.name)
        has_advantage = stream.mode == "ON_DEMAND" and has_commitment(self._catalog, caller)
        consumer: ConsumerState = await self._catalog.engine.control.submit(
            RegisterConsumer(
                **address(stream),
                consumer=request["ConsumerName"],
                at_ms=self._clock.now_ms(),
                quota=MAX_COMMITTED_CONSUMERS if has_advantage else MAX_CONSUMERS,
                tags=tags,
            )
        )
        answer = {"Consumer": _describe(stream, consumer)}  # CREATING, also when it no longer is
        await self._transitions.after_delay(lambda: self._activate(stream, consumer))
        return answer

    async def deregister_stream_consumer(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, consumer = self._find(caller, request)
        if consumer.status != "DELETING":
            await self._catalog.engine.control.submit(
                StartConsumerRemoval(
                    **address(stream), consumer=consumer.name, created_ms=consumer.created_ms
                )
            )
            await self._transitions.after_delay(lambda: self._remove(stream, consumer))
        return {}

    async def describe_stream_consumer(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, consumer = self._find(caller, request)
        return {
            "ConsumerDescription": {**_describe(stream, consumer), "StreamARN": stream.arn},
        }

    def _find(self, caller: Caller, request: dict[str, Any]) -> tuple[StreamState, ConsumerState]:
        return find_consumer(
            self._catalog,
            caller,
            request.get("StreamARN"),
            request.get("ConsumerName"),
            request.get("ConsumerARN"),
        )

    async def list_stream_consumers(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream = self._catalog.find(caller, None, request["StreamARN"])
        token, created_ms = request.get("NextToken"), request.get("StreamCreationTimestamp")
        if token is not None and created_ms is not None:
            raise InvalidArgument(
                "NextToken and StreamCreationTimestamp cannot be provided together."
            )
        check_creation(stream, created_ms)
        after = "" if token is None else self._read_token(token, stream)
        names = sorted(name for name in stream.consumers if name > after)
        page = names[: request.get("MaxResults", _LIST_LIMIT)]
        answer: dict[str, Any] = {
            "Consumers": [_describe(stream, stream.consumers[name]) for name in page]
        }
        if len(names) > len(page):
            place = _Place(stream.uid, page[-1])
            answer["NextToken"] = issue_token(place, self._clock.now_ms())
        return answer

    def _read_token(self, token: str, stream: StreamState) -> str:
        uid, after = read_token(token, _Place, self._clock.now_ms())
        if uid != stream.uid:
            raise of_another_stream()
        return after

    async def resume(self) -> None:
        """At start: finish what a crash left CREATING or DELETING."""
        for stream in list(self._catalog.state.streams.streams.values()):
            for consumer in list(stream.consumers.values()):
                if consumer.status == "CREATING":
                    step = self._activate
                elif consumer.status == "DELETING":
                    step = self._remove
                else:
                    continue
                await self._transitions.now_or_later(partial(step, stream, consumer))

    async def _activate(self, stream: StreamState, consumer: ConsumerState) -> None:
        with contextlib.suppress(ResourceNotFound):  # gone meanwhile, and its stream with it
            await self._catalog.engine.control.submit(
                ActivateConsumer(
                    **address(stream), consumer=consumer.name, created_ms=consumer.created_ms
                )
            )

    async def _remove(self, stream: StreamState, consumer: ConsumerState) -> None:
        with contextlib.suppress(ResourceNotFound):
            await self._catalog.engine.control.submit(
                RemoveConsumer(
                    **address(stream), consumer=consumer.name, created_ms=consumer.created_ms
                )
            )


def _describe(stream: StreamState, consumer: ConsumerState) -> dict[str, Any]:
    return {
        "ConsumerName": consumer.name,
        "ConsumerARN": stream.consumer_arn(consumer),
        "ConsumerStatus": consumer.status,
        "ConsumerCreationTimestamp": consumer.created_ms,
    }
