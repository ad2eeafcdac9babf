"""The index of a sealed segment is searched in place, and finds what a list would."""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.log.access import SegmentAccess
from headrace.core.log.files import SystemFiles
from headrace.core.log.index import ActiveIndex, FrameEntry
from headrace.core.log.sealed_index import _BLOCK_ENTRIES, SealedIndex

NUMBERS = st.sampled_from(
    [0, 1, 2, 3, *(n * _BLOCK_ENTRIES + more for n in (1, 2, 5) for more in (-1, 0, 1))]
)


@given(st.lists(NUMBERS, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_it_finds_what_a_list_would(counts: list[int], random: Random) -> None:
    """Shards begin anywhere in a block, and end in any other; frames may arrive at one time."""
    index, found, frame_no, arrival_ms = ActiveIndex(), list[list[FrameEntry]](), 1, 1_000
    for shard, count in enumerate(counts):
        found.append([])
        for _ in range(count):
            frame_no += random.randint(1, 3)
            arrival_ms += random.choice([0, 0, 1, 5])
            found[-1].append(FrameEntry(frame_no, arrival_ms, frame_no * 100, 90, 2))
            index.add(shard, found[-1][-1])
    content = index.encode(
        first_frame=1, last_frame=frame_no, first_arrival_ms=1_000, last_arrival_ms=arrival_ms,
        end=1 << 20,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder, "segment.idx")
        path.write_bytes(content)
        sealed = SealedIndex(path, SegmentAccess(SystemFiles()))
        for shard, entries in enumerate([*found, []]):
            for wanted in {0, 1, frame_no + 1, *random.choices(range(frame_no + 1), k=9)}:
                at = bisect_left(entries, wanted, key=lambda entry: entry.frame_no)
                walked = islice(sealed.walk(shard, wanted, wait=True), _BLOCK_ENTRIES + 2)
                assert list(walked) == entries[at : at + _BLOCK_ENTRIES + 2]
            for at_ms in {0, 1_000, arrival_ms + 1, *random.choices(range(arrival_ms + 1), k=9)}:
                at = bisect_left(entries, at_ms, key=lambda entry: entry.arrival_ms)
                expected = entries[at] if at < len(entries) else None
                assert sealed.first_at(shard, at_ms, wait=True) == expected
