"""Requests begun as the listener begins them: answered in the same turn of the loop, or later."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from api_support import SIGNED
from client_support import until
from headrace.core.later import Later
from headrace.core.log.files import Files
from headrace.core.server import Server, ServerConfig
from headrace.core.testing.manual_clock import ManualClock

JSON = b"application/x-amz-json-1.1"
PLAIN, KMS = "plain", "kms"
GOOD: dict[str, Any] = {"Data": "YWJj", "PartitionKey": "k"}


class Client:
    """Requests to a server's data path, as the listener hands them over."""

    def __init__(self, server: Server, clock: ManualClock) -> None:
        self.server, self.clock = server, clock
        self._answer_whole = server._uvicorn.config.app.answer_whole  # type: ignore[union-attr]

    async def ask(
        self, operation: str, request: object, *, begun: bool = True, account: str = ""
    ) -> tuple[str, dict[str, Any]]:
        """The way it went (now, later, whole), and the answer.

        Unless `begun` it is given a content type of which only `reply` knows what it means.
        """
        return await told(self.begin(operation, request, begun=begun, account=account))

    def begin(
        self, operation: str, request: object, *, begun: bool = True, account: str = ""
    ) -> Any:
        """As `ask`, as far as it is answered in this turn of the loop; for `told`."""
        headers = {name.lower().encode(): value.encode() for name, value in SIGNED.items()}
        if account:
            headers[b"authorization"] = headers[b"authorization"].replace(
                b"Credential=test/", b"Credential=" + account.encode() + b"/"
            )
        headers[b"content-type"] = JSON if begun else JSON + b"; a=b"
        headers[b"x-amz-target"] = b"Kinesis_20131202." + operation.encode()
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self._answer_whole(list(headers.items()), body)

    async def quiet(self) -> None:
        """Wait until nobody has put of late: polls that find nothing are answered at once then."""
        (opened,) = self.server._catalog._open.values()
        await until(lambda: opened.log.after_puts() is None)

    async def good(self, operation: str, request: object) -> dict[str, Any]:
        _, answer = await self.ask(operation, request)
        assert answer["status"] == 200, answer
        body: dict[str, Any] = answer["body"]
        return body

    async def create(self, name: str, **more: Any) -> None:
        more = more or {"ShardCount": 3}
        await self.good("CreateStream", {"StreamName": name, **more})
        if KMS in name:
            await self.good(
                "StartStreamEncryption",
                {"StreamName": name, "EncryptionType": "KMS", "KeyId": "alias/a"},
            )

    async def iterator(self, name: str, kind: str = "LATEST", shard: int = 0) -> str:
        request = {
            "StreamName": name, "ShardId": f"shardId-{shard:012d}", "ShardIteratorType": kind,
        }  # fmt: skip
        token: str = (await self.good("GetShardIterator", request))["ShardIterator"]
        return token

    def counted(self) -> dict[str, list[Any]]:
        """What has been counted since the last time, by stream."""
        taken = self.server._usage.take()
        found: dict[str, list[Any]] = {}
        for (uid, shard), counts in sorted(taken.shards.items()):
            found.setdefault(taken.identities[uid].name, []).append((shard, counts))
        return found


async def told(answering: Any) -> tuple[str, dict[str, Any]]:
    """The way that an answer came (now, later, whole), and the answer."""
    if isinstance(answering, tuple):
        way, reply = "now", answering
    elif isinstance(answering, Later):
        await asyncio.wait([answering.done])
        way, reply = "later", answering.tell()
    else:
        way, reply = "whole", await answering
    status, found, said = reply
    text = said if isinstance(said, bytes) else said.join()
    if isinstance(found, bytes):
        assert way != "whole" and found.endswith(b"\r\n")
        found = [line.split(b": ") for line in found.split(b"\r\n")[:-1]]
    names = {name.decode(): value.decode() for name, value in found}
    assert names.pop("x-amzn-requestid")
    assert int(names.pop("content-length")) == len(text)
    return way, {"status": status, "headers": names, "body": json.loads(text or b"{}")}


@contextlib.asynccontextmanager
async def serving(folder: Path, files: Files | None = None, **config: Any) -> AsyncIterator[Client]:
    clock = ManualClock()
    options = ServerConfig(port=0, data=folder / "stream", **config)
    server = Server(options, clock=clock, files=files)
    await server.start()
    for task in server._tasks:  # nobody else is to take what has been counted
        task.cancel()
    try:
        yield Client(server, clock)
    finally:
        await server.stop()


async def put_one(client: Client) -> str:
    put = {"StreamName": "a", "ExplicitHashKey": "0", **GOOD}
    number: str = (await client.good("PutRecord", put))["SequenceNumber"]
    return number
