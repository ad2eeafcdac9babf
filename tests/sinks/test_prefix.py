"""Prefix expressions against Firehose's documented examples and Java's rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headrace.sinks.prefix import PrefixTemplate

# Firehose's own documentation uses this instant: 27 August 2018, 10:30 PM UTC.
AT = datetime(2018, 8, 27, 22, 30, 5, 123_000, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)


@pytest.mark.parametrize(
    ("written", "evaluated"),
    [
        ("!{timestamp:yyyy/MM/dd/HH}", "2018/08/27/22/"),
        ("!{timestamp:yyyy/MM/dd}/", "2018/08/27/"),
        ("myPrefix/!{timestamp:yyyy-MM-dd}", "myPrefix/2018-08-27/"),
        ("year=!{timestamp:yyyy}/month=!{timestamp:MM}", "year=2018/month=08/"),
        ("myFirehosePrefix-!{timestamp:yyyy}", "myFirehosePrefix-2018/"),
        ("!{timestamp:'year='yyyy'/month='MM'/day='dd'/hour='HH}",
         "year=2018/month=08/day=27/hour=22/"),
        ("!{timestamp:''yyyy}", "'2018/"),
        ("!{timestamp:'it''s'}", "it's/"),
        ("!{timestamp:yy-M-d-H-h-K-k-m-s}", "18-8-27-22-10-10-22-30-5/"),
        ("!{timestamp:yyyyy}", "02018/"),
        ("!{timestamp:MMM}-!{timestamp:MMMM}-!{timestamp:MMMMM}", "Aug-August-A/"),
        ("!{timestamp:EEE}-!{timestamp:EEEE}-!{timestamp:E}", "Mon-Monday-Mon/"),
        ("!{timestamp:DDD}", "239/"),
        ("!{timestamp:Q}-!{timestamp:QQ}-!{timestamp:QQQ}", "3-03-Q3/"),
        ("!{timestamp:SSS}", "123/"),
        ("!{timestamp:hh a}", "10 PM/"),
        ("!{timestamp:HHX}", "22Z/"),
        ("!{timestamp:xxx}", "+00:00/"),
        ("!{timestamp:z}-!{timestamp:VV}-!{timestamp:O}-!{timestamp:Z}", "UTC-UTC-GMT-+0000/"),
        ("plain", "plain/"),
    ],
)  # fmt: skip
def test_an_expression_is_evaluated_as_firehose_does(written: str, evaluated: str) -> None:
    assert PrefixTemplate([written]).evaluate(AT_MS) == evaluated


def test_levels_are_joined_and_none_is_no_prefix() -> None:
    levels = ["dt=!{timestamp:yyyy-MM-dd}", "hour=!{timestamp:HH}"]
    assert PrefixTemplate(levels).evaluate(AT_MS) == "dt=2018-08-27/hour=22/"
    assert PrefixTemplate([]).evaluate(AT_MS) == ""


@pytest.mark.parametrize(
    ("hour", "expected"),
    [(0, "12-0-24-AM"), (1, "1-1-1-AM"), (12, "12-0-12-PM"), (13, "1-1-13-PM")],
)
def test_hours_count_as_java_counts_them(hour: int, expected: str) -> None:
    at_ms = int(datetime(2026, 3, 1, hour, tzinfo=UTC).timestamp() * 1000)
    assert PrefixTemplate(["!{timestamp:h-K-k-a}"]).evaluate(at_ms) == expected + "/"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("!{timestamp:YYYY}", "write yyyy"),
        ("!{timestamp:ww}", "depends on a locale"),
        ("!{timestamp:ddd}", "too many pattern letters: ddd"),
        ("!{timestamp:b}", "'b' is not one of"),
        ("!{timestamp:yyyy'x}", "quote is not closed"),
        ("!{timestamp:[HH]}", "reserved"),
        ("!{firehose:random-string}", "leave it out"),
        ("!{partitionKeyFromQuery:customer}", "supported is"),
        ("!{timestamp}", "supported is"),
        ("!{timestamp:yyyy", "not closed"),
        ("..", "is . or .."),
        ("a//b", "empty level"),
        ("/", "empty level"),
        ("_sink", "plan log"),
        ("a*b", "not safe"),
        ("x" * 600, "512"),
        ("x" * 1100, "1024"),
    ],
)
def test_what_cannot_be_a_prefix_is_refused_with_the_reason(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefixTemplate([written])


def test_an_expression_never_asks_what_time_it_is() -> None:
    template = PrefixTemplate(["!{timestamp:yyyy/MM/dd/HH/mm/ss/SSS}"])
    assert template.evaluate(0) == "1970/01/01/00/00/00/000/"
    assert template.evaluate(AT_MS) == template.evaluate(AT_MS) == "2018/08/27/22/30/05/123/"
