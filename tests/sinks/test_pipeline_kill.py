"""The whole pipeline under kill -9: every part in turn, under load and rotation, onto a folder and
onto an S3 server. The oracle reads the log files and the Parquet files, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace.core.testing.ports import free_port
from sinks_support import Bucket

pytestmark = pytest.mark.crash

ROUNDS = int(os.environ.get("HEADRACE_KILL_ROUNDS", "2"))
SEED = int(os.environ.get("HEADRACE_SEED", str(random.randrange(1 << 30))))
PARTS = ("stream", "sinks", "triggers", "agent")
RUNNING = ("running", "troubled")
LANDING_S = 120

HANDLER = """
import base64, json

def on_tens(event, context):
    for record in event["Records"]:
        row = json.loads(base64.b64decode(record["kinesis"]["data"]))
        if row["id"] % 10 == 0:
            context.emit("tens", json.dumps({"id": row["id"]}), partition_key=str(row["id"]))
"""


class LogWriter(threading.Thread):
    """A server's log: numbered JSON lines, renamed away again and again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self.written = 0
        self.rotations = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        log = self._folder / "app.log"
        out = log.open("a")
        rotate_at = time.monotonic() + 0.7
        while not self.stopping.wait(0.01):
            for _ in range(15):
                out.write(json.dumps({"id": self.written, "text": "x" * 60}) + "\n")
                self.written += 1
            out.flush()
            if time.monotonic() > rotate_at:
                out.close()
                self.rotations += 1
                log.rename(self._folder / f"app.log.{self.rotations}")
                out = log.open("a")
                rotate_at += 0.7
        out.close()


def lines_written(folder: Path) -> Counter[int]:
    return Counter(
        json.loads(line)["id"]
        for file in folder.glob("app.log*")
        for line in file.read_text().splitlines()
    )


class Target:
    """Where the files land: a folder, or a bucket."""

    def __init__(self, folder: Path, bucket: Bucket | None) -> None:
        self._folder, self._bucket = folder, bucket

    def section(self, name: str) -> dict[str, Any]:
        if self._bucket is None:
            return {"to": f"{self._folder}/{name}/"}
        s3 = {
            "endpoint": self._bucket.endpoint,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
        }
        return {"to": f"s3://{self._bucket.name}/{name}/", "s3": s3}

    def ids(self, name: str) -> Counter[int]:
        """The id of every row that is visible."""
        found: Counter[int] = Counter()
        for content in self._contents(name):
            found.update(pq.read_table(io.BytesIO(content)).column("id").to_pylist())
        return found

    def _contents(self, name: str) -> Iterator[bytes]:
        if self._bucket is None:
            for file in (self._folder / name).rglob("*.parquet"):
                if not file.name.startswith("."):
                    yield file.read_bytes()
            return
        client = self._bucket.boto3()
        for key in self._bucket.object_keys():
            if key.startswith(f"{name}/") and key.endswith(".parquet"):
                yield client.get_object(Bucket=self._bucket.name, Key=key)["Body"].read()
        client.close()


@pytest.fixture(params=["folder", "bucket"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    bucket = request.getfixturevalue("bucket") if request.param == "bucket" else None
    return Target(tmp_path / "lake", bucket)


def write_pipeline(folder: Path, target: Target) -> Path:
    port = free_port()
    (folder / "handler.py").write_text(textwrap.dedent(HANDLER))
    (folder / "logs").mkdir()
    buffer = {"size": "256KiB", "interval": "700ms"}
    pipeline = {
        "data": "data",
        "stream": {
            "listen": f"127.0.0.1:{port}",
            "streams": {"lines": {}, "tens": {"mode": "provisioned", "shards": 1}},
        },
        "agent": {"flows": [{"files": "logs/app.log*", "stream": "lines", "format": "raw"}]},
        "triggers": [
            {
                "function": "handler.py:on_tens",
                "stream": "lines",
                "batch": {"size": 200, "window": "200ms"},
            }
        ],
        "sinks": [
            {"stream": name, "buffer": buffer, **target.section(name)} for name in ("lines", "tens")
        ],
    }
    path = folder / "pipeline.yaml"
    path.write_text(json.dumps(pipeline))  # JSON is YAML
    return path


def status(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((folder / "data" / "status.json").read_text())
        return {part["part"]: part for part in found["parts"]}
    return {}


def wait_until_running(folder: Path, part: str, deadline: float, killed: int | None = None) -> int:
    """The part's process, once it runs.

    `killed`: the one killed before. The status is up to a second old and may still name it.
    """
    while time.monotonic() < deadline:
        found = status(folder).get(part)
        if found and found["pid"] not in (None, killed) and found["state"] in RUNNING:
            return int(found["pid"])
        time.sleep(0.05)
    raise AssertionError(f"seed {SEED}: {part} did not run: {status(folder).get(part)}")


def test_every_part_is_killed_in_turn_and_the_reckoning_is_even(
    tmp_path: Path, target: Target
) -> None:
    print(f"HEADRACE_SEED={SEED}")
    rng = random.Random(SEED)
    path = write_pipeline(tmp_path, target)
    writer = LogWriter(tmp_path / "logs")
    with (tmp_path / "up.log").open("w") as output:
        pipeline = subprocess.Popen(
            [sys.executable, "-m", "headrace.pipeline", "up", str(path)],
            stdout=output,
            stderr=output,
        )
    try:
        for part in PARTS:
            wait_until_running(tmp_path, part, time.monotonic() + 60)
        writer.start()
        kills = 0
        killed: dict[str, int] = {}
        for _ in range(ROUNDS):
            for part in rng.sample(PARTS, len(PARTS)):
                time.sleep(rng.uniform(0.2, 0.9))
                deadline = time.monotonic() + 60
                killed[part] = wait_until_running(tmp_path, part, deadline, killed.get(part))
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(killed[part], signal.SIGKILL)
                kills += 1
        writer.stopping.set()
        writer.join()
        lines = lines_written(tmp_path / "logs")
        tens = Counter(n for n in lines.elements() if n % 10 == 0)
        deadline = time.monotonic() + LANDING_S
        while time.monotonic() < deadline and (
            lines - target.ids("lines") or tens - target.ids("tens")
        ):
            time.sleep(0.5)
        pipeline.send_signal(signal.SIGTERM)
        assert pipeline.wait(60) == 0, (tmp_path / "up.log").read_text()[-3000:]
    finally:
        pipeline.kill()
        pipeline.wait()
    assert writer.rotations >= 2 and kills == ROUNDS * len(PARTS)
    for name, wanted in (("lines", lines), ("tens", tens)):
        landed = target.ids(name)
        missing, duplicated = (wanted - landed).total(), (landed - wanted).total()
        print(f"{name}: lines={wanted.total()} rows={landed.total()} {missing=} {duplicated=}")
        log = (tmp_path / "up.log").read_text()[-3000:]
        assert (missing, duplicated) == (0, 0), f"seed {SEED}: {name}\n{log}"
