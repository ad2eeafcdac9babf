"""ListStreams: all streams of an account and region, by name, in pages."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from api_support import ACCOUNT, Raw, boto3_client, create, refused, reply_is
from headrace.core.testing.server_process import ServerProcess

REGION = "ap-south-1"
NAMES = sorted([f"s{i:02d}" for i in range(23)] + ["A", "Z", "a.b", "a-b", "a_b"])


@pytest.fixture(scope="module")
def there(server: ServerProcess) -> Iterator[Any]:
    """A client in a region of its own, with the streams of NAMES."""
    client = boto3_client(server.endpoint, region=REGION)
    for name in reversed(NAMES):
        create(client, name)
    yield client
    client.close()


# Serialization


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Limit": "x"}, "class java.lang.String can not be converted to an Integer"),
        ({"ExclusiveStartStreamName": {}}, "Start of structure or map found where not expected."),
    ],
)
def test_wire_29_wrong_types(raw: Raw, body: object, message: str) -> None:
    reply_is(raw.call("ListStreams", body), "SerializationException", message)


# Validation


def test_wire_23_limit_and_token_out_of_bounds(unchecked: Any) -> None:
    with refused(
        "ValidationException",
        "2 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1; "
        "Value '' at 'nextToken' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
    ):
        unchecked.list_streams(Limit=0, NextToken="")


# Behaviour


def test_no_streams(server: ServerProcess) -> None:
    answer = boto3_client(server.endpoint, region="sa-east-1").list_streams()
    answer.pop("ResponseMetadata")
    assert answer == {"StreamNames": [], "StreamSummaries": [], "HasMoreStreams": False}


def test_names_in_order_with_their_summaries(there: Any) -> None:
    answer = there.list_streams(Limit=10_000)
    assert answer["StreamNames"] == NAMES
    assert answer["HasMoreStreams"] is False
    assert "NextToken" not in answer
    summary = answer["StreamSummaries"][0]
    created = summary.pop("StreamCreationTimestamp")
    assert isinstance(created, datetime.datetime)
    assert summary == {
        "StreamName": NAMES[0],
        "StreamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{NAMES[0]}",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
    }


@pytest.mark.parametrize("size", [1, 5, 27, 28, 29])
def test_pages_through_the_paginator(there: Any, size: int) -> None:
    pages = there.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": size})
    lists = [page["StreamNames"] for page in pages]
    assert [name for names in lists for name in names] == NAMES
    assert all(len(names) == size for names in lists[:-1])


def test_starting_after_a_name_that_need_not_exist(there: Any) -> None:
    for start in ("s10", "s10x", "0", "zzz"):
        answer = there.list_streams(ExclusiveStartStreamName=start)
        assert answer["StreamNames"] == [name for name in NAMES if name > start]


def test_a_stream_deleted_between_pages_is_not_missed_over(there: Any) -> None:
    create(there, "s05a")
    first = there.list_streams(Limit=NAMES.index("s05") + 2)
    assert first["StreamNames"][-1] == "s05a"
    there.delete_stream(StreamName="s05a")
    rest = there.list_streams(NextToken=first["NextToken"])
    assert rest["StreamNames"] == [name for name in NAMES if name > "s05"]


@pytest.mark.parametrize("token", ["s05", "A", "é", "IlsxMl0i", "W1siYSJdLDFd"])
def test_what_is_no_token(there: Any, token: str) -> None:
    with refused("InvalidArgumentException", "Invalid NextToken."):
        there.list_streams(NextToken=token)


def test_a_hundred_a_page_at_most(server: ServerProcess) -> None:
    with contextlib.closing(boto3_client(server.endpoint, region="eu-north-1")) as kinesis:
        for i in range(101):
            create(kinesis, f"s{i:03}")
        page = kinesis.list_streams(Limit=10_000)
        assert (len(page["StreamNames"]), page["HasMoreStreams"]) == (100, True)
        assert kinesis.list_streams(NextToken=page["NextToken"])["StreamNames"] == ["s100"]
