"""Registered consumers of a stream: commands, and how they change its state.

Deterministic: no clock, no chance; times come with the commands. A refused command raises a
ServiceError and changes nothing. A consumer is named by its name and the time it was registered:
one registered again under the same name is another.
"""

from __future__ import annotations

import msgspec

from headrace.core.control.stream_state import ConsumerState, StreamsState, StreamState
from headrace.core.control.streams import StreamCommandBase, target_of
from headrace.core.errors import LimitExceeded, ResourceInUse, ResourceNotFound
from headrace.core.limits import MAX_CREATING_CONSUMERS


class RegisterConsumer(StreamCommandBase):
    """A new consumer, CREATING. `quota` is how many the stream may have."""

    uid: str
    consumer: str
    at_ms: int
    quota: int
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class ActivateConsumer(StreamCommandBase):
    """CREATING is over."""

    uid: str
    consumer: str
    created_ms: int


class StartConsumerRemoval(StreamCommandBase):
    """DELETING: it can subscribe no more."""

    uid: str
    consumer: str
    created_ms: int


class RemoveConsumer(StreamCommandBase):
    """Forget it."""

    uid: str
    consumer: str
    created_ms: int


ConsumerCommand = RegisterConsumer | ActivateConsumer | StartConsumerRemoval | RemoveConsumer


def apply_consumer_command(state: StreamsState, command: ConsumerCommand) -> ConsumerState:
    """Apply one command; returns the consumer as it is then (or was, when removed)."""
    stream = target_of(state, command, command.uid)
    if isinstance(command, RegisterConsumer):
        return _register(stream, command)
    consumer = stream.consumers.get(command.consumer)
    if consumer is None or consumer.created_ms != command.created_ms:
        raise consumer_not_found(command.consumer, command.account)
    match command:
        case ActivateConsumer():
            if consumer.status == "CREATING":
                consumer.status = "ACTIVE"
        case StartConsumerRemoval():
            consumer.status = "DELETING"
        case RemoveConsumer():
            del stream.consumers[command.consumer]
    return consumer


def consumer_not_found(consumer: str, account: str) -> ResourceNotFound:
    """`consumer` is a name or an ARN."""
    return ResourceNotFound(f"Consumer {consumer}, account {account} not found.")


def _register(stream: StreamState, command: RegisterConsumer) -> ConsumerState:
    if command.consumer in stream.consumers:
        raise ResourceInUse(
            f"Consumer {command.consumer} under stream {stream.name} already exists for account "
            f"{stream.account}."
        )
    if len(stream.consumers) >= command.quota:
        raise LimitExceeded(
            f"Stream {stream.name} under account {stream.account} has {len(stream.consumers)} "
            f"registered consumers already. Limit: {command.quota}."
        )
    creating = [c for c in stream.consumers.values() if c.status == "CREATING"]
    if len(creating) >= MAX_CREATING_CONSUMERS:
        raise LimitExceeded(
            f"Stream {stream.name} under account {stream.account} has {len(creating)} consumers "
            f"in state CREATING. Limit: {MAX_CREATING_CONSUMERS}."
        )
    consumer = ConsumerState(
        name=command.consumer,
        created_ms=command.at_ms,
        status="CREATING",
        tags=dict(command.tags),
    )
    stream.consumers[command.consumer] = consumer
    return consumer
