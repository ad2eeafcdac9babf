"""Who is meant: a stream as commands name it, a resource by its ARN."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from headrace.core.control.consumers import consumer_not_found
from headrace.core.control.stream_state import ConsumerState, StreamState, not_active
from headrace.core.errors import InvalidArgument, ResourceInUse
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog

_CONSUMER = "/consumer/"  # in an ARN, and its last such: a stream may be named so, too


class Address(TypedDict):
    """What commands on a stream name it by: `SetTags(**address(stream), ...)`."""

    account: str
    region: str
    name: str
    uid: str


def address(stream: StreamState) -> Address:
    return Address(account=stream.account, region=stream.region, name=stream.name, uid=stream.uid)


class Resource(NamedTuple):
    """What can have tags and a policy: a stream, or one of its consumers."""

    stream: StreamState
    consumer: ConsumerState | None

    @property
    def consumer_name(self) -> str | None:
        return None if self.consumer is None else self.consumer.name


def find_resource(catalog: Catalog, caller: Caller, arn: str) -> Resource:
    """The stream or consumer of a ResourceARN. Raises ResourceNotFound or InvalidArgument."""
    if _CONSUMER in arn:
        return Resource(*find_consumer(catalog, caller, None, None, arn))
    if ":stream/" not in arn:
        raise InvalidArgument(f"Resource ARN {arn} is neither of a stream nor of a consumer.")
    return Resource(catalog.find(caller, None, arn), None)


def find_consumer(
    catalog: Catalog, caller: Caller, stream_arn: str | None, name: str | None, arn: str | None
) -> tuple[StreamState, ConsumerState]:
    """A consumer by its ARN, or by its name and its stream's ARN; if all are given, they agree.

    Raises ResourceNotFound, or InvalidArgument when too little or a contradiction is given.
    """
    if arn is not None:
        from_arn, _, rest = arn.rpartition(_CONSUMER)
        if stream_arn is not None and stream_arn != from_arn:
            raise InvalidArgument(f"ConsumerARN {arn} is not of the stream {stream_arn}.")
        if name is not None and name != rest.partition(":")[0]:
            raise InvalidArgument(f"ConsumerARN {arn} is not of a consumer named {name}.")
        stream = catalog.find(caller, None, from_arn)
        for consumer in stream.consumers.values():
            if stream.consumer_arn(consumer) == arn:
                return stream, consumer
        raise consumer_not_found(arn, caller.account)
    if stream_arn is None or name is None:
        raise InvalidArgument(
            "Either ConsumerARN or both StreamARN and ConsumerName must be given."
        )
    stream = catalog.find(caller, None, stream_arn)
    found = stream.consumers.get(name)
    if found is None:
        raise consumer_not_found(name, caller.account)
    return stream, found


def require_active(resource: Resource) -> None:
    """Raises ResourceInUse when a consumer is not ACTIVE, or a stream not there to be changed."""
    stream, consumer = resource
    if consumer is not None and consumer.status != "ACTIVE":
        raise consumer_not_active(stream, consumer)
    if stream.status in ("CREATING", "DELETING"):
        raise not_active(stream)


def consumer_not_active(stream: StreamState, consumer: ConsumerState) -> ResourceInUse:
    return ResourceInUse(
        f"Consumer {consumer.name} with creation timestamp {consumer.created_ms // 1000} under "
        f"stream {stream.name} and account {stream.account} is not in ACTIVE status."
    )
