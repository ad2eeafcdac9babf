"""Every error Headrace raises on purpose.

HeadraceError                     .hint: what to do, or None
├─ ConfigError                    file, line, column, key, value, expected
├─ ServiceError                   code (wire __type), status, retryable; the only ones on the wire
│   ├─ ValidationError · InvalidArgument · ResourceNotFound · ResourceInUse · LimitExceeded
│   ├─ ExpiredIterator · ExpiredNextToken · ThroughputExceeded · Serialization
│   ├─ UnknownOperation · AccessDenied · InternalFailure (500)
│   └─ LeaseLost · ProducerFenced (Headrace's own additions to the API)
├─ StorageError                   path, offset
│   ├─ CorruptSegment (never repaired silently) · StorageFull · StorageLocked
│   └─ UnknownFormatVersion
├─ EndpointUnreachable            endpoint (the client could not talk to it)
├─ RecordsExpired                 first_exclusive, last_inclusive, records (what is left of them)
├─ DeliveryError                  destination, retryable
└─ InvocationError                what a handler did wrong

Raise low, map once at each edge (wire, client, destinations, invoke). Log where handled, not
where raised. The end of data is a value; corruption is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class HeadraceError(Exception):
    """Base of all. `hint` says what to do about it, or is None."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} ({self.hint})"


class ConfigError(HeadraceError):
    """A configuration that cannot be used. One object may carry several findings, a line each."""


class ServiceError(HeadraceError):
    """An answer of the service that is an error. `code` is the wire's `__type`.

    `wire_code` and `wire_status` are what a client read off the wire, also for codes that have no
    class here; None where the error was not read off a wire.
    """

    code: ClassVar[str] = "InternalFailure"
    status: ClassVar[int] = 400
    retryable: ClassVar[bool] = False
    wire_code: str | None = None
    wire_status: int | None = None


class ValidationError(ServiceError):
    code = "ValidationException"


class InvalidArgument(ServiceError):
    code = "InvalidArgumentException"


class ResourceNotFound(ServiceError):
    code = "ResourceNotFoundException"


class ResourceInUse(ServiceError):
    code = "ResourceInUseException"


class LimitExceeded(ServiceError):
    code = "LimitExceededException"


class ExpiredIterator(ServiceError):
    code = "ExpiredIteratorException"


class ExpiredNextToken(ServiceError):
    code = "ExpiredNextTokenException"


class ThroughputExceeded(ServiceError):
    code = "ProvisionedThroughputExceededException"
    retryable = True


class DryRun(ServiceError):
    code = "DryRunOperationException"


class Serialization(ServiceError):
    """The body could not be read. AWS spells this one's message member `Message`."""

    code = "SerializationException"


class UnknownOperation(ServiceError):
    code = "UnknownOperationException"


class AccessDenied(ServiceError):
    code = "AccessDeniedException"


class MissingAuthentication(ServiceError):
    code = "MissingAuthenticationTokenException"


class IncompleteSignature(ServiceError):
    code = "IncompleteSignatureException"


class InvalidSignature(ServiceError):
    code = "InvalidSignatureException"


class UnrecognizedClient(ServiceError):
    code = "UnrecognizedClientException"


class InternalFailure(ServiceError):
    code = "InternalFailure"
    status = 500
    retryable = True


class ServiceUnavailable(ServiceError):
    code = "ServiceUnavailable"
    status = 503
    retryable = True


class LeaseLost(ServiceError):
    """The lease is held by somebody else by now; stop working on the shard. (Headrace's own.)"""

    code = "LeaseLostException"


class ProducerFenced(ServiceError):
    """A newer epoch of this producer has written; this one must stop. (Headrace's own.)"""

    code = "ProducerFencedException"


class StorageError(HeadraceError):
    """Something on disk. `path` names the file, `offset` the byte, where known."""

    def __init__(
        self, message: str, *, path: str = "", offset: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.offset = offset


class CorruptSegment(StorageError):
    """Bytes that were proven durable are not what was written. Never repaired silently."""


class StorageFull(StorageError):
    """No space. Nothing of the refused write is stored."""


class StorageLocked(StorageError):
    """Another process has this data folder open."""


class UnknownFormatVersion(StorageError):
    """Written by a newer Headrace."""


class EndpointUnreachable(HeadraceError):
    """The client could not reach the endpoint, or lost it before the answer came.

    A write that ends like this may or may not have been stored.
    """

    def __init__(self, message: str, *, endpoint: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.endpoint = endpoint


class RecordsExpired(HeadraceError):
    """A range of records was asked for again, and (part of) it went out of retention.

    `records` (model.records.Record) is what is left of it, in order.
    """

    def __init__(
        self,
        message: str,
        *,
        first_exclusive: str | None,
        last_inclusive: str,
        records: Sequence[Any] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.first_exclusive = first_exclusive
        self.last_inclusive = last_inclusive
        self.records = records


class DeliveryError(HeadraceError):
    """A sink's destination refused or could not be reached."""

    def __init__(
        self, message: str, *, destination: str, retryable: bool, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.destination = destination
        self.retryable = retryable


class InvocationError(HeadraceError):
    """A handler raised, hung, died or answered nonsense."""


def service_errors() -> dict[str, type[ServiceError]]:
    """Wire code -> class, for the client that reads errors off the wire."""
    found: dict[str, type[ServiceError]] = {}
    todo = list(ServiceError.__subclasses__())
    while todo:
        cls = todo.pop()
        found[cls.code] = cls
        todo.extend(cls.__subclasses__())
    return found
