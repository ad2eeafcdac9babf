"""The server that the sinks' tests take for S3 keeps the word that their promise rests on."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto.s3.responses import S3Response
from werkzeug.test import Client, TestResponse

from s3_server import s3_application

HEADERS = {
    "Host": "127.0.0.1",
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0",
}


def test_one_of_two_that_put_at_once_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts wait for each other between moto's look at the key and its write, for a while."""
    meeting = threading.Barrier(2)
    real = S3Response._get_checksum

    def wait(response: Any, headers: dict[str, Any]) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one is kept out
            meeting.wait(0.3)
        return real(response, headers)

    application = s3_application()

    def put(body: bytes) -> TestResponse:
        headers = {**HEADERS, "If-None-Match": "*"}
        return Client(application).put("/bucket/key", data=body, headers=headers)

    assert Client(application).put("/bucket", headers=HEADERS).status_code == 200
    monkeypatch.setattr(S3Response, "_get_checksum", wait)
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(put, [b"one", b"two"]))
    codes = [answer.status_code for answer in answers]
    assert sorted(codes) == [200, 412]
    held = Client(application).get("/bucket/key", headers=HEADERS).data
    assert held == [b"one", b"two"][codes.index(200)]
