"""Records as the JSON objects that GetRecords answers, so that a read is a slice of the log."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


def quote_keys(keys: Sequence[str]) -> Sequence[str]:
    """Partition keys as the inside of JSON strings; printable ones, nearly all, as they are."""
    joined = "".join(keys)
    if joined.isprintable() and '"' not in joined and "\\" not in joined:
        return keys
    return [msgspec.json.encode(key)[1:-1].decode() for key in keys]


def seconds(unix_ms: int) -> str:
    """Unix ms as JSON seconds with three decimals, exactly: 1545084650987 -> 1545084650.987."""
    return f"{unix_ms // 1000}.{unix_ms % 1000:03d}"


def render(
    sequence_numbers: Sequence[str],
    arrival_ms: int,
    data: Sequence[str],
    keys: Sequence[str],
    is_encrypted: bool = False,
) -> list[bytes]:
    """One JSON object per record. `data` is base64 text, `keys` come from `quote_keys`.

    The sequence number comes last (see `last_sequence_number`); an empty key is left out.
    """
    mark = '"EncryptionType":"KMS",' if is_encrypted else ""
    head = f'{{"ApproximateArrivalTimestamp":{seconds(arrival_ms)},{mark}"Data":"'
    if not all(keys):
        return [
            f'{head}{d}",{_member(k)}"SequenceNumber":"{s}"}}'.encode()
            for d, k, s in zip(data, keys, sequence_numbers, strict=True)
        ]
    return [
        f'{head}{d}","PartitionKey":"{k}","SequenceNumber":"{s}"}}'.encode()
        for d, k, s in zip(data, keys, sequence_numbers, strict=True)
    ]


def _member(key: str) -> str:
    return f'"PartitionKey":"{key}",' if key else ""


def last_sequence_number(rendered: bytes) -> str:
    """The sequence number that ends rendered records, of which `rendered` is the end."""
    return rendered.removesuffix(b'"}').rpartition(b'"')[2].decode()
