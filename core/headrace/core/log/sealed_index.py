"""SealedIndex: a sealed segment's index file, searched in place. See `index` for its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crc32c import crc32c

from headrace.core.errors import CorruptSegment
from headrace.core.log.access import SegmentAccess
from headrace.core.log.index import ENTRY, FOOTER_BYTES, ROW, Footer, FrameEntry

_BLOCK_ENTRIES = 256  # entries read at once, and kept in the cache of index files: 8 KiB
_VERIFY_BYTES = 1 << 20


class SealedIndex:
    """An `.idx` file, searched in place."""

    __slots__ = ("_access", "_is_verified", "_path", "footer")

    def __init__(self, path: Path, access: SegmentAccess) -> None:
        """Read the footer. Raises CorruptSegment if it is none (the caller rebuilds)."""
        self._path = path
        self._access = access
        files = access.files
        fd = files.open_read(path)
        try:
            size = files.size(fd)
            raw = files.read_at(fd, FOOTER_BYTES, max(size - FOOTER_BYTES, 0))
        finally:
            files.close(fd)
        footer = Footer.decode(raw)
        if footer is None or footer.body_bytes + FOOTER_BYTES != size:
            raise CorruptSegment("the index file has no valid footer", path=str(path))
        self.footer = footer
        self._is_verified = False

    def _verify(self, fd: int, wait: bool) -> None:
        """Check what lies before the footer, once per run."""
        end = self.footer.body_bytes
        crc = 0
        for at in range(0, end, _VERIFY_BYTES):
            crc = crc32c(self._access.read(fd, at, min(_VERIFY_BYTES, end - at), wait=wait), crc)
        if crc != self.footer.body_crc:
            raise CorruptSegment(
                "the index file does not match its checksum",
                path=str(self._path),
                hint="remove this .idx file: it is built again from its segment",
            )
        self._is_verified = True

    def _read(self, offset: int, count: int, wait: bool) -> memoryview:
        """Bytes of the file. Raises CorruptSegment, NotInMemory, FileNotFoundError."""
        with self._access.open_files.take(self._path, wait=wait) as fd:
            if not self._is_verified:
                self._verify(fd, wait)
            data = self._access.read(fd, offset, count, wait=wait)
        if len(data) != count:
            raise CorruptSegment("the index file was cut short", path=str(self._path))
        return data

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
        low, high = first, first + count
        while low < high:
            middle = (low + high) // 2
            if self._entry(middle, wait)[field] < value:
                low = middle + 1
            else:
                high = middle
        return low

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
