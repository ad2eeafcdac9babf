"""PutRecord, PutRecords and GetRecords bodies, decoded by type and rendered by column.

The three operations that move records do not go through the model's validator unless something
is wrong: msgspec decodes a good request straight into structs, and whatever it does not take is
handed to the validator to be explained as AWS explains it (or, rarely, to be accepted after all).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import pybase64

from headrace.core.errors import ThroughputExceeded, ValidationError
from headrace.core.limits import MAX_RECORDS_PER_GET, MAX_RECORDS_PER_PUT
from headrace.core.model.blobs import decoded_sizes
from headrace.core.pieces import Pieces
from headrace.core.service.put_columns import PutAnswer, PutColumns
from headrace.core.service.reads import GetAnswer
from headrace.core.wire.codec import CBOR, encode_response

_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.-]+\Z", max_length=128)]
_HashKey = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,38})\Z")]
_Number = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,128})\Z")]
_Arn = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^arn:aws[^:\n]*:kinesis:[^:\n]*:[0-9]{12}:stream/\S+\Z", max_length=2048
    ),
]
_LIST_PATH = "records.{}.member."


# A member that is not here is rare, and may be the model's: the validator looks at it.


class _Entry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    Data: str
    PartitionKey: _Key
    ExplicitHashKey: _HashKey | None = None


class _PutRecords(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    Records: Annotated[list[_Entry], msgspec.Meta(min_length=1, max_length=MAX_RECORDS_PER_PUT)]
    StreamName: _Name | None = None
    StreamARN: _Arn | None = None
    DryRun: bool = False


class _PutRecord(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    Data: str
    PartitionKey: _Key
    StreamName: _Name | None = None
    StreamARN: _Arn | None = None
    ExplicitHashKey: _HashKey | None = None
    SequenceNumberForOrdering: _Number | None = None
    DryRun: bool = False


class _UsualPut(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    StreamName: str  # a stream has it or not: there is nothing else to check
    Data: str
    PartitionKey: _Key
    ExplicitHashKey: str | None = None


class _GetRecords(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    ShardIterator: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    Limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_RECORDS_PER_GET)] = MAX_RECORDS_PER_GET
    StreamARN: _Arn | None = None  # the iterator says which
    DryRun: bool = False


class PutRequest(NamedTuple):
    """What PutRecord and PutRecords come down to."""

    name: str | None
    arn: str | None
    columns: PutColumns
    dry_run: bool
    ordering: str | None = None


_decode_put_records = msgspec.json.Decoder(_PutRecords).decode
_decode_put_record = msgspec.json.Decoder(_PutRecord).decode
_decode_usual_put = msgspec.json.Decoder(_UsualPut).decode
_decode_get_records = msgspec.json.Decoder(_GetRecords).decode

Validate = Callable[[], dict[str, Any]]
"""Runs the model's validator on the request at hand; raises what AWS would answer."""


def decode_put_records(body: bytes, is_json: bool, validate: Validate) -> PutRequest:
    """A PutRecords body -> columns. Raises ServiceError as AWS does."""
    if is_json:
        try:
            request = _decode_put_records(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        else:
            records = request.Records
            data = [record.Data for record in records]
            sizes = decoded_sizes(data)
            if sizes is not None:
                explicit = [record.ExplicitHashKey for record in records]
                columns = PutColumns(
                    data,
                    [record.PartitionKey for record in records],
                    explicit if any(explicit) else None,
                    sizes,
                    _LIST_PATH,
                )
                return PutRequest(request.StreamName, request.StreamARN, columns, request.DryRun)
    checked = validate()
    return PutRequest(
        checked.get("StreamName"),
        checked.get("StreamARN"),
        _columns(checked["Records"], _LIST_PATH),
        bool(checked.get("DryRun")),
    )


def decode_usual_put(body: bytes) -> tuple[str, str, str, str | None] | None:
    """A PutRecord body of JSON that names its stream and says nothing unusual; else None.

    Name, data (what ought to be base64), partition key and explicit hash key.
    """
    try:
        request = _decode_usual_put(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    explicit = request.ExplicitHashKey
    if explicit is not None and not _is_hash_key(explicit):
        return None
    return request.StreamName, request.Data, request.PartitionKey, explicit


def _is_hash_key(text: str) -> bool:
    """As the pattern of `_HashKey` says, which takes longer to."""
    return len(text) <= 39 and text.isdigit() and text.isascii() and (text[0] != "0" or text == "0")


def decode_put_record(body: bytes, is_json: bool, validate: Validate) -> PutRequest:
    """A PutRecord body -> columns of one. Raises ServiceError as AWS does."""
    if is_json:
        try:
            request = _decode_put_record(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        else:
            data = [request.Data]
            sizes = decoded_sizes(data)
            if sizes is not None:
                given = request.ExplicitHashKey
                columns = PutColumns(
                    data, [request.PartitionKey], None if given is None else [given], sizes, ""
                )
                return PutRequest(
                    request.StreamName,
                    request.StreamARN,
                    columns,
                    request.DryRun,
                    request.SequenceNumberForOrdering,
                )
    checked = validate()
    return PutRequest(
        checked.get("StreamName"),
        checked.get("StreamARN"),
        _columns([checked], ""),
        bool(checked.get("DryRun")),
        checked.get("SequenceNumberForOrdering"),
    )


def _columns(entries: Sequence[dict[str, Any]], path: str) -> PutColumns:
    """Columns of entries as the validator gives them; `path` is where errors say they lie."""
    explicit = [entry.get("ExplicitHashKey") for entry in entries]
    return PutColumns(
        [pybase64.b64encode_as_string(entry["Data"]) for entry in entries],
        [entry.get("PartitionKey", "") for entry in entries],
        explicit if any(explicit) else None,
        [len(entry["Data"]) for entry in entries],
        path,
        is_keyless=any("PartitionKey" not in entry for entry in entries),
    )


def decode_get_records(body: bytes, is_json: bool, validate: Validate) -> tuple[str, int, bool]:
    """A GetRecords body -> iterator, limit, dry run."""
    if is_json:
        try:
            request = _decode_get_records(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        else:
            return request.ShardIterator, request.Limit, request.DryRun
    checked = validate()
    return (
        checked["ShardIterator"],
        checked.get("Limit", MAX_RECORDS_PER_GET),
        bool(checked.get("DryRun")),
    )


def decode_usual_poll(body: bytes) -> tuple[str, int] | None:
    """Iterator and limit of a GetRecords body of JSON that says nothing unusual; else None."""
    try:
        request = _decode_get_records(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return None if request.DryRun else (request.ShardIterator, request.Limit)


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
    # what stands after each number: its shard, and the beginning of the next record
    after = {shard: f'","ShardId":"{shard}"}},{{"SequenceNumber":"' for shard in set(ids)}
    pieces = [""] * (2 * len(numbers))
    pieces[0::2] = numbers
    pieces[1::2] = map(after.__getitem__, ids)
    pieces[-1] = f'","ShardId":"{ids[-1]}"}}]}}'
    head = (
        f'{{{_encryption(answer.encryption)}"FailedRecordCount":0,"Records":[{{"SequenceNumber":"'
    )
    return (head + "".join(pieces)).encode()


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


_PRODUCER_ID = re.compile(r"[\x21-\x7e]{1,256}")


def check_producer_id(text: str) -> None:
    """Raises ValidationError unless it is 1..256 printable ASCII characters."""
    if not _PRODUCER_ID.fullmatch(text):
        raise ValidationError(
            "The X-Headrace-Producer header must be 1 to 256 printable ASCII characters."
        )
