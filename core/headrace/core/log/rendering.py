"""Records as the JSON objects that GetRecords answers, so that a read is a slice of the log."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from headrace.core.model.sequence import compose
from headrace.core.speedups import compiled

_BEFORE_KEY = '","PartitionKey":"'
_BEFORE_NUMBER = '","SequenceNumber":"'
_END = '"}'


def quote_keys(keys: Sequence[str]) -> Sequence[str]:
    """Partition keys as the inside of JSON strings; plain ones, nearly all, as they are."""
    if are_plain(keys):
        return keys
    return [msgspec.json.encode(key)[1:-1].decode() for key in keys]


@compiled
def are_plain(keys: Sequence[str], /) -> bool:
    """Whether all are of printable characters that JSON takes as they are."""
    joined = "".join(keys)
    return joined.isprintable() and '"' not in joined and "\\" not in joined


def seconds(unix_ms: int) -> str:
    """Unix ms as JSON seconds with three decimals, exactly: 1545084650987 -> 1545084650.987."""
    return f"{unix_ms // 1000}.{unix_ms % 1000:03d}"


class Rendered(NamedTuple):
    """Records as JSON objects, joined by commas."""

    objects: bytes
    ends: array[int]  # of each object


def render(
    sequence_numbers: Sequence[str],
    arrival_ms: int,
    data: Sequence[str],
    keys: Sequence[str],
    is_encrypted: bool = False,
    start: int = 0,
) -> Rendered:
    """One JSON object per record; there is at least one.

    `data` is base64 text, `keys` come from `quote_keys` and may be empty, which leaves them out;
    `sequence_numbers` are of one length, and come last in an object (see `last_sequence_number`).
    `start` is where the first object will stand, for `ends`.
    """
    mark = ',"EncryptionType":"KMS"' if is_encrypted else ""
    head = f'{{"ApproximateArrivalTimestamp":{seconds(arrival_ms)}{mark},"Data":"'
    around = head, _BEFORE_KEY, _BEFORE_NUMBER, _END
    objects, ends = join_objects(around, data, keys, sequence_numbers, start)
    return Rendered(objects, array("I", ends))


@compiled
def render_one(
    created_s: int,
    index: int,
    arrival_ms: int,
    shard: int,
    data: str,
    key: str,
    is_encrypted: bool,
    /,
) -> tuple[str, bytes] | None:
    """Sequence number and JSON object of one record; None of one whose key is not plain ASCII.

    The number is composed of the shard's creation, the sequence index and the arrival.
    """
    if not key.isascii() or not data.isascii() or not are_plain((key,)):
        return None
    number = str(compose(created_s, index, arrival_ms // 1000, shard))
    return number, render((number,), arrival_ms, (data,), (key,), is_encrypted).objects


@compiled
def join_objects(
    around: tuple[str, str, str, str],
    data: Sequence[str],
    keys: Sequence[str],
    numbers: Sequence[str],
    start: int,
    /,
) -> tuple[bytes, bytes]:
    """The objects, and where each ends as the bytes of an array("I").

    `around` has what stands before the data, before a key, before a number and at the end. All
    are made by one join: a string for each object, joined later, costs half as much again.
    """
    head, before_key, before_number, tail = around
    count = len(data)
    if "" in keys:
        keys = [key and before_key + key for key in keys]
        before_key = ""
    pieces = [f"{tail},{head}"] * (6 * count + 1)
    pieces[0] = head
    pieces[1::6] = data
    pieces[2::6] = [before_key] * count
    pieces[3::6] = keys
    pieces[4::6] = [before_number] * count
    pieces[5::6] = numbers
    pieces[-1] = tail
    text = "".join(pieces)
    in_bytes = keys if text.isascii() else [key.encode() for key in keys]
    fixed = len(head + before_key + before_number + numbers[0] + tail)
    end = start - 1
    ends = [end := end + 1 + fixed + len(d) + len(k) for d, k in zip(data, in_bytes, strict=True)]
    return text.encode(), array("I", ends).tobytes()


def last_sequence_number(rendered: bytes) -> str:
    """The sequence number that ends rendered records, of which `rendered` is the end."""
    return rendered.removesuffix(b'"}').rpartition(b'"')[2].decode()
