"""The AWS CLI against `headrace serve`: the commands of AWS's tutorial for Kinesis, then what one
does to a stream afterwards.

Version 1 is installed with pip. HEADRACE_AWS_CLI names another, of version 2 for example.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from headrace.core.testing.server_process import ServerProcess

pytestmark = pytest.mark.slow

_VERSION = "1.46.3"
_INSTALL_TIMEOUT_S = 300


@pytest.fixture(scope="module")
def aws() -> Path:
    """The program, in an environment of its own: HEADRACE_AWS_CLI, or made once in the cache."""
    given = os.environ.get("HEADRACE_AWS_CLI")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / "headrace-tests" / f"awscli-{_VERSION}-python{python}"
    done = folder / "installed"
    if not done.exists():
        try:
            venv.create(folder, with_pip=True, clear=True)
            subprocess.run(
                [str(folder / "bin" / "python"), "-m", "pip", "install", f"awscli=={_VERSION}"],
                check=True, timeout=_INSTALL_TIMEOUT_S, capture_output=True,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"the AWS CLI could not be installed: {error}")
        done.touch()
    return folder / "bin" / "aws"


class Cli:
    """`aws kinesis ...` on one endpoint."""

    def __init__(self, program: Path, server: ServerProcess) -> None:
        # Version 2 takes --data to be base64 unless it is told otherwise; version 1 reads past it.
        config = server.data.parent / "aws-config"
        config.write_text("[default]\ncli_binary_format = raw-in-base64-out\n")
        self._command = [str(program), "kinesis", "--endpoint-url", server.endpoint]
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(server.data.parent),
            "AWS_CONFIG_FILE": str(config),
            "AWS_PAGER": "",
            "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        certificate = server.target.certificate
        if certificate is not None:
            self._env["AWS_CA_BUNDLE"] = certificate

    def take_endpoint_from_environment(self) -> None:
        self._command, (flag, endpoint) = self._command[:2], self._command[2:]
        assert flag == "--endpoint-url"
        self._env["AWS_ENDPOINT_URL_KINESIS"] = endpoint

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=True, text=True, timeout=60
        )

    def __call__(self, *arguments: str) -> Any:
        """What it prints, as JSON; None when that is nothing."""
        ran = self.run(*arguments)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout) if ran.stdout.strip() else None


def test_the_tutorial(server: ServerProcess, aws: Path) -> None:
    kinesis = Cli(aws, server)
    foo = ("--stream-name", "Foo")
    assert kinesis("create-stream", *foo) is None  # on-demand, as no shard count is given
    kinesis("wait", "stream-exists", *foo)
    summary = kinesis("describe-stream-summary", *foo)["StreamDescriptionSummary"]
    assert summary["StreamStatus"] == "ACTIVE" and summary["OpenShardCount"] == 4
    assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert kinesis("list-streams")["StreamNames"] == ["Foo"]
    put = kinesis("put-record", *foo, "--partition-key", "123", "--data", "testdata")
    iterator = kinesis(
        "get-shard-iterator", *foo, "--shard-id", put["ShardId"],
        "--shard-iterator-type", "TRIM_HORIZON",
    )["ShardIterator"]  # fmt: skip
    got = kinesis("get-records", "--shard-iterator", iterator)
    (record,) = got["Records"]
    assert base64.b64decode(record["Data"]) == b"testdata"
    assert record["SequenceNumber"] == put["SequenceNumber"] and record["PartitionKey"] == "123"
    assert got["NextShardIterator"] and got["MillisBehindLatest"] == 0
    assert kinesis("delete-stream", *foo) is None
    kinesis("wait", "stream-not-exists", *foo)
    refused = kinesis.run("describe-stream-summary", *foo)
    assert refused.returncode in (254, 255)
    assert "(ResourceNotFoundException)" in refused.stderr


def test_a_stream_is_changed(tmp_path: Path, aws: Path) -> None:
    with ServerProcess(tmp_path / "stream", arguments=("--tls",)) as server:
        kinesis = Cli(aws, server)
        bar = ("--stream-name", "Bar")
        kinesis("create-stream", *bar, "--shard-count", "2")
        kinesis("wait", "stream-exists", *bar)
        kinesis("add-tags-to-stream", *bar, "--tags", "team=logs")
        records = json.dumps(
            [{"Data": f"d{n}", "PartitionKey": f"k{n}"} for n in range(10)], separators=(",", ":")
        )
        put = kinesis("put-records", *bar, "--records", records)
        assert put["FailedRecordCount"] == 0 and len(put["Records"]) == 10
        kinesis(
            "split-shard", *bar, "--shard-to-split", "shardId-000000000000",
            "--new-starting-hash-key", str(2**126),
        )  # fmt: skip
        kinesis("wait", "stream-exists", *bar)
        # The CLI's own paging sends the stream's name with the token, which AWS refuses as well.
        page = kinesis("list-shards", *bar, "--max-results", "3")
        rest = kinesis("list-shards", "--next-token", page["NextToken"])
        shards = [shard["ShardId"][-1] for shard in page["Shards"] + rest["Shards"]]
        assert shards == ["0", "1", "2", "3"]
        kinesis(
            "update-shard-count", *bar, "--target-shard-count", "4",
            "--scaling-type", "UNIFORM_SCALING",
        )  # fmt: skip
        kinesis("wait", "stream-exists", *bar)
        kinesis("increase-stream-retention-period", *bar, "--retention-period-hours", "48")
        described = kinesis("describe-stream", *bar)["StreamDescription"]
        assert described["RetentionPeriodHours"] == 48
        assert kinesis("list-tags-for-stream", *bar)["Tags"] == [{"Key": "team", "Value": "logs"}]
        consumer = kinesis(
            "register-stream-consumer", "--stream-arn", described["StreamARN"],
            "--consumer-name", "fan",
        )["Consumer"]  # fmt: skip
        found = kinesis("describe-stream-consumer", "--consumer-arn", consumer["ConsumerARN"])
        assert found["ConsumerDescription"]["ConsumerName"] == "fan"
        refused = kinesis.run("delete-stream", *bar)
        assert "(ResourceInUseException)" in refused.stderr
        kinesis("delete-stream", *bar, "--enforce-consumer-deletion")


def test_the_endpoint_may_come_from_the_environment(server: ServerProcess, aws: Path) -> None:
    if os.environ.get("HEADRACE_AWS_CLI"):
        pytest.skip("versions before 2.13 do not look there")
    kinesis = Cli(aws, server)
    kinesis.take_endpoint_from_environment()
    kinesis("create-stream", "--stream-name", "Env")
    assert kinesis("list-streams")["StreamNames"] == ["Env"]
