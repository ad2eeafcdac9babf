"""SegmentAccess: how the log's reading side gets at its files, for all streams of a process.

A read comes in two kinds. One that may `wait` is for a thread. One that may not is for the event
loop: it takes what is in memory (the page cache, a cache of ours, an open file) and raises
NotInMemory for anything else, so that a reader far behind holds up nobody else.
"""

from __future__ import annotations

from threading import Lock

from headrace.core.limits import MIB
from headrace.core.log.byte_cache import ByteCache
from headrace.core.log.files import Files
from headrace.core.log.format import FrameHeader
from headrace.core.log.open_files import MAX_OPEN, OpenFiles

FRAME_CACHE_BYTES = 16 * MIB
INDEX_CACHE_BYTES = 4 * MIB

Frame = tuple[FrameHeader, memoryview]


class SegmentAccess:
    """`frames` are checked frames that were read in part: header and body. `indexes` are pieces of
    index files. `mending` is held while an index is made again: one at a time, for it reads all of
    a segment.
    """

    def __init__(self, files: Files, *, max_open: int = MAX_OPEN) -> None:
        self.files = files
        self.open_files = OpenFiles(files, max_open)
        self.frames: ByteCache[Frame] = ByteCache(FRAME_CACHE_BYTES)
        self.indexes: ByteCache[memoryview | tuple[int, int]] = ByteCache(INDEX_CACHE_BYTES)
        self.mending = Lock()

    def read(self, fd: int, offset: int, count: int, *, wait: bool) -> memoryview:
        """Up to `count` bytes at `offset`, fewer only at the end of the file."""
        buffer = memoryview(bytearray(count))
        return buffer[: self.files.read_into(fd, buffer, offset, wait=wait)]
