"""Records as they are stored: every object is the JSON of its record, and lies where it is said."""

from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.log import format as fmt
from headrace.core.log.rendering import quote_keys, render
from headrace.core.log.window import OpenFrame

ARRIVAL_MS = 1_790_000_000_007
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
Record = tuple[bytes, str]


def added(frame: OpenFrame, records: list[Record], is_encrypted: bool) -> list[dict[str, object]]:
    """Add records to a frame; returns what their objects must say."""
    data = [b64encode(content).decode() for content, _ in records]
    numbers = [f"{frame.records + i:056d}" for i in range(len(records))]
    keys = quote_keys([key for _, key in records])
    frame.add(render(numbers, ARRIVAL_MS, data, keys, is_encrypted, frame.next_start))
    objects: list[dict[str, object]] = []
    for number, text, (_, key) in zip(numbers, data, records, strict=True):
        one: dict[str, object] = {"ApproximateArrivalTimestamp": ARRIVAL_MS / 1000}
        if is_encrypted:
            one["EncryptionType"] = "KMS"
        one["Data"] = text
        if key:
            one["PartitionKey"] = key
        objects.append({**one, "SequenceNumber": number})
    return objects


def read_back(frame: OpenFrame) -> list[bytes]:
    """The objects of a frame as a reader finds them in its bytes."""
    raw = b"".join(fmt.encode_frame(frame.ends, frame.objects, b"", 0, 1, ARRIVAL_MS, 0, 0))
    header, body = fmt.decode_header(raw), raw[fmt.HEADER_BYTES :]
    assert header is not None and fmt.body_is_valid(header, body)
    assert header.body_bytes == frame.body_bytes
    start, end = fmt.records_region(header)
    region = body[start:end]
    found, begin = [], 0
    for stop in fmt.record_ends(header, body):
        found.append(region[begin:stop])
        assert region[stop : stop + 1] in (b",", b"")
        begin = stop + 1
    assert begin == len(region) + 1
    return found


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.binary(max_size=20), KEYS), min_size=1, max_size=5), st.booleans()
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_object_is_its_record(puts: list[tuple[list[Record], bool]]) -> None:
    frame = OpenFrame(0, 1, ARRIVAL_MS, 0)
    wanted = [one for records, is_encrypted in puts for one in added(frame, records, is_encrypted)]
    found = [msgspec.json.decode(one) for one in read_back(frame)]
    assert found == wanted
    assert [list(one) for one in found] == [list(one) for one in wanted]  # in this order


@pytest.mark.parametrize("puts", [1, 2, 3])
@pytest.mark.parametrize("size", [10, 70_000])
def test_frames_large_and_small_of_one_put_and_of_several(size: int, puts: int) -> None:
    frame = OpenFrame(0, 1, ARRIVAL_MS, 0)
    records = [(b"x" * size, "key"), (b"", "\u00e9"), (b"y", "")]
    wanted = [one for _ in range(puts) for one in added(frame, records, False)]
    assert [msgspec.json.decode(one) for one in read_back(frame)] == wanted
