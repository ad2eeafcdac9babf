"""What all rooms' tests share: a real server process, a client on it, boto3."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from headrace.core.client import StreamClient
from headrace.core.testing.server_process import ServerProcess

# Child processes find the four rooms in a bare checkout as pytest does.
_ROOT = Path(__file__).parent.parent
_ROOMS = [str(_ROOT / room) for room in ("core", "agent", "triggers", "sinks")]
os.environ["PYTHONPATH"] = os.pathsep.join([*_ROOMS, *filter(None, [os.environ.get("PYTHONPATH")])])
# What child processes say, and keep, is to come from Headrace and not from a tester's settings.
for _setting in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(_setting, None)
# boto3 and s3fs never look beyond this machine for credentials.
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
os.environ.setdefault("AWS_CONFIG_FILE", os.devnull)
os.environ.setdefault("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")

# A run in the background of a script ignores SIGINT, and so would every process a test starts,
# also those whose end on Ctrl-C is what is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """`headrace serve` on a fresh data folder."""
    with ServerProcess(tmp_path / "stream") as process:
        yield process


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[StreamClient]:
    """A client on `server`."""
    async with StreamClient(server.target) as stream_client:
        yield stream_client


@pytest.fixture
def kinesis(server: ServerProcess) -> Iterator[Any]:
    """boto3's Kinesis client on `server`, unmodified, with no retries of its own."""
    client = boto3_kinesis(server.endpoint)
    yield client
    client.close()


def boto3_kinesis(endpoint: str, **config: Any) -> Any:
    """An unmodified boto3 client."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}, **config),
    )
