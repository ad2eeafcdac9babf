"""An HTTP proxy in front of a Kinesis endpoint that fails on demand.

It forwards everything as it comes, except for the faults planned: answers that get lost after the
work was done, connections that break, errors, refused records, silence. Point a client, or a whole
part, at `endpoint` and see whether its promises hold.

    async with FaultyProxy(server.endpoint) as proxy:
        proxy.plan(DROP_REPLY, 3, operation="PutRecords")
        ...

The Host header goes through unchanged, so signatures stay valid; only `ThrottleSome` changes
bodies, and needs an upstream that checks no keys.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import aiohttp
import msgspec
from aiohttp import web

from headrace.core.model.records import (
    PRODUCER_HEADER,
    PRODUCER_SEQUENCES_HEADER,
    decode_sequences,
    encode_sequences,
)

_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_MAX_BODY_BYTES = 64 << 20
_MAX_HEADER_BYTES = 1 << 20
_JSON = "application/x-amz-json-1.1"


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came in."""

    operation: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Upstream(Protocol):
    async def __call__(self, call: Call) -> Reply: ...


class Fault(Protocol):
    """What happens to a request. Returns the answer, or None to break the connection."""

    async def __call__(self, call: Call, upstream: Upstream) -> Reply | None: ...


async def DROP_REPLY(call: Call, upstream: Upstream) -> Reply | None:
    """The work is done, and the connection breaks before the answer."""
    await upstream(call)
    return None


