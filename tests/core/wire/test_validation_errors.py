"""Broken constraints: AWS's sentences, its names for members, and how several are joined."""

import base64
import re
import time
from typing import Any

import pytest

from headrace.core.errors import InternalFailure, UnknownOperation, ValidationError
from headrace.core.wire import validation
from headrace.core.wire.constraints import aws_order
from headrace.core.wire.service_model import Shape
from headrace.core.wire.validation import validate

NULL = "Member must not be null"
NAME = "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
AT_LEAST_1_LONG = "Member must have length greater than or equal to 1"
LONG_NAME = "a" * 129


def at_most_long(count: int) -> str:
    return f"Member must have length less than or equal to {count}"


def line(place: str, value: str | None, sentence: str) -> str:
    shown = "" if value is None else f" '{value}'"
    return f"Value{shown} at '{place}' failed to satisfy constraint: {sentence}"


def null(place: str) -> str:
    return f"Value null at '{place}' failed to satisfy constraint: {NULL}"


def message(operation: str, request: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        validate(operation, request)
    return caught.value.message


def lines(operation: str, request: Any) -> list[str]:
    """The broken constraints that are reported, in any order; the count in front is checked."""
    count, noun, text = re.fullmatch(  # type: ignore[union-attr]
        r"(\d+) validation (errors?) detected: (.*)", message(operation, request), re.DOTALL
    ).groups()
    found = re.split(r"; (?=Value)", text)
    assert len(found) == int(count)
    assert noun == ("error" if len(found) == 1 else "errors")
    return sorted(found)


def test_wire_23_one_error() -> None:
    assert message("ListStreams", {"Limit": 0}) == (
        "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_wire_23_several_errors_are_joined() -> None:
    assert message("ListStreams", {"Limit": 10001, "NextToken": ""}) == (
        "2 validation errors detected: "
        "Value '10001' at 'limit' failed to satisfy constraint: "
        "Member must have value less than or equal to 10000; "
        "Value '' at 'nextToken' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1"
    )


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("CreateStream", {}, [null("streamName")]),
    (
        "CreateStream",
        {"StreamName": "", "ShardCount": 0},
        [
            line("shardCount", "0", "Member must have value greater than or equal to 1"),
            line("streamName", "", NAME),
            line("streamName", "", AT_LEAST_1_LONG),
        ],
    ),
    (
        "CreateStream",
        {"StreamName": LONG_NAME},
        [line("streamName", LONG_NAME, at_most_long(128))],
    ),
    (
        "CreateStream",
        {"StreamName": "two words\n"},
        [line("streamName", "two words\n", NAME)],
    ),
    (
        "CreateStream",
        {"StreamName": "a", "StreamModeDetails": {}},
        [null("streamModeDetails.streamMode")],
    ),
    (
        "GetShardIterator",
        {"ShardIteratorType": ""},
        [
            null("shardId"),
            line(
                "shardIteratorType",
                "",
                "Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, "
                "AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]",
            ),
        ],
    ),
    (
        "PutRecords",
        {"Records": [], "StreamName": ""},
        [
            line("records", "[]", AT_LEAST_1_LONG),
            line("streamName", "", NAME),
            line("streamName", "", AT_LEAST_1_LONG),
        ],
    ),
    (
        "PutRecords",
        {"Records": [{"Data": "", "PartitionKey": "a"}, {"PartitionKey": ""}, None]},
        [
            null("records.2.member.data"),
            line("records.2.member.partitionKey", "", AT_LEAST_1_LONG),
            null("records.3.member"),
        ],
    ),
    (
        "AddTagsToStream",
        {"Tags": {}},
        [line("tags", "{}", AT_LEAST_1_LONG)],
    ),
    (
        "AddTagsToStream",
        {"Tags": {"a": "1", LONG_NAME: "2"}},
        [
            line(
                "tags",
                f"{{a=1, {LONG_NAME}=2}}",
                "Map keys must satisfy constraint: [Member must have length less than or equal to "
                "128, Member must have length greater than or equal to 1]",
            )
        ],
    ),
    (
        "AddTagsToStream",
        {"Tags": {"a": "1", "b": "c" * 257}},
        [
            line(
                "tags",
                f"{{a=1, b={'c' * 257}}}",
                "Map value must satisfy constraint: [Member must have length less than or equal "
                "to 256, Member must have length greater than or equal to 0]",
            )
        ],
    ),
    (
        "RemoveTagsFromStream",
        {"TagKeys": ["a", LONG_NAME, "b"]},
        [
            line(
                "tagKeys",
                f"[a, {LONG_NAME}, b]",
                "Member must satisfy constraint: [Member must have length less than or equal to "
                "128, Member must have length greater than or equal to 1]",
            )
        ],
    ),
    (
        "SubscribeToShard",
        {
            "ConsumerARN": "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/c:1",
            "ShardId": "shardId-0",
            "StartingPosition": {"Type": "LATEST", "SequenceNumber": "01"},
        },
        [
            line(
                "startingPosition.sequenceNumber",
                "01",
                r"Member must satisfy regular expression pattern: ^(0|([1-9]\d{0,128}))$",
            )
        ],
    ),
]


@pytest.mark.parametrize(("operation", "request_", "expected"), CASES)
def test_wire_23_the_sentences_of_aws(
    operation: str, request_: dict[str, Any], expected: list[str]
) -> None:
    assert lines(operation, request_) == sorted(expected)


def test_wire_24_a_blob_shows_no_value() -> None:
    data = base64.b64encode(bytes(10 * 1024 * 1024 + 1)).decode()
    request = {"Records": [{"Data": data, "PartitionKey": "a"}]}
    assert lines("PutRecords", request) == [
        line("records.1.member.data", None, at_most_long(10 * 1024 * 1024))
    ]


def test_wire_24_a_list_of_structures_shows_no_value_and_ten_errors_are_told() -> None:
    found = lines("PutRecords", {"Records": [{"Data": "", "PartitionKey": ""}] * 501})
    assert line("records", None, at_most_long(500)) in found
    assert line("records.9.member.partitionKey", "", AT_LEAST_1_LONG) in found
    assert len(found) == 10


def test_wire_24_long_text_shows_no_value() -> None:
    [found] = lines("ListStreams", {"NextToken": "a" * 1_048_577})
    assert found == line("nextToken", None, at_most_long(1_048_576))


def test_a_null_among_tags_or_keys_is_named() -> None:
    [found] = lines("AddTagsToStream", {"Tags": {"a": None}})
    assert found.startswith("Value '{a=null}' at 'tags' failed")
    [found] = lines("RemoveTagsFromStream", {"TagKeys": [None, "a"]})
    assert found.startswith("Value '[null, a]' at 'tagKeys' failed")


# Enums as real services list them: Kinesis (kinesalite's tests) and DynamoDB (dynalite's tests).
@pytest.mark.parametrize(
    "listed",
    [
        "AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON",
        "KMS, NONE",
        "INDEXES, TOTAL, NONE",
        "ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW",
        "SPECIFIC_ATTRIBUTES, COUNT, ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES",
        "IN, NULL, BETWEEN, LT, NOT_CONTAINS, EQ, GT, NOT_NULL, NE, LE, BEGINS_WITH, GE, CONTAINS",
        "SIZE, NONE",
        "OR, AND",
        "B, N, S",
    ],
)
def test_enums_are_listed_in_the_order_of_aws(listed: str) -> None:
    values = listed.split(", ")
    assert aws_order(tuple(sorted(values))) == values


def test_an_unknown_operation_is_told_without_a_message() -> None:
    with pytest.raises(UnknownOperation) as caught:
        validate("ListStream", {})
    assert caught.value.message == ""


def test_a_pattern_cannot_keep_the_processor_busy() -> None:
    """As the model has it, this ARN takes over a second to refuse."""
    arn = "arn:aws" + ":kinesis:" * 60 + ":000000000000:" * 50 + "stream/" * 110
    began = time.thread_time()
    with pytest.raises(ValidationError):
        validate("TagResource", {"ResourceARN": arn[:2047] + " ", "Tags": {"a": "b"}})
    assert time.thread_time() - began < 0.5


def test_a_type_of_a_newer_model_is_told_apart_from_a_bad_request() -> None:
    shape = Shape("Ratio", "double")
    with pytest.raises(InternalFailure, match="Ratio is of type 'double'"):
        validation._check_of(shape, {})
