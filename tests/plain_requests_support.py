"""An application that says which way a request came to it, a server for it, and a client."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from headrace.core.later import Later
from headrace.core.listener.guard import Guard
from headrace.core.pieces import Pieces
from http2_support import Listening, closed, listening, until


class Witness:
    """An application that says of each request which way it came, and how large its body was.

    It answers those that come whole in the `way` of the tests: by a coroutine, later, or at once.
    """

    way = ""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.waiting = 0
        self.ended = 0

    def answer_whole(
        self, pairs: list[tuple[bytes, bytes]], body: bytes
    ) -> Coroutine[Any, Any, Any] | Later[Any] | tuple[Any, ...] | None:
        if (b"x-kind", b"streamed") in pairs:
            return None
        headers = dict(pairs)
        if self.way == "coroutine":
            return self._answer(headers, body)
        return self._later(headers, body) if self.way == "later" else self._tell(headers, body)

    def _later(self, headers: dict[bytes, bytes], body: bytes) -> Later[Any]:
        self.waiting += 1
        done: Any = asyncio.ensure_future(self.may_answer.wait())
        done.add_done_callback(self._end)
        return Later(done, lambda: self._tell(headers, body))

    def _end(self, _: object) -> None:
        self.waiting -= 1
        self.ended += 1

    def _tell(self, headers: dict[bytes, bytes], body: bytes) -> Any:
        kind = headers.get(b"x-kind")
        if kind == b"broken":
            raise RuntimeError("as it should")
        if kind == b"no bytes":
            return 200, [], None
        if kind == b"large":
            return reply(Pieces([bytes(LARGE_BYTES // 20)] * 20))
        return reply(b"plain %d" % len(body))

    async def _answer(self, headers: dict[bytes, bytes], body: bytes) -> Any:
        assert asyncio.current_task() is None
        self.waiting += 1
        try:
            await self.may_answer.wait()
        finally:
            self._end(None)
        return self._tell(headers, body)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert asyncio.current_task() is not None
        size, goes_on = 0, True
        while goes_on:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            goes_on = message.get("more_body")
        if scope["path"] == "/hang":
            self.waiting += 1
            assert (await receive())["type"] == "http.disconnect"
            return
        status, headers, said = reply(b"ASGI %d" % size)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": said})


def _waiting_bytes(transport: asyncio.BaseTransport, queue: int) -> int:
    """How many bytes the kernel holds for the socket of a transport: to be sent, or to be read."""
    said = fcntl.ioctl(transport.get_extra_info("socket").fileno(), queue, bytes(4))
    return int.from_bytes(said, sys.byteorder)


def reply(body: Any) -> tuple[int, list[tuple[bytes, bytes]], Any]:
    return 200, [(b"content-length", b"%d" % len(body))], body


def request(size: int, *headers: str, path: str = "/", body_size: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {size}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(size)


TURNS = 20  # of the loop: more than any answer here takes
LARGE_BYTES = 20_000_000  # more than what buffers of sockets take
BROKEN = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n!"


class Client:
    """A connection to `server`, which has no other."""

    server_side: Any  # of the connection: its transport

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, server: Listening) -> Client:
        client = cls(*await asyncio.open_connection(*server.address))
        await until(lambda: bool(server.server_state.connections))
        client.server_side = server.connection._transport
        return client

    async def send(self, *pieces: bytes) -> None:
        """Each so that it is received by itself, and seen to as far as it goes, before the next."""
        for piece in pieces:
            self.writer.write(piece)
            async with asyncio.timeout(10):
                while self._is_on_its_way:  # noqa: ASYNC110  # the kernel tells nobody
                    await asyncio.sleep(0)
            for _ in range(TURNS):
                await asyncio.sleep(0)

    @property
    def _is_on_its_way(self) -> bool:
        """Whether the server may still receive of what was sent."""
        sender = self.writer.transport
        return self.server_side.is_reading() and (
            sender.get_write_buffer_size() > 0
            or _waiting_bytes(sender, termios.TIOCOUTQ) > 0
            or _waiting_bytes(self.server_side, termios.FIONREAD) > 0
        )

    async def answer(self) -> str:
        async with asyncio.timeout(10):
            self.head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            assert self.head.startswith(b"http/1.1 200 ok\r\n")
            length = int(self.head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return (await self.reader.readexactly(length)).decode()

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def close(self) -> None:
        await closed(self.writer)


@contextlib.asynccontextmanager
async def serving(
    witness: Witness, *, keep_alive_s: float = 75
) -> AsyncIterator[tuple[Listening, Guard, Client]]:
    """A server and a connection to it; after both nothing is open, under way, or held."""
    async with listening(witness, keep_alive_s=keep_alive_s) as server:
        client = await Client.connect(server)
        guard = server.connection._guard
        yield server, guard, client
        await client.close()
        await until(lambda: server.is_quiet)
        assert guard.held_bytes == 0


def received(server: Listening, pieces: list[bytes]) -> None:
    """Give them to the connection, and not by the socket, which may take them apart."""
    for piece in pieces:
        # whose protocol is another one from the first piece on
        asyncio.get_running_loop().call_soon(
            lambda data: server.connection.data_received(data), piece
        )
