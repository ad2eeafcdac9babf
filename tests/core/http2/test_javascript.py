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


def drive(server: ServerProcess, modules: Path, **environment: str) -> dict[str, Any]:
    ran = subprocess.run(
        ["node", str(_HERE / "drive.cjs"), server.endpoint, str(modules)],
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
