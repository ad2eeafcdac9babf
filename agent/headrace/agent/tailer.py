"""Reading one file: from a position, in whole lines, never past a change of its content.

A read is believed only after what stands before it has been looked at again: when a file is
truncated and has grown past the old offset by the time it is read, the bytes at that offset are
of another line, and only the mark tells. Blocking; one thread at a time.
"""

from __future__ import annotations

from headrace.agent.copies import is_intact
from headrace.agent.identity import HEAD_BYTES, MARK_BYTES, Head, Mark
from headrace.agent.packing import Packer, Span
from headrace.agent.positions import Position
from headrace.agent.source import Source
from headrace.core.limits import MIB

CHUNK_BYTES = 1 * MIB


class ContentReplaced(Exception):
    """What was read before is not there any more: the file was truncated or written anew."""


class Tailer:
    """Reads ahead of one position. `rewind` goes back to what is acknowledged."""

    def __init__(self, source: Source, position: Position, packer: Packer) -> None:
        self.source = source
        self._max_line = packer.max_line
        self._part_bytes = packer.part_bytes
        self._chunk_bytes = max(CHUNK_BYTES, packer.max_line + 1)
        self.rewind(position)

    def rewind(self, position: Position) -> None:
        """Read on from the acknowledged offset."""
        self._position = position
        self._is_checked = False
        self.offset = position.offset
        #: Bytes known to belong to this generation of the file.
        self.size = position.size
        self._head = position.head
        self._mark = position.mark
        self._line_start = position.line_start
        self._cut = position.cut

    def read(self, *, is_finished: bool = False) -> Span | None:
        """The next lines: up to a MiB (or one record's limit) of them; None when none is whole.

        With `is_finished`, an unfinished last line counts as whole.

        Raises:
            ContentReplaced: read nothing; the position's generation has ended.
            OSError: reading failed.
        """
        offset = self.offset
        chunk = self.source.read_at(offset, self._chunk_bytes)
        size = max(self.source.state().size, offset + len(chunk))
        before = self._verified_before()
        self.size = size
        head = self._grown_head(before, chunk)
        start = offset
        if chunk[:1] == b"\0" and self._line_start is None:
            found = self._skip_nuls(offset, chunk, before, size)
            if found is None:
                return None
            start, chunk, before = found
        is_cut = start < self._cut <= start + len(chunk)
        if is_cut:
            chunk = chunk[: self._cut - start]
        line_start, next_line_start = self._line_start, None
        length = len(chunk) if is_cut else chunk.rfind(b"\n") + 1
        if not length:
            if len(chunk) > (self._max_line if line_start is None else self._part_bytes):
                # At least one byte stays behind, so that the line's last part is never empty.
                length = (len(chunk) - 1) // self._part_bytes * self._part_bytes
                next_line_start = start if line_start is None else line_start
            elif is_finished and chunk and start + len(chunk) >= size:
                length, is_cut = len(chunk), True
            else:
                return None
        end = start + length
        data = chunk[:length]
        mark = Mark.at(end, data if length >= MARK_BYTES else before + data)
        self.offset, self._mark, self._line_start = end, mark, next_line_start
        if head is not None:
            self._head = head
        return Span(
            start=start,
            data=data,
            end=end,
            mark=mark,
            head=head,
            line_start=line_start,
            next_line_start=next_line_start,
            is_cut=is_cut,
            nul_count=start - offset,
        )

    def _verified_before(self) -> bytes:
        """What stands right before the offset, or ContentReplaced if that is something else."""
        if not self._is_checked and not is_intact(self.source, self._position):
            raise ContentReplaced
        self._is_checked = True
        mark = self._mark
        if mark is None:
            if not self._head.begins(self.source.read_at(0, self._head.length)):
                raise ContentReplaced
            return b""
        before = self.source.read_at(mark.start, mark.offset - mark.start)
        if not mark.holds(before):
            raise ContentReplaced
        return before

    def _grown_head(self, before: bytes, chunk: bytes) -> Head | None:
        if self.offset >= HEAD_BYTES or self._head.length == HEAD_BYTES:
            return None
        head = Head.of(before + chunk[:HEAD_BYTES])
        return head if head.length > self._head.length else None

    def _skip_nuls(
        self, offset: int, chunk: bytes, before: bytes, size: int
    ) -> tuple[int, bytes, bytes] | None:
        """(start, data from there, what stands before it) after a run of NULs at a line's start.

        A writer that does not append leaves such a run when its file is truncated below it; so
        does a power failure. A run up to the end of the file is space set aside: None, to wait.
        """
        start = offset
        while not (data := chunk.lstrip(b"\0")):
            start = self.source.next_data(start + len(chunk))
            if start >= size:
                return None
            chunk = self.source.read_at(start, self._chunk_bytes)
            if not chunk:
                return None
        start += len(chunk) - len(data)
        self._verified_before()  # more was read since it was looked at
        run = b"\0" * min(start - offset, MARK_BYTES)
        return start, data, (before + run)[-MARK_BYTES:]
