"""The ASGI application: the AWS data path as a plain route, everything else handed on.

`POST /` with an X-Amz-Target header is the Kinesis API. All other paths go to the management
application, which is built when the first such request comes: importing it takes longer than
starting the data path.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from headrace.core.allocator import leave_out_of_collections
from headrace.core.errors import (
    AccessDenied,
    HeadraceError,
    InternalFailure,
    Serialization,
    ServiceError,
    UnknownOperation,
)
from headrace.core.limits import MAX_PUT_REQUEST_BYTES
from headrace.core.pieces import Pieces
from headrace.core.service.caller import Caller
from headrace.core.wire import codec
from headrace.core.wire.cors import Cors
from headrace.core.wire.dispatch import Dispatcher

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_Reply = tuple[int, list[tuple[bytes, bytes]], bytes | Pieces | AsyncGenerator[bytes, None]]

# 10 MiB of data in base64, 500 partition keys of 256 characters in the widest escape, names
MAX_BODY_BYTES = MAX_PUT_REQUEST_BYTES // 3 * 4 + 500 * (256 * 6 + 128) + 65_536


class Authenticator(Protocol):
    """What the application needs of `wire.auth`."""

    def authenticate(
        self,
        method: str,
        path: bytes,
        query: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
    ) -> Caller: ...


class KinesisApp:
    """The wire's edge: HTTP in, HTTP out."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        authenticator: Authenticator,
        management: Callable[[], App],
        cors: Cors,
    ) -> None:
        self._dispatcher = dispatcher
        self._authenticator = authenticator
        self._make_management = management
        self._cors = cors
        self._management: App | None = None
        self._request_prefix = os.urandom(8).hex()
        self._request_count = itertools.count()

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
                    (b"x-amzn-requestid", self._request_id()),
                    (b"x-amz-id-2", _EXTENDED_ID),
                    *(cors or ()),
                ]
            await send(message)

        await self._management(scope, receive, send_with_headers)

    def starts_at_once(self, scope: Scope) -> bool:
        """Whether a request needs no task: see `listener.eager`."""
        return _is_data_path(scope)

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
        status, headers, body = codec.encode_error(AccessDenied(refusal), "")
        headers = [*headers, (b"x-amzn-requestid", self._request_id())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _kinesis(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin")
        cors = [] if origin is None else self._cors.headers(origin)
        content_type = codec.media_type(headers.get(b"content-type", b"").decode("latin-1"))
        body = await _read_body(receive, headers)
        if body is None:
            return  # the client went away: there is nobody to answer
        if cors is None:
            await self._refuse(self._cors.refusal(origin or b""), send)
            return
        if isinstance(body, ServiceError):
            answer: _Reply = codec.encode_error(
                body, codec.CBOR if content_type == codec.CBOR else codec.JSON
            )
        else:
            answer = await self._answer(scope, headers, content_type, body)
        status, extra, out = answer
        response_headers = [
            *extra,
            (b"x-amzn-requestid", self._request_id()),
            (b"x-amz-id-2", _EXTENDED_ID),
            *cors,
        ]
        if not isinstance(out, bytes | Pieces):
            start = {"type": "http.response.start", "status": status, "headers": response_headers}
            await _stream(start, out, receive, send)
            return
        if status == 200:
            response_headers.append((b"content-type", content_type.encode()))
            response_headers.append((b"content-length", b"%d" % len(out)))
        await send({"type": "http.response.start", "status": status, "headers": response_headers})
        await send({"type": "http.response.body", "body": out})

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], content_type: str, body: bytes
    ) -> _Reply:
        """Content type, target, authentication, then the body.

        AWS looks at the body before the signature; here nothing is parsed for a stranger.
        """
        if content_type not in (codec.JSON, codec.CBOR, "application/json"):
            return codec.encode_error(
                AccessDenied("Unable to determine service/operation name to be authorized"),
                content_type,
            )
        target = headers.get(b"x-amz-target", b"").decode("latin-1")
        encoding = codec.CBOR if content_type == codec.CBOR else codec.JSON
        if not target:
            return codec.encode_error(UnknownOperation(""), encoding)
        try:
            caller = self._authenticator.authenticate(
                "POST", scope["raw_path"], scope["query_string"], scope["headers"], body
            )
        except HeadraceError as error:
            refused = error if isinstance(error, ServiceError) else InternalFailure(str(error))
            return codec.encode_error(refused, encoding)
        if not body:
            return codec.encode_error(Serialization(""), encoding)
        return await self._dispatcher.dispatch(caller, target, encoding, headers, body)

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
            (b"x-amzn-requestid", self._request_id()),
            (b"content-length", b"0"),
        ]
        if wanted is not None:
            answer.append((b"access-control-allow-headers", wanted))
        method = headers.get(b"access-control-request-method")
        if method is not None:
            answer.append((b"access-control-allow-methods", method))
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        await send({"type": "http.response.body", "body": b""})

    def _request_id(self) -> bytes:
        """A UUID's form: a prefix of this process, then a count."""
        p = self._request_prefix
        return (f"{p[:8]}-{p[8:12]}-4{p[13:16]}-8000-{next(self._request_count):012x}").encode()


# x-amz-id-2 decodes to 64..80 bytes at AWS; it names the host, so one per process will do
_EXTENDED_ID = base64.b64encode(os.urandom(72))


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
