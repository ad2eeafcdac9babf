"""File system events as a wake-up: something was created, renamed or deleted, so scan now.

Nothing depends on an event: queues overflow, network file systems send none, and the next scan
finds out anyway. Writes are not listened to; a busy log makes thousands a second, and files that
have changed lately are looked at several times a second in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

log = logging.getLogger("headrace.agent")

MAX_FOLDERS = 256
_EVENTS = [FileCreatedEvent, FileMovedEvent, FileDeletedEvent, DirCreatedEvent, DirMovedEvent]


class Hints(FileSystemEventHandler):
    """Watches folders and calls `wake`, from a thread of its own, when something moves there."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._watches: dict[str, ObservedWatch] = {}
        self._refused: set[str] = set()
        self._observer = Observer()
        self._observer.daemon = True
        self._is_running = False

    def start(self) -> None:
        """Start listening. Without the means to (no inotify left) there are just no hints."""
        try:
            self._observer.start()
            self._is_running = True
        except OSError as error:
            log.info("no file system events (%s): files are found by scanning alone", error)

    def watch(self, folders: Iterable[str]) -> None:
        """Listen to these folders, at most 256 of them, and no others. Never raises."""
        if not self._is_running:
            return
        wanted = set(sorted(folders)[:MAX_FOLDERS])
        for folder in self._watches.keys() - wanted:
            self._observer.unschedule(self._watches.pop(folder))
        for folder in wanted - self._watches.keys() - self._refused:
            try:
                self._watches[folder] = self._observer.schedule(self, folder, event_filter=_EVENTS)
            except OSError as error:  # gone again, or no watches left
                self._refused.add(folder)
                log.info("no events from %s (%s)", folder, error)

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._wake()

    def stop(self) -> None:
        """Stop listening."""
        if self._is_running:
            self._is_running = False
            self._observer.stop()
            self._observer.join(timeout=5)
