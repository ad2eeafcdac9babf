"""New files: whether each is a file of its own, or the copy of one that is tailed already.

A newcomer is held open from the moment it is met. It is tracked as soon as it has a byte, unless
what is remembered of a tracked file is found in it. Then it waits, for as long as a copy would
have to: until the original is truncated (then it has the original's rest) or has not been for
`copy_wait` (then it is a file that just begins the same).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
from collections.abc import Callable
from concurrent.futures import Executor

from headrace.agent.config import AgentConfig
from headrace.agent.copies import is_intact, is_prefix_of, proof
from headrace.agent.discovery import Found, Listing
from headrace.agent.identity import HEAD_BYTES, Head, Mark, new_identity
from headrace.agent.position_store import PositionStore
from headrace.agent.positions import Position
from headrace.agent.registry import Registry
from headrace.agent.rest import take_over
from headrace.agent.source import Source, open_source
from headrace.agent.tracked import LostTrack, Newcomer, TrackedFile
from headrace.core.clock import Clock
from headrace.core.errors import StorageError
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.agent")

_SLICE_COUNT = 256  # files opened at a time when there are very many


class Newcomers:
    """Decides on new files. `wake` is called for files that want a turn now."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        registry: Registry,
        store: PositionStore,
        troubles: Troubles,
        clock: Clock,
        pool: Executor,
        wake: Callable[[TrackedFile], None],
    ) -> None:
        self._config = config
        self._registry = registry
        self._store = store
        self._troubles = troubles
        self._clock = clock
        self._pool = pool
        self._wake = wake
        self._tracked: list[TrackedFile] = []

    async def welcome(self, listing: Listing) -> None:
        """Meet the new files of a listing, and decide on those met before."""
        newcomers = self._registry.newcomers
        fresh = [
            found
            for at, found in listing.files.items()
            if self._registry.get(*at) is None and at not in newcomers
        ]
        # Shorter names first: a rotated file's name is its original's with something added.
        fresh.sort(key=lambda found: (len(found.paths[0]), found.paths[0]))
        self._forget_unreadable(fresh)
        self._decide_all()
        await self._store_tracked()
        for first in range(0, len(fresh), _SLICE_COUNT):
            await self._meet(fresh[first : first + _SLICE_COUNT])
            self._decide_all()
            await self._store_tracked()

    async def _store_tracked(self) -> None:
        """Make the identities of the files tracked just now durable, in one commit.

        If the disk refuses, the shipper says so when it comes to put under one of them.
        """
        tracked, self._tracked = self._tracked, []
        if tracked:
            with contextlib.suppress(StorageError):
                await self._store.commit()
                for file in tracked:
                    file.is_stored = True

    async def _meet(self, fresh: list[Found]) -> None:
        """Open new files, as far as descriptors and rights allow; the others next time."""
        room = self._registry.make_room(len(fresh))
        wanted = [found for found in fresh if found.size > 0][: max(room, 1)]
        # Empty files may stay empty for ever: they get no more than half of the descriptors.
        spare = room - len(wanted) - self._registry.max_open_files // 2
        wanted += [found for found in fresh if found.size == 0][: max(spare, 0)]
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self._pool, _open_all, wanted)
        now_ms = self._clock.monotonic_ms()
        for found, result in zip(wanted, opened, strict=True):
            path = found.paths[0]
            if isinstance(result, FileNotFoundError):
                continue
            if isinstance(result, OSError):
                self._troubles.report(f"file:{path}", describe_unreadable(path, result))
                continue
            self._troubles.clear(f"file:{path}")
            if result.key != found.key:  # replaced since it was listed; the next scan sees it
                result.close()
                continue
            self._registry.newcomers[found.flow.stream, found.key] = Newcomer(
                found.flow, found.key, path, result, result.state().size, now_ms
            )

    def _decide_all(self) -> None:
        for at, newcomer in list(self._registry.newcomers.items()):
            try:
                is_decided = self._decide(newcomer)
            except OSError as error:
                self._troubles.report(
                    f"file:{newcomer.path}", describe_unreadable(newcomer.path, error)
                )
                newcomer.source.close()
                is_decided = True
            if is_decided:
                self._registry.newcomers.pop(at, None)

    def _decide(self, newcomer: Newcomer) -> bool:
        """Track a new file, or wait. True if it is decided, and its source cared for."""
        source, flow = newcomer.source, newcomer.flow
        now_ms = self._clock.monotonic_ms()
        state = source.state()
        if state.size != newcomer.size:
            newcomer.size, newcomer.quiet_since_ms = state.size, now_ms
        if state.size == 0:
            if not state.is_linked:
                source.close()
            return not state.is_linked
        if flow.is_first_run and flow.config.start == "end":
            self._track(newcomer, at_end=True)
            return True
        for original in self._registry.originals_of(source, flow.stream):
            if original.is_missing:
                if not proof(source, original.position):
                    continue
                self._registry.remove(original)
                take_over(original, source, registry=self._registry)
                self._store.put(original.position)
                self._troubles.clear(f"missing:{original.position.identity}")
                self._wake(original)
                return True
            if self._may_be_copy(source, original):
                if original.is_replaced:
                    self._wake(original)
                    return False
                if now_ms - newcomer.quiet_since_ms < self._config.copy_wait:
                    return False
        self._track(newcomer, at_end=False)
        return True

    def _may_be_copy(self, source: Source, original: TrackedFile) -> bool:
        """Whether the original, looked at now, allows the source to be its copy."""
        if original.position.is_compressed:
            return False
        if original.source is None:
            if original.in_turn:
                return True  # being opened just now
            try:
                self._registry.make_room()
                original.open()
            except LostTrack:
                if original.is_estranged:
                    self._registry.release_key(original)
                return True  # the next scan finds out where it is, or what it left
            except OSError:
                return True  # cannot be told now; the wait is bounded
        assert original.source is not None
        if not original.is_replaced and is_intact(original.source, original.position):
            if is_prefix_of(source, original.source):
                return True
            # The comparison counts only if the original was whole until after it.
            if is_intact(original.source, original.position):
                return False
        original.is_replaced = True
        return True

    def _track(self, newcomer: Newcomer, *, at_end: bool) -> None:
        """From now on this is a file of its own, with an identity of its own."""
        source, flow = newcomer.source, newcomer.flow
        position = Position(
            identity=new_identity(),
            stream=flow.stream,
            home=newcomer.path,
            path=newcomer.path,
            device=newcomer.key.device,
            inode=newcomer.key.inode,
            inode_generation=source.inode_generation,
            head=Head.of(source.read_at(0, HEAD_BYTES)),
            size=newcomer.size,
            framing=flow.packer.part_bytes,
            seen_ms=self._clock.now_ms(),
        )
        if at_end and (offset := _last_line_start(source, newcomer.size, flow.packer.max_line)):
            start = Mark(offset, b"").start
            before = source.read_at(start, offset - start)
            position.advance(offset, Mark.at(offset, before), line_start=None)
        state = source.state()
        file = TrackedFile(
            flow,
            position,
            self._registry.open_files,
            size=state.size,
            mtime_ns=state.mtime_ns,
        )
        file.grown_ms = self._clock.monotonic_ms()
        file.is_linked = state.is_linked
        self._store.put(position)
        if self._registry.make_room(0) >= 0 or not state.is_linked:
            file.attach(source)
        else:
            source.close()
        self._registry.add(file)
        self._tracked.append(file)
        self._wake(file)
        log.info("tailing %s to %s from byte %d", position.path, flow.stream, position.offset)

    def _forget_unreadable(self, fresh: list[Found]) -> None:
        """Files that are gone are no problem any more."""
        present = {found.paths[0] for found in fresh}
        for key in self._troubles.keys("file:"):
            if key.removeprefix("file:") not in present:
                self._troubles.clear(key)


def describe_unreadable(path: str, error: OSError) -> str:
    """What is wrong with a file or folder, and what to do about it."""
    text = f"cannot read {path}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        user = _user_name()
        text += (
            f"; give user {user} the right to, for instance with `setfacl -m u:{user}:rX {path}`"
            " (it is picked up at once then)"
        )
    return text


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _open_all(wanted: list[Found]) -> list[Source | OSError]:
    results: list[Source | OSError] = []
    for found in wanted:
        try:
            results.append(open_source(found.paths[0]))
        except OSError as error:
            results.append(error)
    return results


def _last_line_start(source: Source, size: int, max_line: int) -> int:
    """Where the unfinished last line begins: `size` if the last byte is a newline."""
    start = max(0, size - max_line - 1)
    newline = source.read_at(start, size - start).rfind(b"\n")
    if newline < 0:
        return 0 if start == 0 else size
    return start + newline + 1
