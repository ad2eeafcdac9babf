"""The ASGI application: the AWS data path as a plain route, everything else handed on.

`POST /` with an X-Amz-Target header is the Kinesis API. All other paths go to the management
application, which is built when the first such request comes: importing it takes longer than
starting the data path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from headrace.core.allocator import leave_out_of_collections
from headrace.core.errors import ServiceError, ServiceUnavailable
from headrace.core.limits import MAX_PUT_REQUEST_BYTES
from headrace.core.pieces import Pieces
from headrace.core.wire.cors import Cors
from headrace.core.wire.data_path import EXTENDED_ID, DataPath

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# 10 MiB of data in base64, 500 partition keys of 256 characters in the widest escape, names
MAX_BODY_BYTES = MAX_PUT_REQUEST_BYTES // 3 * 4 + 500 * (256 * 6 + 128) + 65_536


class KinesisApp:
    """The wire's edge: HTTP in, HTTP out."""

    def __init__(
        self,
        data_path: DataPath,
        management: Callable[[], App],
        cors: Cors,
    ) -> None:
        self._data_path = data_path
        self.answer_whole = data_path.answer_whole
        self._make_management = management
        self._cors = cors
        self._management: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _lifespan(receive, send)
            return
        if kind == "http":
            if _is_data_path(scope):
                await self._kinesis(scope, receive, send)
                return
            if scope["method"] == "OPTIONS" and any(k == b"origin" for k, _ in scope["headers"]):
                await self._preflight(scope, send)
                return
            if refusal := self._refusal(scope):
                await self._refuse(refusal, send)
                return
        if self._management is None:
            # in a thread: it is most of a second of importing, and others go on meanwhile
            self._management = await asyncio.to_thread(self._make_management)
            leave_out_of_collections(again=True)

        origin = dict(scope["headers"]).get(b"origin")
        cors = None if origin is None else self._cors.headers(origin)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"x-amzn-requestid", self._data_path.request_id()),
                    (b"x-amz-id-2", EXTENDED_ID),
                    *(cors or ()),
                ]
            await send(message)

        await self._management(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a browser is refused what the management application has; None: it is not."""
        headers = dict(scope["headers"])
        origin, host = headers.get(b"origin"), headers.get(b"host")
        if origin is not None and self._cors.headers(origin) is None:
            return self._cors.refusal(origin)
        # of browsers' requests only these may come without an Origin
        is_reading = scope["method"] in ("GET", "HEAD")
        if is_reading and host is not None and not self._cors.takes_host(host):
            return (
                f"A server without keys does not answer for {host.decode('latin-1')[:200]!r}. Ask "
                "for it by address or as localhost, or name its origin with --cors-origin "
                "(cors_origins in a file)."
            )
        return None

    async def _refuse(self, refusal: str, send: Send) -> None:
        status, headers, body = self._data_path.refused(refusal)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _kinesis(self, scope: Scope, receive: Receive, send: Send) -> None:
        pairs = scope["headers"]
        headers: dict[bytes, bytes] = dict(pairs)
        body: bytes | ServiceError | None
        try:
            body = await _read_body(receive, headers)
        except asyncio.CancelledError:  # the server ends, and has waited long enough for the rest
            body = ServiceUnavailable("The server is stopping.")
        if body is None:
            return  # the client went away: there is nobody to answer
        status, response_headers, out = await self._data_path.reply(
            scope["raw_path"], scope["query_string"], pairs, headers, body
        )
        start = {"type": "http.response.start", "status": status, "headers": response_headers}
        if not isinstance(out, bytes | Pieces):
            await _stream(start, out, receive, send)
            return
        await send(start)
        await send({"type": "http.response.body", "body": out})

    async def _preflight(self, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        cors = self._cors.headers(headers[b"origin"])
        if cors is None:
            await self._refuse(self._cors.refusal(headers[b"origin"]), send)
            return
        wanted = headers.get(b"access-control-request-headers")
        answer = [
            *cors,
            (b"access-control-max-age", b"172800"),
            (b"x-amzn-requestid", self._data_path.request_id()),
            (b"content-length", b"0"),
        ]
        if wanted is not None:
            answer.append((b"access-control-allow-headers", wanted))
        method = headers.get(b"access-control-request-method")
        if method is not None:
            answer.append((b"access-control-allow-methods", method))
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        await send({"type": "http.response.body", "body": b""})


def _is_data_path(scope: Scope) -> bool:
    return bool(scope["path"] == "/" and scope["method"] == "POST")


async def _read_body(receive: Receive, headers: dict[bytes, bytes]) -> bytes | ServiceError | None:
    """The whole body; a ServiceError when it is too large, None when the client went away."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        return _too_large()
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body
    parts = [message.get("body", b"")]
    size = len(parts[0])
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return _too_large()
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _stream(
    start: MutableMapping[str, Any],
    chunks: AsyncGenerator[bytes, None],
    receive: Receive,
    send: Send,
) -> None:
    """Send chunks as they come, until they end or the client goes away."""

    async def pump() -> None:
        async with aclosing(chunks):
            await send(start)
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    sending, leaving = asyncio.ensure_future(pump()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        leaving.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


def _too_large() -> ServiceError:
    return _RequestTooLarge(f"A request body has at most {MAX_BODY_BYTES} bytes.")


class _RequestTooLarge(ServiceError):
    code = "RequestEntityTooLargeException"
    status = 413


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