async def CUT_REPLY(call: Call, upstream: Upstream) -> Reply | None:
    """The work is done, and the connection breaks in the middle of the answer's body."""
    reply = await upstream(call)
    return Reply(
        reply.status,
        {**reply.headers, "content-length": str(len(reply.body) + 1)},
        reply.body[: len(reply.body) // 2],
    )


async def RESET(call: Call, upstream: Upstream) -> Reply | None:
    """The connection breaks before anything is done."""
    return None


async def ERROR_500(call: Call, upstream: Upstream) -> Reply | None:
    """Nothing is done, and the answer is an internal failure."""
    return _error(500, "InternalFailure", "injected")


async def ERROR_503(call: Call, upstream: Upstream) -> Reply | None:
    """Nothing is done, and the answer is a page that no Kinesis wrote."""
    return Reply(503, {"content-type": "text/html"}, b"<html>Service Unavailable</html>")


async def HANG(call: Call, upstream: Upstream) -> Reply | None:
    """Nothing is done and nothing is answered, until the client gives up or the proxy closes."""
    await asyncio.Event().wait()
    return None


@dataclass(frozen=True, slots=True)
class Delay:
    """The work is done `before_ms` late, and the answer another `after_ms` later."""

    before_ms: float = 0
    after_ms: float = 0

    async def __call__(self, call: Call, upstream: Upstream) -> Reply | None:
        await asyncio.sleep(self.before_ms / 1000)
        reply = await upstream(call)
        await asyncio.sleep(self.after_ms / 1000)
        return reply


@dataclass(frozen=True, slots=True)
class ThrottleSome:
    """Refuse each record of a PutRecords with probability `share`; other operations as a whole.

    Keeps the server's promise to idempotent producers: behind one refused record, everything of
    that request is refused. (The server would only refuse what goes to the same shard.)
    """

    share: float
    seed: int
    _chance: random.Random = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_chance", random.Random(self.seed))

    async def __call__(self, call: Call, upstream: Upstream) -> Reply | None:
        if call.operation != "PutRecords":
            if self._chance.random() < self.share:
                return _error(400, "ProvisionedThroughputExceededException", "injected")
            return await upstream(call)
        request = msgspec.json.decode(call.body)
        count = len(request["Records"])
        refused = {n for n in range(count) if self._chance.random() < self.share}
        headers = dict(call.headers)
        if PRODUCER_HEADER in headers and refused:
            refused = set(range(min(refused), count))
        kept = [n for n in range(count) if n not in refused]
        if PRODUCER_HEADER in headers:
            sequences = decode_sequences(headers[PRODUCER_SEQUENCES_HEADER])
            headers[PRODUCER_SEQUENCES_HEADER] = encode_sequences([sequences[n] for n in kept])
        results: list[dict[str, Any]] = [
            {
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": "injected",
            }
        ] * count
        if kept:
            body = msgspec.json.encode(
                {**request, "Records": [request["Records"][n] for n in kept]}
            )
            reply = await upstream(Call(call.operation, headers, body))
            if reply.status != 200:
                return reply
            for n, result in zip(kept, msgspec.json.decode(reply.body)["Records"], strict=True):
                results[n] = result
        failed_count = sum("ErrorCode" in result for result in results)
        return _json(200, {"FailedRecordCount": failed_count, "Records": results})


def THROTTLE_SOME(share: float, seed: int) -> ThrottleSome:
    """`ThrottleSome`, spelled like its neighbours."""
    return ThrottleSome(share, seed)


@dataclass(slots=True)
class _Plan:
    fault: Fault
    operation: str | None
    left: int | None


class FaultyProxy:
    """See the module. `requests` and `injected` count by operation."""

    def __init__(self, upstream: str) -> None:
        self.requests: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self._upstream = upstream.rstrip("/")
        self._plans: deque[_Plan] = deque()
        self._random: tuple[Sequence[Fault], float, random.Random] | None = None
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def plan(self, fault: Fault, count: int | None = 1, *, operation: str | None = None) -> None:
        """Let the next `count` requests (None: all from now on) suffer `fault`.

        With `operation` only those of that operation. Plans are used up in order.
        """
        self._plans.append(_Plan(fault, operation, count))

    def plan_random(self, faults: Sequence[Fault], share: float, seed: int) -> None:
        """Let each request that no plan applies to suffer one of `faults` with that probability."""
        self._random = (faults, share, random.Random(seed))

    def clear(self) -> None:
        """No faults from now on. Requests that hang go on hanging."""
        self._plans.clear()
        self._random = None

    async def refuse(self) -> None:
        """Refuse connections and break those that are open, until `accept`."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        assert self._runner is not None and self._runner.server is not None
        for connection in list(getattr(self._runner.server, "connections", ())):
            if connection.transport is not None:
                connection.transport.abort()

    async def accept(self) -> None:
        """Take connections (again), on the same port."""
        assert self._runner is not None
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
            await self._site.start()
            if not self._port:
                self._port = self._runner.addresses[0][1]

    async def __aenter__(self) -> FaultyProxy:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=0.1,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADER_BYTES,
        )
        await self._runner.setup()
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
        )
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.refuse()
        assert self._runner is not None and self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            request.headers.get("x-amz-target", "").rpartition(".")[2] or request.path,
            {k.lower(): v for k, v in request.headers.items() if k.lower() not in _HOP_HEADERS},
            await request.read(),
        )
        self.requests[call.operation] += 1

        async def upstream(call: Call) -> Reply:
            return await self._forward(request.method, request.path_qs, call)

        fault = self._next_fault(call.operation)
        if fault is None:
            reply: Reply | None = await upstream(call)
        else:
            self.injected[call.operation] += 1
            reply = await fault(call, upstream)
        if reply is None:
            return _break(request)
        promised = reply.headers.get("content-length")
        if promised is not None and int(promised) > len(reply.body):
            response = web.StreamResponse(status=reply.status, headers=reply.headers)
            await response.prepare(request)
            await response.write(reply.body)
            _break(request)
            return response
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)

    def _next_fault(self, operation: str) -> Fault | None:
        for plan in self._plans:
            if plan.operation in (None, operation):
                if plan.left is not None:
                    plan.left -= 1
                    if not plan.left:
                        self._plans.remove(plan)
                return plan.fault
        if self._random is not None:
            faults, share, chance = self._random
            if chance.random() < share:
                return chance.choice(faults)
        return None

    async def _forward(self, method: str, path: str, call: Call) -> Reply:
        assert self._session is not None
        try:
            async with self._session.request(
                method,
                self._upstream + path,
                data=io.BytesIO(call.body) if call.body else None,
                headers=call.headers,
                skip_auto_headers=("content-type", "user-agent", "accept"),
                allow_redirects=False,
            ) as reply:
                body = await reply.read()
                headers = {
                    k.lower(): v for k, v in reply.headers.items() if k.lower() not in _HOP_HEADERS
                }
                return Reply(reply.status, headers, body)
        except (aiohttp.ClientError, OSError) as error:
            return _error(502, "ServiceUnavailable", f"upstream: {error}")


def _break(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # nobody gets to see it


def _json(status: int, members: dict[str, Any]) -> Reply:
    return Reply(status, {"content-type": _JSON}, msgspec.json.encode(members))


def _error(status: int, code: str, message: str) -> Reply:
    return _json(status, {"__type": code, "message": message})
