"""`headrace check`: schema and cross-reference findings at their places, and no secrets in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from headrace.core.errors import ConfigError
from headrace.core.part import Health, Part
from headrace.core.stream_part import StreamPart
from headrace.core.units import DurationMs, Secret, SizeBytes
from headrace.pipeline.config.pipeline_file import Reading, read_pipeline
from headrace.pipeline.parts import PartTable
from headrace.pipeline.testing import SCRIPTED


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Buffer(Strict):
    size: SizeBytes = 1024
    interval: DurationMs = 1000


class Bucket(Strict):
    access_key_id: str | None = None
    secret_access_key: Secret | None = None


class Folder(Strict):
    kind: Literal["folder"]
    path: str


class Store(Strict):
    kind: Literal["store"]
    bucket: str


class Sink(Strict):
    stream: str = Field(pattern=r"^[a-z]+$")
    to: str
    count: int = Field(1, ge=1, le=10)
    buffer: Buffer = Buffer()
    s3: Bucket | None = None
    start: Literal["beginning", "latest"] = "beginning"
    level: int | Literal["all"] = 1
    target: Annotated[Folder | Store, Field(discriminator="kind")] | None = None


class SinksPart(Part):
    """A part with every kind of field the messages must cope with."""

    section = "sinks"
    schema = list[Sink]

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    def health(self) -> Health:
        return Health(ok=True)


PARTS = PartTable(
    {
        "stream": f"{StreamPart.__module__}:StreamPart",
        "sinks": f"{__name__}:SinksPart",
        "agent": SCRIPTED["agent"],
    }
)


def reading(tmp_path: Path, text: str, **environment: str) -> Reading:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    return Reading(file, PARTS, environment)


def findings(tmp_path: Path, text: str, **environment: str) -> list[tuple[int, int, str, str]]:
    found = reading(tmp_path, text, **environment).problems
    return [(p.line, p.column, p.key, p.message) for p in found]


ONE = "sinks:\n  - stream: a\n    to: b\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "sinks:\n  - stream: a\n    to: b\n    cuont: 3\n",
            (4, 5, "sinks[0].cuont", "unknown key (did you mean count?)"),
        ),
        (
            "sinks:\n  - stream: a\n    to: b\n    buffer: {sise: 1}\n",
            (4, 14, "sinks[0].buffer.sise", "unknown key (did you mean size?)"),
        ),
        (
            "sinks:\n  - stream: a\n    to: b\n    buffer: {zzz: 1}\n",
            (4, 14, "sinks[0].buffer.zzz", "unknown key (known here: size, interval)"),
        ),
        ("sinks:\n  - stream: a\n", (2, 5, "sinks[0].to", "this key is missing")),
        (
            f"{ONE}    count: many\n",
            (4, 12, "sinks[0].count", "expected a whole number, got many"),
        ),
        (
            f"{ONE}    count: 11\n",
            (4, 12, "sinks[0].count", "expected a value less than or equal to 10, got 11"),
        ),
        (
            f"{ONE}    buffer: {{interval: 5 parsecs}}\n",
            (
                4,
                24,
                "sinks[0].buffer.interval",
                "expected a duration with its unit, such as 500ms, 2s, 5m, 24h or 7d, "
                "got 5 parsecs",
            ),
        ),
        (
            f"{ONE}    start: begining\n",
            (
                4,
                12,
                "sinks[0].start",
                "expected 'beginning' or 'latest', got begining (did you mean beginning?)",
            ),
        ),
        (
            "sinks:\n  - stream: 5\n    to: b\n",
            (
                2,
                13,
                "sinks[0].stream",
                "expected text (put it in quotes if it looks like a number), got 5",
            ),
        ),
        (
            "sinks:\n  stream: a\n",
            (2, 3, "sinks", "expected a list, got a mapping"),
        ),
        (
            f"{ONE}    buffer: large\n",
            (4, 13, "sinks[0].buffer", "expected a mapping of keys to values, got large"),
        ),
        (
            f"{ONE}    level: some\n",
            (4, 12, "sinks[0].level", "expected a whole number, or 'all'"),
        ),
        (
            f"{ONE}    target: {{kind: store, path: x}}\n",
            (4, 5, "sinks[0].target.bucket", "this key is missing"),
        ),
        (
            f"{ONE}    target: {{kind: store, bucket: b, path: x}}\n",
            (4, 38, "sinks[0].target.path", "unknown key beside the others given here"),
        ),
        ("snks: []\n", (1, 1, "snks", "unknown key (did you mean sinks?)")),
        ("data: [a]\n", (1, 7, "data", "expected the path of a folder, such as ./data")),
        (
            "stream:\n  streams:\n    'no spaces': {}\n",
            (3, 5, "stream.streams.no spaces", "should match pattern"),
        ),
        (
            "stream:\n  streams:\n    web: {retention: 5h}\n",
            (
                3,
                22,
                "stream.streams.web.retention",
                "expected a retention of whole hours from 24h to 365d, got 5h",
            ),
        ),
        (
            "stream:\n  listen: 4567\n",
            (2, 11, "stream.listen", "expected text"),
        ),
        (
            "stream:\n  cors_origins: [example.com]\n",
            (2, 18, "stream.cors_origins[0]", "expected an origin such as https://"),
        ),
        (
            "stream:\n  keys: {A: {secret: b, account: 12345}}\n",
            (2, 34, "stream.keys.A.account", "expected an account id of twelve digits"),
        ),
        (
            "stream:\n  keys: {A: {secret: b, acount: x}}\n",
            (2, 25, "stream.keys.A.acount", "unknown key (did you mean account?)"),
        ),
        (
            'stream:\n  keys: {A: {account: "111122223333"}}\n',
            (2, 10, "stream.keys.A.secret", "this key is missing"),
        ),
    ],
)
def test_schema_findings(tmp_path: Path, text: str, expected: tuple[int, int, str, str]) -> None:
    found = findings(tmp_path, text)
    assert (expected[:3]) in [f[:3] for f in found], found
    assert any(f[:3] == expected[:3] and f[3].startswith(expected[3]) for f in found), found


@pytest.mark.parametrize(
    ("text", "line", "column", "key", "words"),
    [
        (
            "stream:\n  listen: 0.0.0.0:4567\n",
            2,
            11,
            "stream.listen",
            "set stream.keys, or listen on 127.0.0.1",
        ),
        (
            "stream:\n  streams:\n    a: {mode: provisioned}\n",
            3,
            8,
            "stream.streams.a",
            "such as shards: 1",
        ),
        (
            "stream:\n  streams:\n    a: {shards: 2}\n",
            3,
            17,
            "stream.streams.a.shards",
            "on-demand",
        ),
        (
            "stream: {streams: {a: , b: }}\nagent: {journal: j, stream: c}\n",
            2,
            29,
            "agent.stream",
            "declared are: a, b",
        ),
    ],
)
def test_cross_references(
    tmp_path: Path, text: str, line: int, column: int, key: str, words: str
) -> None:
    found = findings(tmp_path, text)
    assert len(found) == 1
    assert found[0][:3] == (line, column, key)
    assert words in found[0][3]


def test_streams_elsewhere_are_not_held_against_the_file(tmp_path: Path) -> None:
    text = "stream: {endpoint: 'http://x:1'}\nagent: {journal: j, stream: c}\n"
    assert findings(tmp_path, text) == []


def test_all_errors_come_in_one_run_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "stream:\n  listen: nowhere\n  limits: none\n"
        "agent:\n  journl: x\n"
        "sinks:\n  - stream: a\n    to: ${NOT_SET}\n    count: x\n    count: y\n"
    )
    found = findings(tmp_path, text)
    assert [(line, key) for line, _, key, _ in found] == [
        (2, "stream.listen"),
        (3, "stream.limits"),
        (4, "agent.journal"),
        (5, "agent.journl"),
        (8, "sinks[0].to"),
        (9, "sinks[0].count"),
        (10, "sinks[0].count"),
    ]


def test_text_has_file_line_column_and_a_caret_under_the_column(tmp_path: Path) -> None:
    text = reading(tmp_path, f"{ONE}    count: many\n").text()
    assert text.splitlines() == [
        f"{tmp_path}/f.yaml:4:12  error  sinks[0].count: expected a whole number, got many",
        "    4 |     count: many",
        "      |            ^",
    ]


def test_a_number_from_a_variable_is_a_number_where_one_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("sinks:\n  - {stream: a, to: '${N}', count: '${N}'}\n")
    pipeline = read_pipeline(file, PARTS, {"N": "7"})
    assert (pipeline.sections["sinks"][0].to, pipeline.sections["sinks"][0].count) == ("7", 7)


@pytest.mark.parametrize(
    "text",
    [
        # the secret itself is of the wrong type
        f"{ONE}    s3:\n      secret_access_key: [hunter2]\n",
        f"{ONE}    s3: {{secret_access_key: 20062026}}\n",
        # it stands beside the error, on the same line
        f"{ONE}    s3: {{secret_access_key: hunter2, acces_key_id: x}}\n",
        # its key is misspelled
        f"{ONE}    s3: {{secret_acces_key: hunter2}}\n",
        f"{ONE}    s3: {{screet: hunter2}}\n",
        # it comes from a variable
        f"{ONE}    count: ${{PASSWORD}}\n",
        f"{ONE}    start: x${{PASSWORD}}\n",
        "stream: {endpoint: '${PASSWORD}'}\n",
        "stream: {keys: {AKID: [hunter2]}}\n",
        "stream: {keys: {AKID: hunter2}, listn: x}\n",
        "stream: {keys: {AKID: {secret: hunter2, account: hunter}}}\n",
        "stream: {keys: {AKID: {secret: [hunter2]}}}\n",
        "stream: {keys: {AKID: {screet: hunter2}}}\n",
        "stream: {keys: {AKID: hunter2}, listen: 0.0.0.0:1, limits: x}\n",
        # the file is not YAML at the very place
        "stream:\n  keys: {AKID: hunter2\nagent: {\n",
        "password: 'hunter2\n",
        "stream: {keys: {AKID: hunter2: x}}\n",
    ],
)
def test_no_message_shows_a_secret(tmp_path: Path, text: str) -> None:
    read = reading(tmp_path, text, PASSWORD="hunter2")
    assert read.has_errors
    shown = read.text() + str(read.dicts())
    assert "hunter2" not in shown, shown
    assert "20062026" not in shown, shown


def test_a_secret_in_the_pipeline_is_not_in_its_repr(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("stream: {keys: {AKID: hunter2}}\n")
    pipeline = read_pipeline(file, PARTS)
    assert pipeline.target.secret_access_key == "hunter2"
    assert "hunter2" not in repr(pipeline)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "the file is empty"), ("- a\n", "expected the keys"), ("# nothing\n", "is empty")],
)
def test_a_file_without_sections(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        reading(tmp_path, text).pipeline()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"data: caf\xe9\n")
    for name, words in (("none.yaml", "no file"), (".", "a folder"), ("latin.yaml", "UTF-8")):
        with pytest.raises(ConfigError, match=words):
            Reading(tmp_path / name, PARTS)


def test_the_data_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("data: ./state\nstream:\n")
    pipeline = read_pipeline(file, PARTS)
    assert pipeline.data == tmp_path / "state"
    assert pipeline.running_sections() == ["stream"]
    assert pipeline.raw == {"stream": {}}, "an empty section is the one with all its defaults"


def test_a_stream_elsewhere_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("stream: {endpoint: 'https://k.example.com/'}\nagent: {journal: j}\n")
    pipeline = read_pipeline(file, PARTS)
    assert pipeline.running_sections() == ["agent"]
    assert pipeline.target.endpoint == "https://k.example.com"


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [
        ("127.0.0.1:1", "http://127.0.0.1:1"),
        ("0.0.0.0:2", "http://127.0.0.1:2"),
        ("'[::]:3'", "http://[::1]:3"),
        ("'[::1]:4'", "http://[::1]:4"),
        ("localhost:5", "http://localhost:5"),
    ],
)
def test_where_the_other_parts_find_the_stream(tmp_path: Path, listen: str, endpoint: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"stream: {{listen: {listen}, keys: {{A: b}}}}\n")
    assert read_pipeline(file, PARTS).target.endpoint == endpoint
