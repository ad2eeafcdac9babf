"""The agent: flows, scanner, shipper and store put together, and the loops that drive them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headrace.agent.config import AgentConfig
from headrace.agent.counters import Counters
from headrace.agent.discovery import Listing
from headrace.agent.flow import Flow, Putter
from headrace.agent.hints import Hints
from headrace.agent.lock import FolderLock
from headrace.agent.position_store import PositionStore
from headrace.agent.registry import Registry
from headrace.agent.scanner import Scanner
from headrace.agent.shipper import Shipper
from headrace.core.clock import Clock
from headrace.core.errors import StorageError
from headrace.core.part import Health
from headrace.core.troubles import Troubles

log = logging.getLogger("headrace.agent")

_SAVE_MS = 200  # how often positions that have moved are made durable, all in one commit
_COPY_MS = 600_000  # how often the copy of the positions is refreshed
_ACTIVE_MS = 10_000  # how long a file that changed is looked at between scans
_SCAN_SHARE = 20  # a look at the disk takes a twentieth of one core's time at most,
_SCAN_PAUSE_MAX_MS = 30_000  # however many files there are it comes at least so often,
_SCAN_PAUSE_MIN_MS = 50  # and however many events there are not more often than this
STOP_GRACE_MS = 10_000  # for puts under way when asked to stop


class Agent:
    """Tails the files of a configuration into streams.

    `open`, then either `run` until `stop`, or `scan` and `drain` by hand (tests do), then
    `close`. `putter` gives the way into a stream, by its name.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        data: Path,
        base: Path,
        clock: Clock,
        putter: Callable[[str], Putter],
        troubles: Troubles | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.counters = Counters()
        self.troubles = troubles or Troubles(log, clock)
        self.registry = Registry(config.max_open_files)
        self._data = data
        self._flows = [Flow(flow, base=base, putter=putter) for flow in config.flows]
        self._pool = ThreadPoolExecutor(config.concurrency + 1, thread_name_prefix="agent")
        self._stopping = asyncio.Event()
        self._scan_soon = asyncio.Event()
        self._lock: FolderLock | None = None

    def open(self) -> None:
        """Take the data folder and read the positions in it (blocking, but short).

        Raises:
            StorageLocked: another agent has the folder.
            StorageError: the positions cannot be used.
        """
        self._lock = FolderLock(self._data)
        try:
            self.store = PositionStore.open(self._data / "positions.db")
        except BaseException:
            self._lock.release()
            raise
        if self.store.notice is not None:
            self.troubles.report("positions", self.store.notice)
        self.shipper = Shipper(
            self.config,
            registry=self.registry,
            store=self.store,
            troubles=self.troubles,
            counters=self.counters,
            clock=self.clock,
            pool=self._pool,
        )
        self.scanner = Scanner(
            self._flows,
            self.config,
            registry=self.registry,
            store=self.store,
            troubles=self.troubles,
            clock=self.clock,
            pool=self._pool,
            wake=self.shipper.turns.wake,
        )
        for flow in self._flows:
            flow.is_first_run = self.store.note(flow.key) is None
        self.scanner.restore(self.store.load())

    async def run(self) -> None:
        """Tail until `stop` is called, then finish what is in hand."""
        loop = asyncio.get_running_loop()

        def scan_soon() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody scans any more
                loop.call_soon_threadsafe(self._scan_soon.set)

        hints = Hints(scan_soon)
        hints.start()
        helpers = [
            asyncio.create_task(self._scan_loop(hints), name="scan"),
            asyncio.create_task(self._look_loop(), name="look"),
            asyncio.create_task(self._save_loop(), name="save"),
        ]
        workers = [
            asyncio.create_task(self.shipper.turns.work(), name=f"ship-{number}")
            for number in range(self.config.concurrency)
        ]
        stopping = asyncio.create_task(self._until_asked_to_stop())
        try:
            done, _ = await asyncio.wait(
                [stopping, *helpers, *workers], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                task.result()  # a loop of ours does not end by itself: raise what ended it
        finally:
            self.shipper.turns.is_stopping = True
            await _cancel([stopping, *helpers])
            hints.stop()
            await self._let_finish(workers)

    async def _until_asked_to_stop(self) -> None:
        await self._stopping.wait()

    async def stop(self) -> None:
        """Let `run` finish the puts under way and return."""
        self._stopping.set()

    async def close(self) -> None:
        """Store positions, close everything, let the next agent in."""
        try:
            await self.store.close()
        except StorageError as error:
            log.error("%s", error)
        finally:
            self._release()

    def abandon(self) -> None:
        """Close without storing anything, as a crash would (for tests)."""
        self.store.abandon()
        self._release()

    async def scan(self) -> Listing:
        """One look at the disk, and what follows from it. Returns what was seen."""
        return await self.scanner.scan()

    async def drain(self) -> None:
        """Ship what the last scan found."""
        await self.shipper.turns.drain()

    def look(self) -> None:
        """See whether files that changed lately have grown again."""
        turns, now_ms = self.shipper.turns, self.clock.monotonic_ms()
        for identity, file in list(turns.active.items()):
            if file.source is not None and not file.position.is_compressed:
                state = file.source.state()
                file.observe(state.size, state.mtime_ns, now_ms)
            if file.has_news and not file.is_missing:
                turns.wake(file)
            elif now_ms - file.grown_ms > _ACTIVE_MS and not file.in_turn:
                del turns.active[identity]

    def health(self) -> Health:
        """Figures and current trouble."""
        troubles = self.troubles.current()
        lag_bytes = sum(file.lag_bytes for file in self.registry)
        lag_bytes += sum(newcomer.size for newcomer in self.registry.newcomers.values())
        return Health(
            ok=not troubles,
            figures={
                **self.counters.figures(),
                "lag_bytes": lag_bytes,
                "files": len(self.registry) + len(self.registry.newcomers),
                "files_open": self.registry.open_count,
            },
            problems=troubles,
        )

    async def _scan_loop(self, hints: Hints) -> None:
        is_first = True
        while True:
            self._scan_soon.clear()
            listing = await self.scan()
            if is_first:
                # What is known of files lives as long as the process. With 20,000 of them more
                # than half of a scan's time went into collections that walked them all.
                gc.freeze()
                is_first = False
            await asyncio.to_thread(hints.watch, self._folders(listing))
            pause_ms = min(
                max(_SCAN_PAUSE_MIN_MS, _SCAN_SHARE * listing.cost_ms), _SCAN_PAUSE_MAX_MS
            )
            await self.clock.sleep_ms(pause_ms)
            left_ms = self.config.scan_interval - pause_ms
            if left_ms > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._scan_soon.wait(), left_ms / 1000)

    def _folders(self, listing: Listing) -> set[str]:
        """The folders where files are, or may appear."""
        folders = {path.rpartition("/")[0] for path in listing.keys}
        roots = {glob.root for flow in self._flows for glob in flow.globs}
        return folders | {str(root) for root in roots if root.is_dir()}

    async def _look_loop(self) -> None:
        window_ms = max(10, min(flow.config.batch.window for flow in self._flows))
        while True:
            await self.clock.sleep_ms(window_ms)
            self.look()

    async def _save_loop(self) -> None:
        copied_ms = self.clock.monotonic_ms()
        while True:
            await self.clock.sleep_ms(_SAVE_MS)
            if not self.store.has_changes:
                continue
            if not await self.shipper.commit():
                await self.clock.sleep_ms(1000)
                continue
            now_ms = self.clock.monotonic_ms()
            if now_ms - copied_ms >= _COPY_MS:
                copied_ms = now_ms
                try:
                    await self.store.copy_aside()
                    self.troubles.clear("copy")
                except StorageError as error:
                    self.troubles.report("copy", str(error))

    async def _let_finish(self, workers: list[asyncio.Task[None]]) -> None:
        """Wait for files in a turn, then end all workers."""
        deadline_ms = self.clock.monotonic_ms() + STOP_GRACE_MS
        while any(file.in_turn for file in self.registry):
            if self.clock.monotonic_ms() >= deadline_ms:
                log.warning(
                    "stopping with puts under way: the next start puts them again, under the"
                    " same numbers"
                )
                break
            await self.clock.sleep_ms(10)
        await _cancel(workers)

    def _release(self) -> None:
        self._pool.shutdown(wait=True)
        for file in self.registry:
            file.close()
        for newcomer in self.registry.newcomers.values():
            newcomer.source.close()
        self.registry.newcomers.clear()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
