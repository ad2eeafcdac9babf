"""The command line through real processes: help, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from headrace.core.access_key import AccessKey
from headrace.core.errors import ConfigError
from headrace.pipeline.cli.serve import read_keys
from headrace.pipeline.parts import installed_parts
from pipeline.support import TIMEOUT_S, Environment, wait_for

VERBS = [
    [],
    ["up"],
    ["serve"],
    ["check"],
    ["demo"],
    ["status"],
    ["agent"],
    ["agent", "run"],
    ["triggers"],
    ["sinks"],
    ["streams"],
    ["streams", "list"],
    ["streams", "create"],
    ["streams", "describe"],
    ["streams", "delete"],
    ["put"],
    ["tail"],
    ["usage"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help(scripted: Environment, verb: list[str]) -> None:
    found = scripted.run(*verb, "--help")
    assert found.returncode == 0, found.stderr
    assert " ".join(["headrace", *verb]) in found.stdout
    assert found.stderr == ""


def test_help_of_serve_is_one_and_the_same(scripted: Environment) -> None:
    direct = scripted.run("serve", "--help").stdout
    listed = scripted.run("--help").stdout
    summary = "Serve the stream alone"
    assert summary in direct
    assert summary in listed


@pytest.mark.parametrize(
    "arguments",
    [
        ["strems"],
        ["up"],
        ["up", "--nonsense", "f.yaml"],
        ["up", "no-such-file.yaml"],
        ["agent", "no-such-file.yaml"],
        ["check", "no-such-file.yaml"],
        ["serve", "--port", "70000"],
        ["serve", "--limits", "some"],
        ["serve", "--cors-origin", "example.com"],
        ["serve", "--on-demand-max-shards", "0"],
        ["usage", "--hours", "0"],
        ["usage", "s", "--by", "week"],
        ["serve", "--host", "0.0.0.0", "--port", "0"],
        ["tail", "s", "--from-beginning", "--since", "5m"],
        ["tail", "s", "--since", "yesterday"],
        ["streams", "create", "s", "--retention", "5h"],
        ["put", "s", "x", "--endpoint", "not-a-url"],
        ["status", "--data", "nowhere"],
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2_and_words_on_stderr(
    scripted: Environment, tmp_path: Path, arguments: list[str]
) -> None:
    found = scripted.run(*arguments)
    assert found.returncode == 2, found.stderr
    assert found.stderr.strip()
    assert "Traceback" not in found.stderr


def test_a_misspelled_verb_is_recognized(scripted: Environment) -> None:
    assert "Did you mean 'streams'" in scripted.run("strems").stderr


def test_no_server_ends_with_1_and_says_where_it_looked(scripted: Environment) -> None:
    found = scripted.run("streams", "list", "--endpoint", "http://127.0.0.1:1")
    assert found.returncode == 1
    assert "http://127.0.0.1:1 cannot be reached" in found.stderr


def test_a_bare_checkout_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda group: metadata.EntryPoints())
    with pytest.raises(ConfigError, match=r"install it: pip install -e \."):
        installed_parts()


def test_check_says_where_and_what(scripted: Environment, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("agent:\n  jornal: x\n")
    found = scripted.run("check", str(file))
    assert found.returncode == 2
    assert f"{file}:2:3  error  agent.jornal: unknown key (did you mean journal?)" in found.stdout
    assert "    2 |   jornal: …\n" in found.stdout or "jornal: ****" in found.stdout
    as_json = scripted.run("check", str(file), "--json")
    assert as_json.returncode == 2
    answer = json.loads(as_json.stdout)
    assert answer["ok"] is False
    assert {"file": str(file), "line": 2, "column": 3}.items() <= answer["findings"][1].items()

    file.write_text("agent:\n  journal: x\n")
    assert scripted.run("check", str(file)).returncode == 0


def test_up_refuses_a_bad_file_with_all_findings(scripted: Environment, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("agent:\n  jornal: x\nsinks: 5\n")
    found = scripted.run("up", str(file))
    assert found.returncode == 2
    assert "agent.jornal" in found.stderr
    assert "sinks" in found.stderr
    assert not (tmp_path / "data").exists()


def test_up_of_nothing(scripted: Environment, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("stream: {journal: x}\ndata: d\n")
    file.write_text("data: d\n")
    found = scripted.run("up", str(file))
    assert found.returncode == 2
    assert "nothing to run" in found.stderr


def test_a_data_folder_that_cannot_be_made(scripted: Environment, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file is in the way")
    file = tmp_path / "f.yaml"
    file.write_text("data: data\nstream: {journal: x}\n")
    found = scripted.run("up", str(file))
    assert found.returncode == 1
    assert found.stderr == f"headrace: error: {tmp_path}/data: File exists\n"


def test_a_part_whose_section_is_missing(scripted: Environment, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("stream: {journal: x}\n")
    found = scripted.run("sinks", str(file))
    assert found.returncode == 2
    assert "has no section sinks" in found.stderr


def test_the_verbs_of_a_part_stand_beside_running_it(scripted: Environment, tmp_path: Path) -> None:
    listed = scripted.run("sinks", "--help").stdout
    assert re.search(r"run .*Land records", listed)
    assert re.search(r"greet .*Say hello", listed)
    assert scripted.run("sinks", "greet", "you").stdout == "sinks says hello to you\n"
    assert scripted.run("sinks", "greet").returncode == 2

    file = tmp_path / "greet"  # named like a verb: the long form gets at it
    file.write_text(f"sinks: {{journal: {tmp_path}/journal, fails_to_configure: true}}\n")
    for arguments in (["sinks", "run", str(file)], ["sinks", str(file)]):
        ran = scripted.run(*arguments)
        assert ran.returncode == 2
        assert "there is no such bucket" in ran.stderr


class TestKeys:
    def test_file_and_environment(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        file.write_text("# keys\nAKID:se:cret\n\nOTHER@111122223333:s@cret:123456789012\n")
        assert read_keys(file, {}) == {
            "AKID": AccessKey("se:cret", "123456789012"),
            "OTHER": AccessKey("s@cret:123456789012", "111122223333"),
        }
        assert read_keys(None, {"HEADRACE_KEYS": "A:b,C@000000000001:d"}) == {
            "A": AccessKey("b"),
            "C": AccessKey("d", "000000000001"),
        }
        assert read_keys(None, {}) == {}

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("hunter2", "expected ACCESS_KEY_ID:SECRET_ACCESS_KEY"),
            ("@111122223333:hunter2", "expected ACCESS_KEY_ID:SECRET_ACCESS_KEY"),
            ("B@11112222333:hunter2", "expected an account id of twelve digits"),
            ("B@:hunter2", "expected an account id of twelve digits"),
            ("AKID:hunter2", "stands further up already"),
        ],
    )
    def test_a_bad_line_is_named_and_not_shown(self, tmp_path: Path, line: str, words: str) -> None:
        file = tmp_path / "keys"
        file.write_text(f"AKID:fine\n{line}\n")
        with pytest.raises(ConfigError, match=f"keys:2: .*{words}") as caught:
            read_keys(file, {})
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "no access key in it"),
            (b"# none yet\n", "no access key in it"),
            (b"\xff:", "UTF-8"),
        ],
    )
    def test_a_file_without_keys_does_not_let_everybody_in(
        self, tmp_path: Path, content: bytes, words: str
    ) -> None:
        file = tmp_path / "keys"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            read_keys(file, {})
        file.write_bytes(b"\xef\xbb\xbfA:b\n")  # as Windows editors begin a file
        assert read_keys(file, {}) == {"A": AccessKey("b")}
        with pytest.raises(ConfigError, match="HEADRACE_KEYS has no access key"):
            read_keys(None, {"HEADRACE_KEYS": ","})


@pytest.fixture
def served(real: Environment, tmp_path: Path) -> Iterator[str]:
    """`headrace serve` on a free port; its endpoint."""
    process = real.start("serve", "--port", "0", "--data", str(tmp_path / "stream"))
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"headrace: listening on (http://127\.0\.0\.1:\d+)\n", line)
    assert found, line
    yield found[1]
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert rest == "", "one line, and no more, goes to stdout"


def test_streams_and_records_by_hand(real: Environment, served: str) -> None:
    real.variables["HEADRACE_ENDPOINT"] = served
    assert real.run("streams", "list", "--json").stdout == "[]\n"

    assert real.run("streams", "create", "web", "--shards", "2").returncode == 0
    listed = json.loads(real.run("streams", "list", "--json").stdout)
    assert [stream["StreamName"] for stream in listed] == ["web"]
    described = json.loads(real.run("streams", "describe", "web", "--json").stdout)
    assert described["OpenShardCount"] == 2
    assert len(described["Shards"]) == 2
    assert "50.00%" in real.run("streams", "describe", "web").stdout

    put = real.run("put", "web", "one", "two", "--key", "k", "--json")
    assert put.returncode == 0, put.stderr
    assert [json.loads(line)["shard"] for line in put.stdout.splitlines()]
    assert real.run("put", "web", stdin="three\nfour\n").stderr == "2 records stored in web\n"

    tailed = real.run("tail", "web", "--from-beginning", "--no-follow")
    assert sorted(tailed.stdout.split()) == ["four", "one", "three", "two"]
    limited = real.run("tail", "web", "-b", "-n", "1", "--json")
    assert json.loads(limited.stdout)["data"]
    assert real.run("tail", "web", "--since", "1h", "--no-follow").stdout.count("\n") == 4

    refused = real.run("streams", "delete", "web", stdin="wob\n")
    assert refused.returncode == 1
    assert real.run("streams", "delete", "web", "--yes").returncode == 0
    gone = real.run("put", "nowhere", "x")
    assert gone.returncode == 1
    assert "nowhere" in gone.stderr


def test_tail_follows_new_records(real: Environment, served: str, tmp_path: Path) -> None:
    real.variables["HEADRACE_ENDPOINT"] = served
    real.run("streams", "create", "web", "--shards", "1")
    tailing = real.start("tail", "web", "--from-beginning", "-n", "2")
    try:
        assert real.run("put", "web", "first").returncode == 0
        assert tailing.stdout is not None
        assert tailing.stdout.readline() == "first\n"
        assert real.run("put", "web", "second").returncode == 0
        assert tailing.stdout.readline() == "second\n"
        assert tailing.wait(TIMEOUT_S) == 0
    finally:
        tailing.kill()
        tailing.communicate()


def test_put_sends_lines_as_they_come(real: Environment, served: str) -> None:
    real.variables["HEADRACE_ENDPOINT"] = served
    real.run("streams", "create", "web", "--shards", "1")
    putting = subprocess.Popen(
        [sys.executable, "-m", "headrace.pipeline", "put", "web"],
        env=real.variables,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert putting.stdin is not None
        putting.stdin.write("early\n")
        putting.stdin.flush()

        def arrived() -> bool:
            return "early" in real.run("tail", "web", "-b", "--no-follow").stdout

        wait_for(arrived, "the line is stored while stdin is still open")
        _, said = putting.communicate("late\n", timeout=TIMEOUT_S)
        assert putting.returncode == 0
        assert said == "2 records stored in web\n"
    finally:
        putting.kill()
        putting.wait()


def test_put_ends_quietly_on_ctrl_c(real: Environment, served: str) -> None:
    """Stdin is still open then, and a thread waits in it."""
    real.variables["HEADRACE_ENDPOINT"] = served
    real.run("streams", "create", "web", "--shards", "1")
    putting = subprocess.Popen(
        [sys.executable, "-m", "headrace.pipeline", "put", "web"],
        env=real.variables,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert putting.stdin is not None and putting.stderr is not None
        putting.stdin.write("x\n")
        putting.stdin.flush()
        wait_for(
            lambda: "x" in real.run("tail", "web", "-b", "--no-follow").stdout, "the first line"
        )
        putting.send_signal(signal.SIGINT)
        assert putting.wait(TIMEOUT_S) == 130
        assert putting.stderr.read() == ""
    finally:
        putting.kill()
        putting.communicate()


def test_a_reader_that_goes_away_is_no_failure_to_shout_about(
    real: Environment, served: str
) -> None:
    real.variables["HEADRACE_ENDPOINT"] = served
    real.run("streams", "create", "web", "--shards", "1")
    real.run("put", "web", stdin="line\n" * 2000)
    tailing = real.start("tail", "web", "-b", "-n", "1000000")
    assert tailing.stdout is not None and tailing.stderr is not None
    assert tailing.stdout.readline() == "line\n"
    tailing.stdout.close()
    real.run("put", "web", stdin="line\n" * 20000)
    assert tailing.wait(TIMEOUT_S) == 1
    assert tailing.stderr.read() == ""
    tailing.stderr.close()


def test_serve_imports_nothing_heavy_before_it_listens(real: Environment, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-X", "importtime", "-m", "headrace.pipeline"),
            *("serve", "--port", "0", "--data", str(tmp_path / "stream")),
        ],
        env=real.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("headrace: listening on ")
    process.terminate()
    _, imports = process.communicate(timeout=TIMEOUT_S)
    assert "headrace.core.server" in imports
    for heavy in ("typer", "rich", "pydantic", "fastapi", "pyarrow", "yaml"):
        assert not re.search(rf"\| +{heavy}$", imports, re.MULTILINE), heavy
