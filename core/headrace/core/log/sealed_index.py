"""SealedIndex: a sealed segment's index file, searched in place. See `index` for its bytes.

A file that turns out to be damaged, or gone, is made again from its segment, and what was asked
is answered from that: the records are not lost while their segment is whole.
"""

from __future__ import annotations

import logging
import struct
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from crc32c import crc32c

from headrace.core.errors import CorruptSegment, StorageFull
from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import NotInMemory
from headrace.core.log.index import ENTRY, FOOTER_BYTES, ROW, Footer, FrameEntry
from headrace.core.log.index_file import make_index, write_index

log = logging.getLogger("headrace.core")

_BLOCK_ENTRIES = 256  # entries read at once, and kept in the cache of index files: 8 KiB
_FIELD = struct.Struct("<Q")  # each of an entry's first
_VERIFY_BYTES = 1 << 20


class SealedIndex:
    """An `.idx` file. Several threads may search it."""

    __slots__ = ("_access", "_content", "_is_verified", "_path", "_refusal", "footer")

    def __init__(self, path: Path, access: SegmentAccess, content: bytes | None = None) -> None:
        """Read the footer. `content` is all of the file where it could not be written.

        Raises CorruptSegment if it has no footer (the caller rebuilds), FileNotFoundError.
        """
        self._path = path
        self._access = access
        self._content = content
        self._refusal: CorruptSegment | None = None
        self._is_verified = False
        footer = Footer.decode(content[-FOOTER_BYTES:]) if content else self._read_footer()
        if footer is None:
            raise CorruptSegment("the index file has no valid footer", path=str(path))
        self.footer = footer

    def _read_footer(self) -> Footer | None:
        files = self._access.files
        fd = files.open_read(self._path)
        try:
            size = files.size(fd)
            footer = Footer.decode(files.read_at(fd, FOOTER_BYTES, max(size - FOOTER_BYTES, 0)))
        finally:
            files.close(fd)
        is_whole = footer is not None and footer.body_bytes + FOOTER_BYTES == size
        return footer if is_whole else None

    def _verify(self, fd: int, wait: bool) -> bool:
        """Check what lies before the footer, once per run."""
        end = self.footer.body_bytes
        crc = 0
        for at in range(0, end, _VERIFY_BYTES):
            crc = crc32c(self._access.read(fd, at, min(_VERIFY_BYTES, end - at), wait=wait), crc)
        self._is_verified = crc == self.footer.body_crc
        return self._is_verified

    def _read(self, offset: int, count: int, wait: bool) -> memoryview:
        """Bytes of the file.

        Raises NotInMemory; where they are made again CorruptSegment if the segment is damaged too,
        and FileNotFoundError if it has been trimmed.
        """
        if self._content is None:
            try:
                with self._access.open_files.take(self._path, wait=wait) as fd:
                    if self._is_verified or self._verify(fd, wait):
                        data = self._access.read(fd, offset, count, wait=wait)
                        if len(data) == count:
                            return data
            except OSError:
                pass  # trimmed with its segment, removed by somebody, or the disk fails there
            if not wait:
                raise NotInMemory  # to make it again is for a thread
        content = self._content or self._mend()
        return memoryview(content[offset : offset + count])  # not a view that keeps all of it

    def _mend(self) -> bytes:
        """Make the file again; returns its content.

        It is in memory from then on: a reader may have the damaged file open, so that of this run
        none is believed any more. The one written is for the next start.
        """
        with self._access.mending:
            if self._content is None:  # no other thread has done it meanwhile
                if self._refusal is not None:
                    raise self._refusal.with_traceback(None)
                try:
                    self._content = self._made_again()
                except CorruptSegment as error:
                    self._refusal = error  # not to read the segment for every poll
                    raise
            return self._content

    def _made_again(self) -> bytes:
        files, segment = self._access.files, self._path.with_suffix(".seg")
        content = make_index(files, segment)
        if not content.endswith(self.footer.encode()):  # and with that all of it is as it was
            raise CorruptSegment(
                f"segment {segment} is damaged: it does not have the frames its index was made of",
                path=str(segment),
                hint="restore this file from a copy, and start again",
            )
        log.warning("%s was damaged or gone; it was made again from its segment", self._path)
        try:
            write_index(files, self._path, content)
        except (StorageFull, OSError) as error:  # nothing rests on it: it is in memory
            log.warning("%s could not be written: %s", self._path, error)
        return content

    def _row(self, shard: int, wait: bool) -> tuple[int, int]:
        """First entry and number of entries of a shard."""
        key = (self._path, "row", shard)
        known = self._access.indexes.get(key)
        if isinstance(known, tuple):
            return known
        found = self._find_row(shard, wait)
        self._access.indexes.put(key, found, 256)
        return found

    def _find_row(self, shard: int, wait: bool) -> tuple[int, int]:
        base = self.footer.entries * ENTRY.size
        low, high = 0, self.footer.shards
        while low < high:
            middle = (low + high) // 2
            row = self._read(base + middle * ROW.size, ROW.size, wait)
            found, first, count = ROW.unpack(row)
            if found == shard:
                return first, count
            if found < shard:
                low = middle + 1
            else:
                high = middle
        return 0, 0

    def _block(self, number: int, wait: bool) -> memoryview:
        """Entries `number` * 256 and on."""
        key = (self._path, number)
        known = self._access.indexes.get(key)
        if isinstance(known, memoryview):
            return known
        first = number * _BLOCK_ENTRIES
        count = min(_BLOCK_ENTRIES, self.footer.entries - first)
        block = self._read(first * ENTRY.size, count * ENTRY.size, wait)
        self._access.indexes.put(key, block, len(block))
        return block

    def _entry(self, at: int, wait: bool) -> FrameEntry:
        block, inside = divmod(at, _BLOCK_ENTRIES)
        return FrameEntry(*ENTRY.unpack_from(self._block(block, wait), inside * ENTRY.size))

    def _bisect(self, first: int, count: int, field: int, value: int, wait: bool) -> int:
        """The first of these entries whose field is not below `value`; `first + count` if none."""
        low, high = first, first + count
        while low // _BLOCK_ENTRIES < (high - 1) // _BLOCK_ENTRIES:  # it may be in several blocks
            middle = (low // _BLOCK_ENTRIES + (high - 1) // _BLOCK_ENTRIES + 1) // 2
            at = middle * _BLOCK_ENTRIES
            if self._entry(at, wait)[field] < value:
                low = at
            else:
                high = at
        if low == high:
            return low
        # in one block, which is looked up and taken apart only once
        number, inside = divmod(low, _BLOCK_ENTRIES)
        block = self._block(number, wait)
        offset = inside * ENTRY.size + field * _FIELD.size
        return low + bisect_left(
            range(high - low),
            value,
            key=lambda i: _FIELD.unpack_from(block, offset + i * ENTRY.size)[0],
        )

    def walk(self, shard: int, frame_no: int, *, wait: bool) -> Iterator[FrameEntry]:
        first, count = self._row(shard, wait)
        at, end = self._bisect(first, count, 0, frame_no, wait), first + count
        while at < end:
            number, inside = divmod(at, _BLOCK_ENTRIES)
            take = min(_BLOCK_ENTRIES - inside, end - at)
            block = self._block(number, wait)
            rows = block[inside * ENTRY.size : (inside + take) * ENTRY.size]
            for row in ENTRY.iter_unpack(rows):
                yield FrameEntry(*row)
            at += take

    def first_at(self, shard: int, at_ms: int, *, wait: bool) -> FrameEntry | None:
        first, count = self._row(shard, wait)
        at = self._bisect(first, count, 1, at_ms, wait)
        return None if at == first + count else self._entry(at, wait)
