"""When content is gone from where it was: going on elsewhere, or saying what is lost."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

import msgspec

from headrace.agent.copies import find_rest
from headrace.agent.identity import HEAD_BYTES, Head, Mark
from headrace.agent.position_store import PositionStore
from headrace.agent.positions import Loss, Position
from headrace.agent.registry import Registry
from headrace.agent.source import Source
from headrace.agent.tracked import TrackedFile

log = logging.getLogger("headrace.agent")


async def find_rest_of(file: TrackedFile, registry: Registry, pool: Executor) -> Source | None:
    """The file that has the content `file` had: among those held open, else out of its folder.

    It is nobody else's then: neither tracked nor a newcomer.
    """
    stream, position = file.flow.stream, file.position
    newcomer = registry.copy_of(file)
    if newcomer is not None:
        del registry.newcomers[stream, newcomer.key]
        return newcomer.source
    taken = registry.keys(stream) | {file.key}
    loop = asyncio.get_running_loop()
    rest = await loop.run_in_executor(pool, lambda: find_rest(position, taken=taken))
    if rest is None:
        return None
    if registry.get(stream, rest.key) is not None:  # tracked meanwhile
        rest.close()
        return None
    met = registry.newcomers.pop((stream, rest.key), None)
    if met is not None:
        met.source.close()
    return rest


def take_over(file: TrackedFile, rest: Source, *, registry: Registry) -> None:
    """Let `file` (not in the registry now) go on in `rest`: the copy or archive of its content.

    Identity, generation and offset stay, so what was put before is known to the stream. If
    `rest` is shorter than what was read, it has nothing new; a new generation then starts at its
    end, in case somebody appends to it.
    """
    position = file.position
    file.close()
    state = rest.state()
    position.device, position.inode = rest.key
    position.inode_generation = rest.inode_generation
    position.path = rest.current_path() or position.path
    position.is_compressed = rest.is_compressed
    position.is_rotated = True
    if state.size < position.offset:
        position.generation += 1
        position.offset = state.size
        position.line_start = position.sent = None
        position.cut = 0
        position.head = Head.of(rest.read_at(0, HEAD_BYTES))
        start = Mark(state.size, b"").start
        position.marks = (Mark.at(state.size, rest.read_at(start, state.size - start)),)
    position.size = state.size
    file.size, file.mtime_ns, file.is_linked = state.size, state.mtime_ns, state.is_linked
    file.is_replaced = file.is_estranged = file.is_missing = False
    file.checked = None
    file.attach(rest)
    registry.add(file)
    log.info("%s goes on in %s from byte %d", position.home, position.path, position.offset)


def split_off(file: TrackedFile, identity: str) -> TrackedFile:
    """Give the content a file had until now to a new object; the file itself starts afresh.

    Neither is in the registry, nor does the new object hold a source.
    """
    old = file.position
    before = TrackedFile(file.flow, old, file.open_files, size=old.size, is_stored=file.is_stored)
    before.grown_ms = file.grown_ms
    file.position = Position(
        identity=identity,
        stream=old.stream,
        home=old.home,
        path=old.path,
        device=old.device,
        inode=old.inode,
        inode_generation=old.inode_generation,
        framing=old.framing,
        seen_ms=old.seen_ms,
    )
    file.is_stored = False
    return before


def report_loss(
    store: PositionStore, position: Position, *, start: int, end: int, reason: str, now_ms: int
) -> None:
    """Say, and store, that bytes `start`..`end` (exclusive) can never be shipped."""
    loss = Loss(
        at_ms=now_ms,
        path=position.home,
        identity=position.identity,
        generation=position.generation,
        start=start,
        end=end,
        reason=reason,
    )
    store.put_loss(loss)
    log.error(
        "lost: bytes %d..%d (%d bytes) of %s were not shipped: %s",
        start,
        end,
        end - start,
        position.home,
        reason,
        extra={"loss": msgspec.to_builtins(loss)},
    )
