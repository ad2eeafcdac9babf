"""What is there: all files the flows' patterns match now, by identity (blocking, no state)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.agent.copies import is_archive
from headrace.agent.flow import Flow
from headrace.agent.identity import FileKey, key_of


@dataclass(slots=True)
class Found:
    """One file that matches, under all its names (links, several patterns)."""

    flow: Flow
    key: FileKey
    paths: list[str]
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Listing:
    """One look at the disk."""

    files: dict[tuple[str, FileKey], Found] = field(default_factory=dict)  # by stream and key
    keys: dict[str, FileKey] = field(default_factory=dict)  # by path
    unreadable: dict[str, OSError] = field(default_factory=dict)  # folders, by path
    cost_ms: float = 0.0  # CPU time of the look


def discover(flows: Iterable[Flow]) -> Listing:
    """List every regular file that a flow wants. A file wanted twice by a stream counts once."""
    began_ns = time.thread_time_ns()
    listing = Listing()
    for flow in flows:
        for glob in flow.globs:
            for path in glob.expand(listing.unreadable.__setitem__):
                if is_archive(path) or (flow.exclusions and flow.excludes(path)):
                    continue
                _add(listing, flow, path)
    listing.cost_ms = (time.thread_time_ns() - began_ns) / 1e6
    return listing


def _add(listing: Listing, flow: Flow, path: str) -> None:
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:  # a link loop, a folder without the right to enter it
        listing.unreadable[path] = error
        return
    if not stat.S_ISREG(state.st_mode):
        return
    key = key_of(state)
    listing.keys[path] = key
    found = listing.files.get((flow.stream, key))
    if found is None:
        listing.files[flow.stream, key] = Found(flow, key, [path], state.st_size, state.st_mtime_ns)
    elif path not in found.paths:
        found.paths.append(path)
