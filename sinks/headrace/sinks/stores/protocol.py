"""What a sink needs of a store: one primitive, put-if-absent, and ways to look.

A key is a relative path with `/` between its levels, no empty level, no `.` or `..`.
`headrace.sinks.testing.check_object_store` is the contract as a test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """An object's size and the metadata it was put with; a store may keep no metadata."""

    size_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """Objects under one root. Safe for concurrent use by one event loop.

    Every method raises DeliveryError: `retryable` when the same call may succeed later (store
    away, throttled, full, credentials expired), with a hint what to do meanwhile.
    """

    @property
    def destination(self) -> str:
        """The root, for messages."""

    async def open(self) -> None:
        """Connect; make what must be there. May be called again after a failure."""

    async def close(self) -> None:
        """Let go of connections. Objects put stay."""

    async def put_if_absent(self, key: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        """Make the object, whole and durable, unless the key is taken. True if this call did.

        Readers see all of the object or nothing. False also when an earlier attempt whose
        answer was lost made it: the caller compares. After an error nothing is known; calling
        again is right. What holds the key is durable in either case, whoever made it.
        """

    async def get(self, key: str) -> bytes | None:
        """The object's bytes, or None."""

    async def head(self, key: str) -> ObjectHead | None:
        """Size and metadata, or None."""

    def list_from(self, prefix: str, after: str = "") -> AsyncIterator[str]:
        """Keys that start with `prefix` (a folder, `/` at its end) and sort after `after`.

        In ascending order of their UTF-8 bytes. Unfinished puts are not listed.
        """

    async def discard_partial(self, key: str) -> None:
        """Remove what interrupted puts of this key left behind, as far as possible.

        Never the object itself: if it is there, it is durable afterwards, whoever made it. A put
        of this key that is under way elsewhere fails and is repeated by whoever makes it.
        """

    async def delete(self, key: str) -> None:
        """Remove an object; no error if there is none. Only the start-up probe uses it."""
