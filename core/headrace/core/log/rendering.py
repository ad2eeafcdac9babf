"""Records as the JSON objects that GetRecords answers, so that a read is a slice of the log."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

_BEFORE_KEY = '","PartitionKey":"'
_BEFORE_NUMBER = '","SequenceNumber":"'
_END = '"}'


def quote_keys(keys: Sequence[str]) -> Sequence[str]:
    """Partition keys as the inside of JSON strings; printable ones, nearly all, as they are."""
    joined = "".join(keys)
    if joined.isprintable() and '"' not in joined and "\\" not in joined:
        return keys
    return [msgspec.json.encode(key)[1:-1].decode() for key in keys]


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
    `start` is where the first object will stand, for `ends`. All are made by one join: a string
    for each object, joined later, costs half as much again.
    """
    count = len(data)
    mark = '"EncryptionType":"KMS",' if is_encrypted else ""
    head = f'{{"ApproximateArrivalTimestamp":{seconds(arrival_ms)},{mark}"Data":"'
    before_key = _BEFORE_KEY
    if "" in keys:
        before_key, keys = "", [key and _BEFORE_KEY + key for key in keys]
    pieces = [f"{_END},{head}"] * (6 * count + 1)
    pieces[0] = head
    pieces[1::6] = data
    pieces[2::6] = [before_key] * count
    pieces[3::6] = keys
    pieces[4::6] = [_BEFORE_NUMBER] * count
    pieces[5::6] = sequence_numbers
    pieces[-1] = _END
    text = "".join(pieces)
    in_bytes = keys if text.isascii() else [key.encode() for key in keys]
    fixed = len(head + before_key + _BEFORE_NUMBER + sequence_numbers[0] + _END)
    end = start - 1
    ends = [end := end + 1 + fixed + len(d) + len(k) for d, k in zip(data, in_bytes, strict=True)]
    return Rendered(text.encode(), array("I", ends))


def last_sequence_number(rendered: bytes) -> str:
    """The sequence number that ends rendered records, of which `rendered` is the end."""
    return rendered.removesuffix(b'"}').rpartition(b'"')[2].decode()
