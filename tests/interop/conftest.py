"""What the KCL needs beside the stream: DynamoDB and CloudWatch, by moto's server."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture
def moto() -> Iterator[str]:
    """The endpoint of a moto server that knows of nothing yet."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    # What it keeps is this process's: tables of former tests would still be there.
    with urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")):
        pass
    yield endpoint
    server.stop()
