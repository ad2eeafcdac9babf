"""The client's side of the hot operations: typed shapes, encoded and decoded by pure functions.

Everything else goes through as plain JSON (`decode_members`). Data is base64 on the wire; msgspec's
own codec is the faster one for small records, pybase64's for large ones (measured: 100 B against
1 KB and up).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pybase64

from headrace.core.model.hashing import HashKeyRange
from headrace.core.model.records import PutEntry, PutResult, Record
from headrace.core.model.shards import ShardInfo

_LARGE_BYTES = 512  # mean data size from which pybase64 wins


class _Entry(msgspec.Struct, gc=False, omit_defaults=True, rename="pascal"):
    data: bytes | msgspec.Raw
    partition_key: str
    explicit_hash_key: str | None = None


class _PutRequest(msgspec.Struct, rename="pascal"):
    stream_name: str
    records: list[_Entry]


class _Put(msgspec.Struct, gc=False, rename="pascal"):
    sequence_number: str | None = None
    shard_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class _PutAnswer(msgspec.Struct, rename="pascal"):
    records: list[_Put]


class _Got(msgspec.Struct, gc=False, rename="pascal"):
    sequence_number: str
    data: bytes
    partition_key: str = ""
    approximate_arrival_timestamp: float = 0.0


class _GetAnswer(msgspec.Struct, rename="pascal"):
    records: list[_Got]
    next_shard_iterator: str | None = None
    millis_behind_latest: int = 0


class _Range(msgspec.Struct, rename="pascal"):
    starting_hash_key: str
    ending_hash_key: str


class _Numbers(msgspec.Struct, rename="pascal"):
    starting_sequence_number: str
    ending_sequence_number: str | None = None


class _Shard(msgspec.Struct, rename="pascal"):
    shard_id: str
    hash_key_range: _Range
    sequence_number_range: _Numbers
    parent_shard_id: str | None = None
    adjacent_parent_shard_id: str | None = None


class _ShardsAnswer(msgspec.Struct, rename="pascal"):
    shards: list[_Shard] = []
    next_token: str | None = None


class GetResult(msgspec.Struct, gc=False):
    """One answer of GetRecords. `next_iterator` is None once a closed shard is read to its end.

    `has_missed`: a Headrace says that records between where the iterator pointed and the first one
    given have expired.
    """

    records: list[Record]
    next_iterator: str | None
    millis_behind_latest: int
    has_missed: bool = False


_encoder = msgspec.json.Encoder()
_put_decoder = msgspec.json.Decoder(_PutAnswer)
_get_decoder = msgspec.json.Decoder(_GetAnswer)
_shards_decoder = msgspec.json.Decoder(_ShardsAnswer)
_members_decoder = msgspec.json.Decoder(dict[str, Any])


def encode_put(stream: str, entries: Sequence[PutEntry]) -> bytes:
    """The body of PutRecords."""
    data_bytes = sum([len(entry.data) for entry in entries])
    if data_bytes >= _LARGE_BYTES * len(entries):
        records = [
            _Entry(_quoted_base64(entry.data), entry.partition_key, entry.explicit_hash_key)
            for entry in entries
        ]
    else:
        records = [
            _Entry(entry.data, entry.partition_key, entry.explicit_hash_key) for entry in entries
        ]
    return _encoder.encode(_PutRequest(stream, records))


def _quoted_base64(data: bytes) -> msgspec.Raw:
    return msgspec.Raw(b'"%b"' % pybase64.b64encode(data))


def decode_put(body: bytes) -> list[PutResult]:
    """The answer of PutRecords, in the order of the request. Raises msgspec.DecodeError."""
    return [
        PutResult(put.sequence_number, put.shard_id, put.error_code, put.error_message)
        for put in _put_decoder.decode(body).records
    ]


def decode_get(body: bytes) -> GetResult:
    """The answer of GetRecords. Raises msgspec.DecodeError."""
    answer = _get_decoder.decode(body)
    return GetResult(
        [
            Record(
                got.data,
                got.partition_key,
                got.sequence_number,
                round(got.approximate_arrival_timestamp * 1000),
            )
            for got in answer.records
        ],
        answer.next_shard_iterator,
        answer.millis_behind_latest,
    )


def decode_shards(body: bytes) -> tuple[list[ShardInfo], str | None]:
    """A page of ListShards and the token of the next. Raises msgspec.DecodeError."""
    answer = _shards_decoder.decode(body)
    return [
        ShardInfo(
            shard_id=shard.shard_id,
            hash_key_range=HashKeyRange(
                int(shard.hash_key_range.starting_hash_key),
                int(shard.hash_key_range.ending_hash_key),
            ),
            starting_sequence_number=shard.sequence_number_range.starting_sequence_number,
            ending_sequence_number=shard.sequence_number_range.ending_sequence_number,
            parent_shard_id=shard.parent_shard_id,
            adjacent_parent_shard_id=shard.adjacent_parent_shard_id,
        )
        for shard in answer.shards
    ], answer.next_token


def decode_members(body: bytes) -> dict[str, Any]:
    """Any answer's members, an error's too. Raises msgspec.DecodeError."""
    members: dict[str, Any] = _members_decoder.decode(body)
    return members
