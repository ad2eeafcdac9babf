"""PutRecord, PutRecords and GetRecords answers, rendered by column.

Records are stored as the JSON objects that GetRecords answers, so that its answer is a slice of the
log; a CBOR reader's are decoded once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.core.errors import ThroughputExceeded
from headrace.core.pieces import Pieces
from headrace.core.service.put_columns import PutAnswer
from headrace.core.service.reads import GetAnswer
from headrace.core.speedups import compiled
from headrace.core.wire.codec import CBOR, encode_response


def render_put_records(answer: PutAnswer, content_type: str) -> bytes:
    numbers, ids = answer.sequence_numbers, answer.shard_ids
    if answer.refused:
        return _render_partly_refused(answer, content_type)
    if content_type == CBOR:
        records = [
            {"SequenceNumber": number, "ShardId": shard}
            for number, shard in zip(numbers, ids, strict=True)
        ]
        response = {
            "FailedRecordCount": 0,
            "Records": records,
            "EncryptionType": answer.encryption,
        }
        return encode_response("PutRecords", response, content_type)
    head = f'{{{_encryption(answer.encryption)}"FailedRecordCount":0,"Records":['
    return join_answers(head.encode(), numbers, ids)


@compiled
def join_answers(head: bytes, numbers: list[str], ids: list[str], /) -> bytes:
    """An answer that ends with the sequence number and the shard of each record, after `head`."""
    # what stands after each number: its shard, and the beginning of the next record
    after = {shard: f'","ShardId":"{shard}"}},{{"SequenceNumber":"' for shard in set(ids)}
    pieces = [""] * (2 * len(numbers))
    pieces[0::2] = numbers
    pieces[1::2] = map(after.__getitem__, ids)
    pieces[-1] = f'","ShardId":"{ids[-1]}"}}]}}'
    return head + ('{"SequenceNumber":"' + "".join(pieces)).encode()


def _encryption(encryption: str | None) -> str:
    """The member that only encrypted streams' answers have, as it begins an object."""
    return "" if encryption is None else f'"EncryptionType":"{encryption}",'


def _render_partly_refused(answer: PutAnswer, content_type: str) -> bytes:
    records = [
        {"ErrorCode": ThroughputExceeded.code, "ErrorMessage": answer.refused[i]}
        if i in answer.refused
        else {"SequenceNumber": number, "ShardId": shard}
        for i, (number, shard) in enumerate(
            zip(answer.sequence_numbers, answer.shard_ids, strict=True)
        )
    ]
    response = {
        "FailedRecordCount": len(answer.refused),
        "Records": records,
        "EncryptionType": answer.encryption,
    }
    return encode_response("PutRecords", response, content_type)


def render_put_record(answer: PutAnswer, content_type: str) -> bytes:
    """Raises ThroughputExceeded when it was refused."""
    if answer.refused:
        raise ThroughputExceeded(answer.refused[0])
    number, shard = answer.sequence_numbers[0], answer.shard_ids[0]
    if content_type == CBOR:
        response = {
            "SequenceNumber": number,
            "ShardId": shard,
            "EncryptionType": answer.encryption,
        }
        return encode_response("PutRecord", response, content_type)
    return render_one_put(number, shard, answer.encryption)


def render_one_put(number: str, shard: str, encryption: str | None) -> bytes:
    """The JSON answer to a PutRecord."""
    head = _encryption(encryption)
    return f'{{{head}"SequenceNumber":"{number}","ShardId":"{shard}"}}'.encode()


def render_poll(answer: GetAnswer) -> bytes:
    """The JSON answer to a GetRecords that leaves its reader at the tail of an open shard."""
    records = b",".join(answer.slice.parts)
    following = (answer.next_iterator or "").encode()
    return b'{"Records":[%b],"MillisBehindLatest":0,"NextShardIterator":"%b"}' % (
        records,
        following,
    )


class _Record(msgspec.Struct, gc=False):
    ApproximateArrivalTimestamp: float
    Data: bytes
    SequenceNumber: str
    PartitionKey: str | None = None  # a stream of strategy AUTO takes records without
    EncryptionType: str | None = None


_decode_records = msgspec.json.Decoder(list[_Record]).decode


def records_for_cbor(parts: Sequence[memoryview]) -> list[dict[str, Any]]:
    """Stored JSON objects, joined by commas, as records to encode by the model."""
    return [
        {
            "ApproximateArrivalTimestamp": round(record.ApproximateArrivalTimestamp * 1000),
            "Data": record.Data,
            "PartitionKey": record.PartitionKey,
            "SequenceNumber": record.SequenceNumber,
            "EncryptionType": record.EncryptionType,
        }
        for record in _decode_records(b"[" + b",".join(parts) + b"]")
    ]


def render_get_records(answer: GetAnswer, content_type: str) -> bytes | Pieces:
    """The stored JSON objects as they are, or decoded once more for a CBOR reader."""
    if content_type == CBOR:
        return _render_get_records_cbor(answer)
    parts: list[bytes | memoryview] = [b'{"Records":[']
    for part in answer.slice.parts:
        parts += (part, b",")
    if answer.slice.parts:
        parts.pop()
    tail = f'],"MillisBehindLatest":{answer.millis_behind_latest}'
    if answer.next_iterator is not None:
        tail += f',"NextShardIterator":"{answer.next_iterator}"}}'
    elif answer.child_shards:
        tail += f',"ChildShards":{msgspec.json.encode(answer.child_shards).decode()}}}'
    else:
        tail += "}"
    parts.append(tail.encode())
    return Pieces(parts)


def _render_get_records_cbor(answer: GetAnswer) -> bytes:
    response: dict[str, Any] = {
        "Records": records_for_cbor(answer.slice.parts),
        "MillisBehindLatest": answer.millis_behind_latest,
        "NextShardIterator": answer.next_iterator,
        "ChildShards": answer.child_shards or None,
    }
    return encode_response("GetRecords", response, CBOR)
