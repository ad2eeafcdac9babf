"""PutRecord, PutRecords and GetRecords bodies, decoded by type.

The three operations that move records do not go through the model's validator unless something
is wrong: msgspec decodes a good request straight into structs (of the usual PutRecords, where it is
compiled, `usual_puts` makes columns at once), and whatever they do not take is handed to the
validator to be explained as AWS explains it (or, rarely, to be accepted after all).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import pybase64

from headrace.core.errors import ValidationError
from headrace.core.limits import MAX_RECORDS_PER_GET, MAX_RECORDS_PER_PUT
from headrace.core.model.blobs import decoded_sizes
from headrace.core.service.put_columns import PutColumns
from headrace.core.speedups import compiled

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


class _UsualEntry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    Data: str
    PartitionKey: _Key


class _UsualPuts(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    StreamName: _Name
    Records: Annotated[
        list[_UsualEntry], msgspec.Meta(min_length=1, max_length=MAX_RECORDS_PER_PUT)
    ]


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
_decode_usual_puts = msgspec.json.Decoder(_UsualPuts).decode
_decode_put_record = msgspec.json.Decoder(_PutRecord).decode
_decode_usual_put = msgspec.json.Decoder(_UsualPut).decode
_decode_get_records = msgspec.json.Decoder(_GetRecords).decode

Validate = Callable[[], dict[str, Any]]
"""Runs the model's validator on the request at hand; raises what AWS would answer."""


def decode_put_records(body: bytes, is_json: bool, validate: Validate) -> PutRequest:
    """A PutRecords body -> columns. Raises ServiceError as AWS does."""
    if is_json:
        usual = usual_puts(body)
        if usual is not None:
            name, data, keys, bytes_of_data = usual
            columns = PutColumns(data, keys, None, bytes_of_data, _LIST_PATH)
            return PutRequest(name, None, columns, dry_run=False)
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


@compiled
def usual_puts(body: bytes, /) -> tuple[str, list[str], list[str], list[int]] | None:
    """A PutRecords body of JSON in ASCII without escapes that names its stream, and in its records
    has data and partition keys, all valid; else None.

    The stream's name, then by record: data in base64, partition keys, bytes of data.
    """
    if not body.isascii() or b"\\" in body:
        return None
    try:
        request = _decode_usual_puts(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    data = [record.Data for record in request.Records]
    sizes = decoded_sizes(data)
    if sizes is None:
        return None
    return request.StreamName, data, [record.PartitionKey for record in request.Records], sizes


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


_PRODUCER_ID = re.compile(r"[\x21-\x7e]{1,256}")


def check_producer_id(text: str) -> None:
    """Raises ValidationError unless it is 1..256 printable ASCII characters."""
    if not _PRODUCER_ID.fullmatch(text):
        raise ValidationError(
            "The X-Headrace-Producer header must be 1 to 256 printable ASCII characters."
        )
