"""What producers stored is remembered by hash key range, through cuts, failures and silence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.limits import PRODUCER_SILENCE_MS
from headrace.core.log.producers import ProducerMemory, dump
from headrace.core.model.hashing import MAX_HASH_KEY, HashKeyRange, uniform_ranges

NOW_MS = 1_790_000_000_000


def remembered(memory: ProducerMemory, key: int, producer: str = "p") -> int | None:
    known = memory.piece_of(key).producers.get(producer)
    return None if known is None else known.sequence


def remember(memory: ProducerMemory, key: int, sequence: int, producer: str = "p") -> list[object]:
    piece = memory.piece_of(key)
    return [memory.remember(piece, producer, 0, sequence, str(sequence), NOW_MS)]


def test_a_cut_takes_what_is_remembered_to_both_sides() -> None:
    memory = ProducerMemory()
    remember(memory, 5, 7)
    memory.add_boundaries([HashKeyRange(0, 99), HashKeyRange(100, MAX_HASH_KEY)])
    remember(memory, 5, 8)
    assert (remembered(memory, 99), remembered(memory, 100)) == (8, 7)


def test_taking_back_after_a_cut_leaves_nothing_on_either_side() -> None:
    """A split while the disk filled up left the second half believing what was never stored."""
    memory = ProducerMemory()
    remember(memory, 5, 1)
    undo = memory.remember(memory.piece_of(5), "p", 0, 2, "2", NOW_MS)
    new = memory.remember(memory.piece_of(5), "q", 0, 1, "1", NOW_MS)
    memory.add_boundaries([HashKeyRange(100, MAX_HASH_KEY)])
    memory.take_back([new, undo])
    for key in (0, 99, 100, MAX_HASH_KEY):
        assert remembered(memory, key) == 1
        assert remembered(memory, key, "q") is None


def test_silence_joins_pieces_but_not_across_shards() -> None:
    memory = ProducerMemory()
    memory.add_boundaries(uniform_ranges(4))
    remember(memory, 0, 1)
    memory.forget_silent(NOW_MS + PRODUCER_SILENCE_MS + 1)
    assert remembered(memory, 0) is None
    remember(memory, 0, 9)
    assert [remembered(memory, r.start) for r in uniform_ranges(4)] == [9, None, None, None]


def test_the_epoch_is_the_highest_of_all_pieces() -> None:
    memory = ProducerMemory()
    memory.add_boundaries(uniform_ranges(4))
    pieces = [memory.piece_of(r.start) for r in uniform_ranges(4)]
    assert memory.epoch_of("p") is None
    memory.remember(pieces[0], "p", 1, 5, "5", NOW_MS)
    undo = memory.remember(pieces[2], "p", 3, 0, "6", NOW_MS)
    memory.remember(pieces[1], "q", 7, 0, "7", NOW_MS)
    again = ProducerMemory()
    again.load(dump(memory.copy()))
    for each in (memory, again):
        assert (each.epoch_of("p"), each.epoch_of("q")) == (3, 7)
    memory.take_back([undo])  # it was not stored after all
    assert (memory.epoch_of("p"), memory.epoch_of("q")) == (1, 7)
    again.remember(again.piece_of(0), "q", 7, 1, "8", NOW_MS + 1)
    again.forget_silent(NOW_MS + PRODUCER_SILENCE_MS + 1)
    assert (again.epoch_of("p"), again.epoch_of("q")) == (None, 7)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("remember"), st.integers(0, 1023), st.integers(0, 99)),
            st.tuples(st.just("cut"), st.integers(0, 1023), st.just(0)),
            st.tuples(st.just("dump"), st.just(0), st.just(0)),
            st.tuples(st.just("silence"), st.just(0), st.just(0)),
        ),
        max_size=40,
    )
)
def test_pieces_always_tile_and_never_reach_across_a_cut(
    steps: list[tuple[str, int, int]],
) -> None:
    scale = (MAX_HASH_KEY + 1) // 1024
    memory = ProducerMemory()
    cuts = {0}
    model: dict[int, int] = {}  # per 1024th of the hash keys
    for what, at, sequence in steps:
        if what == "remember":
            upper = min((cut for cut in cuts if cut > at), default=1024)
            lower = max(cut for cut in cuts if cut <= at)
            remember(memory, at * scale, sequence)
            model |= dict.fromkeys(range(lower, upper), sequence)
        elif what == "cut":
            cuts.add(at)
            memory.add_boundaries([HashKeyRange(at * scale, MAX_HASH_KEY)])
        elif what == "dump":
            dumped = dump(memory.copy())
            memory = ProducerMemory()
            memory.load(dumped)
            memory.add_boundaries([HashKeyRange(cut * scale, MAX_HASH_KEY) for cut in cuts])
        else:
            memory.forget_silent(NOW_MS)
        for i in (0, 1, 511, 512, 1023, *cuts):
            assert remembered(memory, i * scale) == model.get(i)
        starts = [int(start) for start, _, _ in dump(memory.copy())]
        ends = [int(end) for _, end, _ in dump(memory.copy())]
        assert starts == [0, *(end + 1 for end in ends[:-1])]
        assert ends[-1] == MAX_HASH_KEY
