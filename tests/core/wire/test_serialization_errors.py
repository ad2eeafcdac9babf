"""Wrong types: AWS's texts, as the kinesalite project's tests assert them against AWS."""

from typing import Any

import pytest

from headrace.core.errors import Serialization
from headrace.core.wire.conversion import MAX_SHOWN_CHARS, EpochMs
from headrace.core.wire.validation import validate

NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
BOOLEAN = "class java.lang.Boolean"
STRING = "class java.lang.String"
LIST = "Start of list found where not expected"
STRUCTURE = "Start of structure or map found where not expected."
NUMBERS = (23, -2147483648, 2147483648, 34.56)
SCALARS = ("23", True, *NUMBERS)

WRONG: dict[str, list[tuple[Any, str]]] = {
    "string": [
        (True, f"{BOOLEAN} can not be converted to an String"),
        *((number, f"{NUMBER} can not be converted to an String") for number in NUMBERS),
        ([], LIST),
        ({}, STRUCTURE),
        (b"23", "class java.nio.HeapByteBuffer can not be converted to an String"),
    ],
    "integer": [
        ("23", f"{STRING} can not be converted to an Integer"),
        (True, f"{BOOLEAN} can not be converted to an Integer"),
        (float("nan"), f"{NUMBER} can not be converted to an Integer"),
        (float("inf"), f"{NUMBER} can not be converted to an Integer"),
        ([], LIST),
        ({}, STRUCTURE),
    ],
    "boolean": [
        ("23", "'23' can not be converted to an Boolean"),
        ("maybe", "'MAYBE' can not be converted to an Boolean"),
        (23, f"{NUMBER} can not be converted to an Boolean"),
        (-2147483648, f"{NUMBER} can not be converted to an Boolean"),
        (2147483648, f"{NUMBER} can not be converted to an Boolean"),
        ([], LIST),
        ({}, STRUCTURE),
    ],
    "blob": [
        (True, f"{BOOLEAN} can not be converted to a Blob"),
        *((number, f"{NUMBER} can not be converted to a Blob") for number in NUMBERS),
        ([], LIST),
        ({}, STRUCTURE),
        (
            "23456",
            "'23456' can not be converted to a Blob: Base64 encoded length is expected a multiple "
            "of 4 bytes but found: 5",
        ),
        ("=+/=", "'=+/=' can not be converted to a Blob: Invalid Base64 character: '='"),
        ("a-b_", "'a-b_' can not be converted to a Blob: Invalid Base64 character: '-'"),
        (
            "+/+=",
            "'+/+=' can not be converted to a Blob: Invalid last non-pad Base64 character "
            "dectected",
        ),
    ],
    "timestamp": [
        ("23", f"{STRING} can not be converted to milliseconds since epoch"),
        (True, f"{BOOLEAN} can not be converted to milliseconds since epoch"),
        ([], LIST),
        ({}, STRUCTURE),
    ],
    "list": [*((scalar, "Expected list or null") for scalar in SCALARS), ({}, STRUCTURE)],
    "map": [*((scalar, "Expected map or null") for scalar in SCALARS), ([], LIST)],
    "structure": [*((scalar, "Expected null") for scalar in SCALARS), ([], LIST)],
}

# One place of each kind at the top of a request, and one inside a list, map or structure.
PLACES: dict[str, list[tuple[str, str]]] = {
    "string": [
        ("ListStreams", "ExclusiveStartStreamName"),
        ("PutRecords", "Records.0.PartitionKey"),
        ("AddTagsToStream", "Tags.a"),
        ("RemoveTagsFromStream", "TagKeys.0"),
    ],
    "integer": [("ListStreams", "Limit")],
    "boolean": [("DeleteStream", "EnforceConsumerDeletion")],
    "blob": [("PutRecord", "Data"), ("PutRecords", "Records.0.Data")],
    "timestamp": [
        ("GetShardIterator", "Timestamp"),
        ("SubscribeToShard", "StartingPosition.Timestamp"),
    ],
    "list": [("PutRecords", "Records"), ("RemoveTagsFromStream", "TagKeys")],
    "map": [("AddTagsToStream", "Tags")],
    "structure": [("PutRecords", "Records.0"), ("SubscribeToShard", "StartingPosition")],
}

