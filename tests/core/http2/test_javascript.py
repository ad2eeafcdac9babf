"""The real JavaScript SDK in its default configuration, which is HTTP/2, against `headrace serve`.

Needs node and npm; without them the tests are skipped, in CI as well.
With them, a package that cannot be installed is a skip here and a failure in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headrace.core.testing.server_process import ServerProcess

_HERE = Path(__file__).parent / "javascript"
_INSTALL_TIMEOUT_S = 300

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not installed"
)


@pytest.fixture(scope="module")
def modules() -> Path:
    """node_modules with the SDK: HEADRACE_NODE_MODULES, or installed once into the user's cache."""
    given = os.environ.get("HEADRACE_NODE_MODULES")
    if given:
        return Path(given)
    version = json.loads((_HERE / "package.json").read_text())["dependencies"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "headrace-tests" / f"client-kinesis-{version['@aws-sdk/client-kinesis']}"
    done = folder / "installed"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_HERE / "package.json", folder)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        try:
            subprocess.run(
                command, cwd=folder, check=True, timeout=_INSTALL_TIMEOUT_S, capture_output=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"the JavaScript SDK could not be installed: {error}")
        done.touch()
    return folder / "node_modules"


def drive(
    server: ServerProcess, modules: Path, *arguments: str, **environment: str
) -> dict[str, Any]:
    ran = subprocess.run(
        ["node", str(_HERE / "drive.cjs"), server.endpoint, str(modules), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def check(found: dict[str, Any]) -> None:
    assert found["handler"] == "NodeHttp2Handler"
    assert found["sequenceNumbers"] == 200
    assert sorted(found["small"]) == sorted(f"n{i}" for i in range(200))
    assert (found["failed"], found["largeBytes"], found["wrongBytes"]) == (0, 10_000_000, 0)
    assert found["arrived"]
    assert found["refusal"] == (
        "ResourceNotFoundException: Stream nope under account 123456789012 not found."
    )


def test_the_default_client_in_the_clear(server: ServerProcess, modules: Path) -> None:
    check(drive(server, modules))


def test_the_default_client_over_tls(tmp_path: Path, modules: Path) -> None:
    with ServerProcess(tmp_path / "stream", arguments=("--tls",)) as server:
        certificate = tmp_path / "stream" / "tls" / "certificate.pem"
        check(drive(server, modules, NODE_EXTRA_CA_CERTS=str(certificate)))


def check_fan_out(found: dict[str, Any]) -> None:
    assert found["handler"] == "NodeHttp2Handler"
    assert found["received"] == {f"r{i}": 1 for i in range(2000)} and found["wrong"] == 0
    split, merged = [4, 5], [6]
    assert found["ended"] == {
        f"shardId-{parent:012d}": [f"shardId-{child:012d}" for child in children]
        for parent, children in ((0, split), (2, merged), (3, merged))
    }
    assert found["bothAtEnd"] == 0
    # The four that were open when the stream was deleted were told so; the three others ended.
    assert sorted(found["endings"]) == ["ResourceNotFoundException"] * 4 + ["end"] * 3
    assert found["again"].startswith("ResourceInUseException: Another active subscription exists")
    positions, middle = found["positions"], found["positions"]["all"] // 2
    assert positions["all"] > 400
    assert positions["TRIM_HORIZON"] == positions["AT_TIMESTAMP"] == positions["all"]
    assert positions["AT_SEQUENCE_NUMBER"] == positions["all"] - middle
    assert positions["AFTER_SEQUENCE_NUMBER"] == positions["all"] - middle - 1
    assert positions["LATEST"] == 0
    assert found["closed"] == [[0, ["shardId-000000000004", "shardId-000000000005"]]]


@pytest.mark.slow
def test_subscriptions_through_a_split_and_a_merge(server: ServerProcess, modules: Path) -> None:
    check_fan_out(drive(server, modules, "fan-out"))


@pytest.mark.slow
def test_subscriptions_over_tls(tmp_path: Path, modules: Path) -> None:
    with ServerProcess(tmp_path / "stream", arguments=("--tls",)) as server:
        certificate = tmp_path / "stream" / "tls" / "certificate.pem"
        check_fan_out(drive(server, modules, "fan-out", NODE_EXTRA_CA_CERTS=str(certificate)))
