"""Later: a value for which something must be done first."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T", covariant=True)


class Later(Generic[T]):
    """When `done` is, `tell` says what the value is; also where `done` failed, but not where it
    was cancelled.

    It is what a coroutine that waits once would be, for a fifth of the price.
    """

    __slots__ = ("done", "tell")

    def __init__(self, done: Future[None], tell: Callable[[], T]) -> None:
        self.done = done
        self.tell = tell
