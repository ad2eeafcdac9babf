"""What idempotent producers have already stored: last sequence per producer and hash key range.

The memory follows hash key ranges, not shards, so it survives splits and merges: each *piece* is
the finest range any shard has ever had, and a record belongs to the piece its hash key lies in.
It is rebuilt from a segment's snapshot frame and the producer tables of the frames after it.

A producer's epoch is the whole stream's: the highest one in any piece. So who has been replaced is
refused everywhere, from the moment at which the new one stored its first record anywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from headrace.core.limits import PRODUCER_SILENCE_MS
from headrace.core.log.format import ProducerMark
from headrace.core.model.hashing import MAX_HASH_KEY, HashKeyRange


@dataclass(slots=True)
class Remembered:
    """The last thing a producer stored within a piece. Never changed, only replaced."""

    epoch: int
    sequence: int
    sequence_number: str
    seen_ms: int


@dataclass(slots=True)
class Piece:
    start: int
    end: int
    producers: dict[str, Remembered] = field(default_factory=dict)


# For a snapshot frame: numbers of more than 64 bits as decimal strings.
Dump = list[tuple[str, str, list[tuple[str, int, str, str, int]]]]


def dump(pieces: Iterable[Piece]) -> Dump:
    """What `ProducerMemory.load` takes."""
    return [
        (
            str(piece.start),
            str(piece.end),
            [
                (name, r.epoch, str(r.sequence), r.sequence_number, r.seen_ms)
                for name, r in piece.producers.items()
            ],
        )
        for piece in pieces
    ]


@dataclass(slots=True)
class Undo:
    """How one remembered sequence was before; for a commit window that failed.

    It names the range and not the piece, which a split may have cut since.
    """

    start: int
    end: int
    producer_id: str
    before: Remembered | None


class ProducerMemory:
    """The pieces of one stream, tiling all hash keys."""

    def __init__(self) -> None:
        self._pieces = [Piece(0, MAX_HASH_KEY)]
        self._starts = [0]
        self._edges: set[int] = set()
        self._epochs: dict[str, int] = {}  # the highest of all pieces, by producer

    def epoch_of(self, producer_id: str) -> int | None:
        """The highest epoch that has stored anything that is remembered; None without any."""
        return self._epochs.get(producer_id)

    def piece_of(self, hash_key: int) -> Piece:
        return self._pieces[bisect_right(self._starts, hash_key) - 1]

    def add_boundaries(self, ranges: Iterable[HashKeyRange]) -> None:
        """Cut pieces so that no piece reaches across an end of these ranges, from now on.

        That holds for every shard's range: a piece in two shards would take the sequence stored
        in one for that of the other.
        """
        for key_range in ranges:
            self._edges |= {key_range.start, key_range.end + 1}
            self._cut(key_range.start)
            self._cut(key_range.end + 1)

    def _cut(self, at: int) -> None:
        if at > MAX_HASH_KEY:
            return
        index = bisect_right(self._starts, at) - 1
        piece = self._pieces[index]
        if piece.start == at:
            return
        copies = {
            name: Remembered(r.epoch, r.sequence, r.sequence_number, r.seen_ms)
            for name, r in piece.producers.items()
        }
        self._pieces.insert(index + 1, Piece(at, piece.end, copies))
        self._starts.insert(index + 1, at)
        piece.end = at - 1

    def remember(
        self,
        piece: Piece,
        producer_id: str,
        epoch: int,
        sequence: int,
        sequence_number: str,
        now_ms: int,
    ) -> Undo:
        """Set the last sequence; gives back how to take that back."""
        undo = Undo(piece.start, piece.end, producer_id, piece.producers.get(producer_id))
        piece.producers[producer_id] = Remembered(epoch, sequence, sequence_number, now_ms)
        self._epochs[producer_id] = max(epoch, self._epochs.get(producer_id, 0))
        return undo

    def take_back(self, undos: Iterable[Undo]) -> None:
        """Undo in the order given: newest first."""
        undos = list(undos)
        for undo in undos:
            for piece in self._pieces_within(undo.start, undo.end):
                if undo.before is None:
                    piece.producers.pop(undo.producer_id, None)
                else:
                    piece.producers[undo.producer_id] = undo.before
        if undos:
            self._find_epochs()

    def _find_epochs(self) -> None:
        self._epochs = {}
        for piece in self._pieces:
            for name, known in piece.producers.items():
                self._epochs[name] = max(known.epoch, self._epochs.get(name, 0))

    def apply(self, marks: Iterable[ProducerMark], sequence_number: str, now_ms: int) -> None:
        """What a frame's producer table says, on recovery."""
        for mark in marks:
            self._cut(mark.range_start)
            self._cut(mark.range_end + 1)
            for piece in self._pieces_within(mark.range_start, mark.range_end):
                self.remember(
                    piece, mark.producer_id, mark.epoch, mark.sequence, sequence_number, now_ms
                )

    def _pieces_within(self, start: int, end: int) -> Iterator[Piece]:
        index = bisect_right(self._starts, start) - 1
        while index < len(self._pieces) and self._pieces[index].start <= end:
            yield self._pieces[index]
            index += 1

    def forget_silent(self, now_ms: int) -> None:
        """Drop producers that have been silent for PRODUCER_SILENCE_MS.

        Pieces that are left without any are joined, but not across an end of a shard.
        """
        horizon = now_ms - PRODUCER_SILENCE_MS
        has_forgotten = False
        for piece in self._pieces:
            for name in [n for n, r in piece.producers.items() if r.seen_ms < horizon]:
                del piece.producers[name]
                has_forgotten = True
        joined = self._pieces[:1]
        for piece in self._pieces[1:]:
            if not (piece.producers or joined[-1].producers or piece.start in self._edges):
                joined[-1].end = piece.end
            else:
                joined.append(piece)
        self._pieces = joined
        self._starts = [piece.start for piece in joined]
        if has_forgotten:
            self._find_epochs()

    def copy(self) -> list[Piece]:
        """The pieces as they are now, for `dump` in a thread while the memory goes on."""
        return [Piece(piece.start, piece.end, piece.producers.copy()) for piece in self._pieces]

    def load(self, dumped: Dump) -> None:
        """Take over what was dumped."""
        self._pieces = [
            Piece(
                int(start),
                int(end),
                {
                    name: Remembered(epoch, int(sequence), number, seen_ms)
                    for name, epoch, sequence, number, seen_ms in rows
                },
            )
            for start, end, rows in dumped
        ]
        self._starts = [piece.start for piece in self._pieces]
        self._find_epochs()