CASES = [
    pytest.param(operation, place, value, text, id=f"{operation}-{place}-{value!r:.20}")
    for kind, places in PLACES.items()
    for operation, place in places
    for value, text in WRONG[kind]
]


def request_with(place: str, value: Any) -> Any:
    """A request that holds only `value`, at a dotted place; `0` is the first of a list."""
    for name in reversed(place.split(".")):
        value = [value] if name == "0" else {name: value}
    return value


@pytest.mark.parametrize(("operation", "place", "value", "text"), CASES)
def test_wire_29_a_wrong_type_is_told_in_the_words_of_aws(
    operation: str, place: str, value: Any, text: str
) -> None:
    with pytest.raises(Serialization) as caught:
        validate(operation, request_with(place, value))
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("body", "text"), [([], LIST), (None, ""), ("text", ""), (23, ""), (True, "")]
)
def test_a_body_that_is_no_object_is_refused(body: Any, text: str) -> None:
    with pytest.raises(Serialization) as caught:
        validate("ListStreams", body)
    assert caught.value.message == text


def test_a_wrong_type_wins_over_a_broken_constraint() -> None:
    with pytest.raises(Serialization):
        validate("ListStreams", {"Limit": 0, "ExclusiveStartStreamName": 5})


def test_a_large_wrong_blob_is_not_repeated_whole() -> None:
    with pytest.raises(Serialization) as caught:
        validate("PutRecord", {"Data": "?" * 1_000_000})
    assert len(caught.value.message) < MAX_SHOWN_CHARS + 200


@pytest.mark.parametrize(
    ("operation", "place", "value", "converted"),
    [
        ("ListStreams", "Limit", 3.99, 3),
        ("UpdateShardCount", "TargetShardCount", 100_000_000_000, 2147483647),
        ("DecreaseStreamRetentionPeriod", "RetentionPeriodHours", -3.99, -3),
        ("DecreaseStreamRetentionPeriod", "RetentionPeriodHours", -1e300, -2147483648),
        ("DeleteStream", "EnforceConsumerDeletion", "yes", True),
        ("DeleteStream", "EnforceConsumerDeletion", "False", False),
        ("DeleteStream", "EnforceConsumerDeletion", 34.56, True),
        ("PutRecord", "Data", "AAEC/w==", b"\x00\x01\x02\xff"),
        ("PutRecord", "Data", "", b""),
        ("PutRecord", "Data", b"\x00\xff", b"\x00\xff"),
        ("GetShardIterator", "Timestamp", 1_700_000_000, 1_700_000_000_000),
        ("GetShardIterator", "Timestamp", 1_700_000_000.123, 1_700_000_000_123),
        ("GetShardIterator", "Timestamp", EpochMs(1_700_000_000_123), 1_700_000_000_123),
        ("GetShardIterator", "Timestamp", -1.5, -1500),
        ("GetShardIterator", "Timestamp", 1e300, 2**63 - 1),
    ],
)
def test_what_aws_converts_is_converted(
    operation: str, place: str, value: Any, converted: Any
) -> None:
    filler: dict[str, Any] = {
        "UpdateShardCount": {"ScalingType": "UNIFORM_SCALING"},
        "PutRecord": {"PartitionKey": "a"},
        "GetShardIterator": {"ShardId": "shardId-0", "ShardIteratorType": "AT_TIMESTAMP"},
    }.get(operation, {})
    answer = validate(operation, {**filler, place: value})[place]
    assert answer == converted
    assert type(answer) is type(converted)


def test_unknown_members_and_nulls_are_left_out() -> None:
    request = {"Limit": 5, "NextToken": None, "Nonsense": {"a": [float("nan")]}, "limit": "x"}
    assert validate("ListStreams", request) == {"Limit": 5}
