"""The periodic look at the disk: the truth about which files there are and what became of them.

One scan lists what the flows' patterns match and compares it with what is tracked: this file has
grown, this one was renamed, this one cannot be found under any name. What is new goes to
`newcomers`. Watching the file system for events only makes scans come sooner.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path

from headrace.agent.config import AgentConfig
from headrace.agent.copies import find_again
from headrace.agent.discovery import Found, Listing, discover
from headrace.agent.flow import Flow
from headrace.agent.identity import key_of
from headrace.agent.newcomers import Newcomers, describe_unreadable
from headrace.agent.position_store import PositionStore
from headrace.agent.positions import Position
from headrace.agent.registry import Registry
from headrace.agent.rest import find_rest_of, report_loss, take_over
from headrace.agent.tracked import TrackedFile
from headrace.core.clock import Clock
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.agent")

_STAMP_MS = 6 * 3600 * 1000  # how often positions are stamped as seen
FORGET_MS = 7 * 24 * 3600 * 1000  # a stream forgets a silent producer after this, so do we


class Scanner:
    """Keeps the registry true to the disk. `wake` is called for files that want a turn."""

    def __init__(
        self,
        flows: list[Flow],
        config: AgentConfig,
        *,
        registry: Registry,
        store: PositionStore,
        troubles: Troubles,
        clock: Clock,
        pool: Executor,
        wake: Callable[[TrackedFile], None],
    ) -> None:
        self._flows = flows
        self._config = config
        self._registry = registry
        self._store = store
        self._troubles = troubles
        self._clock = clock
        self._pool = pool
        self._wake = wake
        self._stamped_ms = 0
        self._newcomers = Newcomers(
            config,
            registry=registry,
            store=store,
            troubles=troubles,
            clock=clock,
            pool=pool,
            wake=wake,
        )

    def restore(self, positions: Iterable[Position]) -> None:
        """Track the files of stored positions, those that a flow still wants."""
        now_ms = self._clock.monotonic_ms()
        for position in positions:
            for flow in self._flows:
                if flow.stream == position.stream and flow.matches(position.home):
                    break
            else:
                continue  # its flow is gone from the configuration; the position stays stored
            if position.framing != flow.packer.part_bytes:
                # Long lines are cut at other places now. What was put but not yet stored as
                # acknowledged must not be taken for what is put next: a new epoch.
                position.generation += 1
                position.framing = flow.packer.part_bytes
                self._store.put(position)
            file = TrackedFile(
                flow,
                position,
                self._registry.open_files,
                size=position.size,
                is_stored=True,
            )
            file.grown_ms = now_ms
            self._registry.add(file)

    async def scan(self) -> Listing:
        """Look once, and act on what has changed. Returns what was seen."""
        loop = asyncio.get_running_loop()
        listing = await loop.run_in_executor(self._pool, discover, self._flows)
        self._report_folders(listing)
        began_ns = time.thread_time_ns()
        missing, stirring = self._compare(listing)
        listing.cost_ms += (time.thread_time_ns() - began_ns) / 1e6
        for file in missing:
            await self._recover(file)
        await self._newcomers.welcome(listing)
        for flow in self._flows:
            if flow.is_first_run:
                flow.is_first_run = False
                self._store.put_note(flow.key, "started")
        for file in [*stirring, *missing]:
            if self._wants_turn(file):
                self._wake(file)
        return listing

    def _compare(self, listing: Listing) -> tuple[list[TrackedFile], list[TrackedFile]]:
        """Take note of what has become of all files.

        Returns those that are not to be found since now, and those that may want a turn.
        """
        missing: list[TrackedFile] = []
        stirring: list[TrackedFile] = []
        for at, file in self._registry.located():
            found = listing.files.get(at)
            if (
                found is not None
                and file.is_as_before(found.size, found.mtime_ns, found.paths)
                and listing.keys.get(file.position.home) == at[1]
            ):
                continue  # nearly all files, nearly always
            (missing if self._observe(file, found, listing) else stirring).append(file)
        for file in self._registry.estranged():
            if self._observe(file, None, listing):
                missing.append(file)
        now_ms = self._clock.now_ms()
        if now_ms - self._stamped_ms > _STAMP_MS:
            self._stamp(now_ms)
        return missing, stirring

    def _stamp(self, now_ms: int) -> None:
        """Note that the files are still there: positions of those that are not are forgotten."""
        self._stamped_ms = now_ms
        for file in self._registry:
            if not file.is_missing:
                file.position.seen_ms = now_ms
                self._store.put(file.position)

    def _observe(self, file: TrackedFile, found: Found | None, listing: Listing) -> bool:
        """Take note of a tracked file's state. True if it is not to be found since now."""
        now_ms = self._clock.monotonic_ms()
        position = file.position
        if found is not None:
            if position.path not in found.paths:
                self._rename(position, found.paths[0])
            has_changed = file.observe(found.size, found.mtime_ns, now_ms)
        else:
            seen = self._observe_unlisted(file, now_ms)
            if seen is None:
                newly, file.is_missing = not file.is_missing, True
                return newly
            has_changed = seen
        file.is_missing = False
        home_key = listing.keys.get(position.home)
        is_succeeded = home_key is not None and home_key != file.key
        if not position.is_rotated and (is_succeeded or not file.is_linked):
            position.is_rotated = True
            self._store.put(position)
        if has_changed and file.lag_bytes:  # its size is what a loss would be told by
            self._store.put(position)
        return False

    def _observe_unlisted(self, file: TrackedFile, now_ms: int) -> bool | None:
        """The same for a file no pattern matches any more; True if it has changed.

        None if nothing leads to it: no open descriptor, and not the path it had.
        """
        position = file.position
        if file.is_estranged:
            return None
        if file.in_turn and file.source is None:
            return False  # being opened just now
        if file.source is not None:
            if position.is_compressed:
                return False
            state = file.source.state()
            file.is_linked = state.is_linked
            path = file.source.current_path()
            if path is not None and path != position.path:
                self._rename(position, path)
            return file.observe(state.size, state.mtime_ns, now_ms)
        try:
            found = os.stat(position.path)
        except OSError:
            return None
        if key_of(found) != file.key:
            return None
        if position.is_compressed:  # of an archive, stat tells another size than its content
            return False
        return file.observe(found.st_size, found.st_mtime_ns, now_ms)

    def _rename(self, position: Position, path: str) -> None:
        log.info("%s is now %s", position.path, path)
        position.path = path
        self._store.put(position)

    async def _recover(self, file: TrackedFile) -> None:
        """Look for a file that is not where it was: under another name, copied, or archived."""
        loop = asyncio.get_running_loop()
        position, stream = file.position, file.flow.stream
        taken = self._registry.keys(stream) - {file.key}
        path = await loop.run_in_executor(self._pool, lambda: find_again(position, taken=taken))
        if path is not None and (key := _key_at(path)) is not None:
            self._registry.remove(file)
            position.device, position.inode = key
            position.is_rotated = position.is_rotated or path != position.home
            self._registry.add(file)
            self._rename(position, path)
            self._found(file)
            return
        rest = await find_rest_of(file, self._registry, self._pool)
        if rest is None:
            self._give_up(file)
            return
        self._registry.remove(file)
        take_over(file, rest, registry=self._registry)
        self._store.put(position)
        self._found(file)

    def _found(self, file: TrackedFile) -> None:
        file.is_missing = False
        self._troubles.clear(missing_key(file))

    def _give_up(self, file: TrackedFile) -> None:
        """Say what is lost with a file that nobody can find; keep its position for a while."""
        position = file.position
        start = max(position.offset, position.lost_to)
        if position.size > start:
            reason = (
                "truncated or deleted before they were read, and no copy has them"
                if file.is_estranged
                else "the file cannot be found any more"
            )
            now_ms = self._clock.now_ms()
            report_loss(
                self._store, position, start=start, end=position.size, reason=reason, now_ms=now_ms
            )
            position.lost_to = position.size
            self._store.put(position)
        if file.is_estranged or self._clock.now_ms() - position.seen_ms > FORGET_MS:
            self._registry.remove(file)
            self._store.forget(position.identity)
            self._troubles.clear(missing_key(file))
        elif position.size > position.offset:
            self._troubles.report(
                missing_key(file),
                f"{position.path} cannot be found: bytes {position.offset}..{position.size} of it"
                f" were not shipped; put it back into {Path(position.home).parent} to have them"
                " shipped",
            )

    def _wants_turn(self, file: TrackedFile) -> bool:
        if file.is_missing:
            return False
        return file.has_news or file.is_over(self._clock.monotonic_ms(), self._config.rotation_wait)

    def _report_folders(self, listing: Listing) -> None:
        for path, error in listing.unreadable.items():
            self._troubles.report(f"folder:{path}", describe_unreadable(path, error))
        for key in self._troubles.keys("folder:"):
            if key.removeprefix("folder:") not in listing.unreadable:
                self._troubles.clear(key)


def missing_key(file: TrackedFile) -> str:
    """The key of the problem that a file cannot be found."""
    return f"missing:{file.position.identity}"


def _key_at(path: str) -> tuple[int, int] | None:
    try:
        return key_of(os.stat(path))
    except OSError:
        return None
