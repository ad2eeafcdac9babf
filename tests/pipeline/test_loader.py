"""YAML text to values: core scalars, duplicate keys, variables, places, what is not YAML."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.pipeline.config.document import Document
from headrace.pipeline.config.loader import MAX_VALUES, load
from headrace.pipeline.config.variables import VariableError, expand


def read(text: str, **environment: str) -> Document:
    return load(text, name="f.yaml", environment=environment)


def complaints(text: str, **environment: str) -> list[tuple[int, int, str]]:
    return [(p.line, p.column, p.message) for p in read(text, **environment).problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0123", 123),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("12e03", 12000.0),
        (".5", 0.5),
        ("1.10", 1.1),
        ("-.inf", -math.inf),
        ("2026-11-22", "2026-11-22"),
        ("7d", "7d"),
        ("'0123'", "0123"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: Any) -> None:
    document = read(f"key: {written}\n")
    assert document.problems == []
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)


def test_keys_stay_text() -> None:
    assert read("404: a\ntrue: b\n").value == {"404": "a", "true": "b"}


def test_a_duplicate_key_is_an_error_that_names_both_lines() -> None:
    text = "stream:\n  listen: a\n  region: b\n  listen: c\n"
    assert complaints(text) == [
        (4, 3, "the same key again: it is already on line 2; remove one of them")
    ]
    assert read(text).problems[0].key == "stream.listen"


def test_places_are_kept_for_every_path() -> None:
    document = read("sinks:\n  - stream: access\n    buffer: {size: 64MiB}\n")
    size = document.places[("sinks", 0, "buffer", "size")]
    assert size.start == (3, 20)
    assert size.key == (3, 14)
    assert size.written == "64MiB"
    assert document.places[("sinks", 0)].start == (2, 5)


def test_aliases_and_merge_keys() -> None:
    text = "base: &b {a: 1, b: 2}\none: {<<: *b, b: 3}\ntwo: *b\n"
    document = read(text)
    assert document.problems == []
    assert document.value["one"] == {"b": 3, "a": 1}
    assert document.value["two"] == {"a": 1, "b": 2}


def test_an_alias_of_itself_is_refused() -> None:
    assert complaints("a: &x [*x]\n")[0][2] == "an alias that contains itself"


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    found = complaints("\n".join(lines))
    assert [message for _, _, message in found] == [
        f"more than {MAX_VALUES} values; too many aliases?"
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: [1, 2\nb: 3\n", 2, 2, "flow sequence"),
        ("a:\n\tb: 1\n", 2, 1, "tabs"),
        ("a: 'open\n", 2, 1, "quoted scalar"),
        ("a: b: c\n", 1, 5, "mapping values are not allowed"),
        ("partition_by: [!{timestamp:yyyy}]\n", 1, 17, "in quotes"),
        ("a: *nobody\n", 1, 4, "alias"),
        ("a: 1\n---\nb: 2\n", 2, 1, "single document"),
        ("a: \x01\n", 1, 4, "U+0001 is not allowed"),
        ("a: !thing x\n", 1, 4, "the tag !thing is not known"),
        ("? [a, b]\n: c\n", 1, 3, "a key must be a word"),
    ],
)
def test_what_is_not_usable_yaml_is_placed(text: str, line: int, column: int, words: str) -> None:
    found = complaints(text)
    assert len(found) == 1
    assert found[0][:2] == (line, column)
    assert words in found[0][2]


def test_variables_expand_after_parsing_in_values_only() -> None:
    text = "to: ${BUCKET}/x\nport: ${PORT:-4567}\n${KEY}: $$5 and ^/x$\nquoted: '${BUCKET}'\n"
    document = read(text, BUCKET="s3://lake: [", KEY="k")
    assert document.problems == []
    assert document.value == {
        "to": "s3://lake: [/x",
        "port": "4567",
        "${KEY}": "$5 and ^/x$",
        "quoted": "s3://lake: [",
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [("${A}", "1"), ("${EMPTY}", ""), ("${EMPTY:-x}", "x"), ("${B:-}", ""), ("$$${A}", "$1")],
)
def test_expansion(written: str, value: str) -> None:
    assert expand(written, {"A": "1", "EMPTY": ""}) == value


@pytest.mark.parametrize("written", ["${", "${1A}", "${A-b}", "${}", "a ${A b"])
def test_what_is_no_variable_is_an_error(written: str) -> None:
    with pytest.raises(VariableError, match="is not a variable"):
        expand(written, {"A": "1"})


def test_every_unset_variable_is_an_error_at_its_value() -> None:
    found = complaints("a: ${ONE}\nb:\n  - ${TWO}\n")
    assert [(line, column) for line, column, _ in found] == [(1, 4), (3, 5)]
    assert "the environment variable ONE is not set" in found[0][2]
    assert "${ONE:-default}" in found[0][2]
