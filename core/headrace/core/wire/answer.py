"""An answer on its way to the wire: what every operation's comes down to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from headrace.core.pieces import Pieces


class Answer(NamedTuple):
    """What goes back: status, headers beyond the usual ones, body.

    A body that is sent bit by bit has its content type among the headers.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | Pieces | AsyncGenerator[bytes, None]
