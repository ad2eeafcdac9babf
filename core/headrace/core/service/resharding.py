"""Closing shards and opening others in their place, with puts and reads going on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from headrace.core.control.machine import Command
from headrace.core.control.stream_state import StreamState, find_shard
from headrace.core.errors import StorageFull
from headrace.core.model.hashing import HashKeyRange
from headrace.core.service.catalog import Catalog


async def reshard(
    catalog: Catalog,
    stream: StreamState,
    parents: Callable[[], set[int]],
    ranges: Callable[[], list[HashKeyRange]],
    command: Command,
) -> None:
    """Apply a command that closes the shards `parents()` and opens some of `ranges()`.

    1. The producers' memory is cut at the children's ranges, before any child takes a put.
    2. The parents are marked as closing: their end is not shown to readers yet.
    3. The command closes them; from here on nothing is appended to them.
    4. What was appended before is made durable; then their end is the end.

    Both are asked once no other resharding of the stream is under way.
    """
    opened = catalog.opened(stream)
    # one at a time: of two that close the same shard, the refused one would show its end while
    # the other still waits for its last records
    async with opened.resharding:
        await opened.log.seal(ranges())
        closing = parents()
        opened.closing |= closing
        try:
            await catalog.engine.control.submit(command)
            with contextlib.suppress(StorageFull):  # then nothing is on its way any more
                await opened.log.seal([])
        finally:
            opened.closing -= closing


def halves(stream: StreamState, number: int, at: int) -> list[HashKeyRange]:
    """The ranges of a split's children; none if it is going to be refused."""
    parent = find_shard(stream, number)
    if parent is None or not parent.range.start < at <= parent.range.end:
        return []
    return [HashKeyRange(parent.range.start, at - 1), HashKeyRange(at, parent.range.end)]
