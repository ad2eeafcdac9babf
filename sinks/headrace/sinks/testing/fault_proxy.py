"""A bad network between a client and an HTTP server, on purpose and to order.

Requests are forwarded as they are (what is signed stays signed). A `Fault` says which requests
to spoil, how, and how often; `hits` proves that it really happened.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web

Kind = Literal["lose-reply", "answer", "reset", "hold"]

_HOP_HEADERS = {"transfer-encoding", "connection", "keep-alive", "content-encoding"}


@dataclass(slots=True)
class Fault:
    """What to do to requests that match `when(method, path with query)`.

    kind:
        lose-reply: the server does it, the client never hears of it.
        answer: `status` and `body` instead of the server, which does not see the request.
        reset: the connection is cut after `after_bytes` of the request's body.
        hold: nothing moves until `release` is set; then the request goes through.
    times: how many requests; None for all until the fault is taken away.
    """

    kind: Kind
    when: Callable[[str, str], bool] = lambda method, path: True
    times: int | None = 1
    status: int = 503
    body: str = ""
    after_bytes: int = 0
    hits: int = 0
    held: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)


def s3_error(code: str, message: str = "on purpose") -> str:
    """The body of an S3 error answer."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
        f"<Message>{message}</Message></Error>"
    )


class FaultProxy:
    """Listens on 127.0.0.1, forwards to `upstream`. Use as an async context manager."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.endpoint = ""
        self.faults: list[Fault] = []
        self.last_headers: Mapping[str, str] = {}
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> FaultProxy:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}"
        self._session = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for fault in self.faults:
            fault.release.set()
        assert self._runner is not None and self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path
        self.last_headers = request.headers
        fault = self._fault_for(request.method, path)
        if fault is None:
            return await self._forward(request, path)
        fault.hits += 1
        if fault.kind == "answer":
            await request.read()
            return web.Response(
                status=fault.status, text=fault.body, content_type="application/xml"
            )
        if fault.kind == "reset":
            while fault.after_bytes > 0:
                chunk = await request.content.readany()
                if not chunk:
                    break
                fault.after_bytes -= len(chunk)
            return self._cut(request)
        if fault.kind == "hold":
            fault.held.set()
            await fault.release.wait()
            return await self._forward(request, path)
        await self._forward(request, path)
        return self._cut(request)

    def _fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times != 0 and fault.when(method, path):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def _forward(self, request: web.Request, path: str) -> web.Response:
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_HEADERS}
        async with self._session.request(
            request.method,
            f"{self._upstream}{path}",
            headers=headers,
            data=io.BytesIO(await request.read()),
            allow_redirects=False,
        ) as answer:
            body = await answer.read()
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_HEADERS}
            return web.Response(status=answer.status, body=body, headers=kept)

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
