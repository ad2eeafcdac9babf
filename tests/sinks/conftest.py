"""Real stores for the sinks' tests: a folder, and moto's server as an S3 endpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headrace.sinks.sink import open_store
from sinks_support import Bucket, Lake, sink_config

_SERVER = Path(__file__).parent.parent / "s3_server.py"
_READY = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A moto server, as a process of its own."""
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield _wait_for_endpoint(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)


def _wait_for_endpoint(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        found = _READY.search(log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"moto's server did not start: {log.read_text()}")


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    """A fresh bucket."""
    made = Bucket(s3_endpoint, f"lake-{uuid.uuid4().hex[:12]}")
    client = made.boto3()
    client.create_bucket(Bucket=made.name)
    client.close()
    return made


@pytest.fixture(params=["folder", "bucket"])
async def lake(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket
) -> AsyncIterator[Lake]:
    """A folder, and a bucket."""
    config = (
        sink_config("./lake/")
        if request.param == "folder"
        else sink_config(bucket.url, s3=bucket.config)
    )
    store = open_store(config, tmp_path)
    await store.open()
    yield Lake(config, tmp_path, store)
    await store.close()
