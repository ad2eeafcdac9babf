"""Tags of streams and consumers."""

from __future__ import annotations

from typing import Any

import pytest

from api_support import ACCOUNT, create, refused

INVALID = (
    "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, "
    "_ . / = + - % @."
)


def tags_of(kinesis: Any, stream: str) -> dict[str, str]:
    found = kinesis.list_tags_for_stream(StreamName=stream)["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found}


@pytest.fixture
def arn(kinesis: Any, name: str) -> str:
    """The ARN of a stream that has just been made."""
    create(kinesis, name)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    found: str = summary["StreamARN"]
    return found


def test_add_replace_remove(kinesis: Any, name: str, arn: str) -> None:
    kinesis.add_tags_to_stream(
        StreamName=name, Tags={"a": "a", "ü0 _.": "a", "/=+-@": "a", "b": "ü0 _./=+-@", "c": ""}
    )
    kinesis.add_tags_to_stream(StreamARN=arn, Tags={"a": "b"})
    assert tags_of(kinesis, name) == {
        "a": "b", "ü0 _.": "a", "/=+-@": "a", "b": "ü0 _./=+-@", "c": "",
    }  # fmt: skip
    kinesis.remove_tags_from_stream(StreamName=name, TagKeys=["a", "b", "not there"])
    assert tags_of(kinesis, name) == {"ü0 _.": "a", "/=+-@": "a", "c": ""}
    kinesis.add_tags_to_stream(StreamName=name, Tags={"c": "all\u3000white\u00a0space"})
    assert tags_of(kinesis, name)["c"] == "all\u3000white\u00a0space"


@pytest.mark.parametrize("bad", ["abc;def", "abd\tdef", "abe\ndef", "abf,def", "abc\x00", "a*"])
def test_invalid_characters(kinesis: Any, name: str, arn: str, bad: str) -> None:
    for tags in ({bad: "1"}, {"a": bad}):
        with refused("InvalidArgumentException", INVALID):
            kinesis.add_tags_to_stream(StreamName=name, Tags=tags)
        with refused("InvalidArgumentException", INVALID):
            kinesis.tag_resource(ResourceARN=arn, Tags=tags)
    with refused("InvalidArgumentException", INVALID):
        kinesis.remove_tags_from_stream(StreamName=name, TagKeys=[bad])
    with refused("InvalidArgumentException", INVALID):
        kinesis.create_stream(StreamName=f"{name}2"[-100:], ShardCount=1, Tags={bad: "1"})
    assert tags_of(kinesis, name) == {}


def test_a_percent_sign_has_a_text_of_its_own(kinesis: Any, name: str, arn: str) -> None:
    tail = (
        f" stream {name} under account {ACCOUNT} because some tags contained illegal characters. "
        "The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
    )
    with refused("InvalidArgumentException", f"Failed to add tags to{tail}"):
        kinesis.add_tags_to_stream(StreamName=name, Tags={"a%": "1"})
    with refused("InvalidArgumentException", f"Failed to remove tags from{tail}"):
        kinesis.remove_tags_from_stream(StreamName=name, TagKeys=["a%"])


def test_fifty_tags_at_most(kinesis: Any, name: str, arn: str) -> None:
    kinesis.add_tags_to_stream(StreamName=name, Tags={f"k{i}": "" for i in range(45)})
    kinesis.tag_resource(ResourceARN=arn, Tags={f"k{i}": "" for i in range(40, 50)})
    text = (
        f"Failed to add tags to stream {name} under account {ACCOUNT} because a given stream "
        "cannot have more than 10 tags associated with it."
    )
    with refused("InvalidArgumentException", text):
        kinesis.add_tags_to_stream(StreamName=name, Tags={"k0": "x", "one more": ""})
    assert len(tags_of(kinesis, name)) == 50
    assert tags_of(kinesis, name)["k0"] == ""


def test_pages(kinesis: Any, name: str, arn: str) -> None:
    kinesis.add_tags_to_stream(StreamName=name, Tags={f"k{i:02}": str(i) for i in range(25)})
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = kinesis.list_tags_for_stream(StreamName=name, Limit=10, **more)
        seen += [tag["Key"] for tag in page["Tags"]]
        if not page["HasMoreTags"]:
            break
        more = {"ExclusiveStartTagKey": seen[-1]}
    assert seen == [f"k{i:02}" for i in range(25)]


def test_created_with_tags(kinesis: Any, name: str) -> None:
    create(kinesis, name, Tags={"team": "red:1"})
    assert tags_of(kinesis, name) == {"team": "red:1"}


def test_by_resource(kinesis: Any, name: str, arn: str) -> None:
    consumer = kinesis.register_stream_consumer(
        StreamARN=arn, ConsumerName="c", Tags={"x": "1", "y": "2"}
    )["Consumer"]["ConsumerARN"]
    kinesis.tag_resource(ResourceARN=arn, Tags={"of": "stream"})
    kinesis.tag_resource(ResourceARN=consumer, Tags={"of": "consumer", "x": "3"})
    kinesis.untag_resource(ResourceARN=consumer, TagKeys=["y"])
    assert kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"] == [
        {"Key": "of", "Value": "stream"}
    ]
    assert kinesis.list_tags_for_resource(ResourceARN=consumer)["Tags"] == [
        {"Key": "of", "Value": "consumer"},
        {"Key": "x", "Value": "3"},
    ]
    kinesis.untag_resource(ResourceARN=arn, TagKeys=["of"])
    assert kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"] == []


def test_unknown_resources(kinesis: Any, name: str, arn: str) -> None:
    with refused("ResourceNotFoundException", f"Stream {name}x under account {ACCOUNT} not found."):
        kinesis.list_tags_for_resource(ResourceARN=f"{arn}x")
    gone = f"{arn}/consumer/c:1"
    with refused("ResourceNotFoundException", f"Consumer {gone}, account {ACCOUNT} not found."):
        kinesis.tag_resource(ResourceARN=gone, Tags={"a": "b"})
    channel = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:channel/c"
    with refused("InvalidArgumentException"):
        kinesis.list_tags_for_resource(ResourceARN=channel)
