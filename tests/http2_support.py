"""A small HTTP/2 client on h2 that lets tests be rude, and an ASGI server of our listener."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from headrace.core.listener.protocol import FirstBytesProtocol

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/kinesis/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
)


def kinesis_headers(operation: str) -> list[tuple[str, str]]:
    """What an AWS SDK sends, with a signature nobody checks."""
    return [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", f"Kinesis_20131202.{operation}"),
        ("x-amz-date", "20261122T000000Z"),
        ("authorization", AUTHORIZATION),
    ]


class Answer:
    """What came back on one stream so far."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.reset: int | None = None
        self.done = asyncio.Event()


class Http2Client:
    """One connection. `is_reading` False leaves the flow control windows closed."""

    def __init__(self, endpoint: str, *, is_reading: bool = True) -> None:
        self.conn = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.answers: dict[int, Answer] = {}
        self.goaway: ConnectionTerminated | None = None
        self.closed = asyncio.Event()
        self.progress = asyncio.Event()
        self.is_reading = is_reading
        self.endpoint = urlsplit(endpoint)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(
        self, *, cafile: str | None = None, alpn: tuple[str, ...] = ("h2",)
    ) -> Http2Client:
        context = None
        if self.endpoint.scheme == "https":
            context = ssl.create_default_context(cafile=cafile)
            if alpn:
                context.set_alpn_protocols(list(alpn))
        self.reader, self.writer = await asyncio.open_connection(
            self.endpoint.hostname, self.endpoint.port, ssl=context
        )
        self.conn.initiate_connection()
        self.conn.increment_flow_control_window(2**30)
        self.flush()
        self._task = asyncio.create_task(self._read())
        return self

    @property
    def alpn(self) -> str | None:
        tls = self.writer.get_extra_info("ssl_object")
        found: str | None = tls.selected_alpn_protocol()
        return found

    def flush(self) -> None:
        self.writer.write(self.conn.data_to_send())

    def open(
        self,
        headers: list[tuple[str, str]],
        *,
        method: str = "POST",
        path: str = "/",
        is_last: bool = False,
    ) -> int:
        """Begin a stream; its number."""
        stream_id = self.conn.get_next_available_stream_id()
        host = f"{self.endpoint.hostname}:{self.endpoint.port}"
        pseudo = [(":method", method), (":scheme", self.endpoint.scheme)]
        pseudo += [(":authority", host), (":path", path)]
        self.answers[stream_id] = Answer()
        self.conn.send_headers(stream_id, pseudo + headers, end_stream=is_last)
        self.flush()
        return stream_id

    async def send(self, stream_id: int, body: bytes, *, is_last: bool = True) -> None:
        """Send a body as far and as fast as the windows let it go."""
        view = memoryview(body)
        while view:
            if self.answers[stream_id].done.is_set() or self.closed.is_set():
                return  # nobody wants the rest
            window = self.conn.local_flow_control_window(stream_id)
            size = min(window, self.conn.max_outbound_frame_size, len(view))
            if size == 0:
                self.progress.clear()
                await self.progress.wait()
                continue
            self.conn.send_data(stream_id, bytes(view[:size]))
            view = view[size:]
            self.flush()
            await self.writer.drain()
        if is_last:
            self.conn.end_stream(stream_id)
            self.flush()

    async def answer(self, stream_id: int, timeout_s: float = 30) -> Answer:
        async with asyncio.timeout(timeout_s):
            await self.answers[stream_id].done.wait()
        return self.answers[stream_id]

    async def request(self, path: str = "/", body: bytes = b"", **options: Any) -> Answer:
        stream_id = self.open(options.pop("headers", []), path=path, is_last=not body, **options)
        if body:
            await self.send(stream_id, body)
        return await self.answer(stream_id)

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """One operation of the Kinesis API; its answer must be a good one."""
        body = json.dumps(request).encode()
        answer = await self.request(body=body, headers=kinesis_headers(operation))
        assert answer.status == 200, bytes(answer.body)
        decoded: dict[str, Any] = json.loads(answer.body or b"{}")
        return decoded

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(65_536):
                for event in self.conn.receive_data(data):
                    self._handle(event)
                self.flush()
                self.progress.set()
        except (OSError, ssl.SSLError):
            pass
        finally:
            self.closed.set()
            self.progress.set()
            for answer in self.answers.values():
                answer.done.set()

    def _handle(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = event
            self.conn.state_machine.state = type(self.conn.state_machine.state).CLIENT_OPEN
            return
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, ResponseReceived):
            answer.headers = dict(event.headers or [])
            answer.status = int(answer.headers[b":status"])
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            if self.is_reading:
                size = event.flow_controlled_length or 0
                self.conn.acknowledge_received_data(size, event.stream_id or 0)
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code or 0)
            answer.done.set()
        elif isinstance(event, StreamEnded):
            answer.done.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await closed(self.writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until nothing of it is left in the event loop."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def connected(endpoint: str, **options: Any) -> AsyncIterator[Http2Client]:
    is_reading = options.pop("is_reading", True)
    client = await Http2Client(endpoint, is_reading=is_reading).connect(**options)
    try:
        yield client
    finally:
        await client.close()


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # it is somebody else's doing
            await asyncio.sleep(0.01)


class Listening(uvicorn.Server):
    """A server of our listener; `state` is what uvicorn knows of it."""

    address: tuple[str, int]

    @property
    def endpoint(self) -> str:
        return "http://{}:{}".format(*self.address)

    @property
    def connection(self) -> Any:
        """Any one of the open connections."""
        return next(iter(self.server_state.connections))

    @property
    def is_quiet(self) -> bool:
        """No connection, nothing under way."""
        return not self.server_state.connections and not self.server_state.tasks


@asynccontextmanager
async def listening(app: Any, *, keep_alive_s: float = 75) -> AsyncIterator[Listening]:
    """An ASGI application behind our listener, in this event loop."""
    config = uvicorn.Config(
        app, http=FirstBytesProtocol, lifespan="off", log_config=None, ws="none",
        timeout_graceful_shutdown=3, proxy_headers=False,
    )  # fmt: skip
    config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]  # less than a second
    config.load()
    server = Listening(config)
    server.lifespan = SimpleNamespace(startup=_nothing, shutdown=_nothing, state={}, should_exit=0)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server.address = sock.getsockname()
        await server.startup(sockets=[sock])
        running = asyncio.create_task(server.main_loop())
        try:
            yield server
        finally:
            server.should_exit = True
            await running
            await server.shutdown(sockets=[sock])


async def _nothing() -> None:
    return None
