"""Pieces: a body that is never put together, from the memory it was read into to the socket."""

from __future__ import annotations

from collections.abc import Sequence


class Pieces:
    """Bytes in several places, in order. `len` is that of all of them."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def join(self) -> bytes:
        """All of it in one place, copied."""
        return b"".join(self.parts)
