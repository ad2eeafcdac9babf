"""Which requests are answered in the turn of the loop they came in, and that no other is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from headrace.core.listener.http1 import EAGER_BYTES
from http2_support import closed, listening, until


class Witness:
    """An application that says of each request whether there was a task, and what its body was."""

    is_hanging = False

    def starts_at_once(self, scope: Any) -> bool:
        return bool(scope["path"] == "/")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        has_task = _has_task()
        size = 0
        while (message := await receive()).get("more_body"):
            size += len(message.get("body", b""))
        size += len(message.get("body", b""))
        if scope["query_string"] == b"hang":
            self.is_hanging = True
            assert (await receive())["type"] == "http.disconnect"
            return
        if scope["query_string"] == b"wait":
            await asyncio.sleep(0)
            assert _has_task() == has_task
        said = f"{'task' if has_task else 'at once'} {size}".encode()
        headers = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


def _has_task() -> bool:
    return asyncio.current_task() is not None


def request(size: int, path: str = "/") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + bytes(size)


BROKEN = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n!"


async def answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return (await reader.readexactly(length)).decode()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([request(10)], ["at once 10"]),
        ([request(0)], ["at once 0"]),
        ([request(EAGER_BYTES)], [f"at once {EAGER_BYTES}"]),
        ([request(EAGER_BYTES + 1)], [f"task {EAGER_BYTES + 1}"]),
        ([request(10)[:-10], bytes(10)], ["task 10"]),
        ([request(10)[:-4], bytes(4)], ["task 10"]),
        ([request(10, "/elsewhere")], ["task 10"]),
        ([request(1) + request(2) + request(3)], ["at once 1", "at once 2", "at once 3"]),
        ([request(1) + request(20_000) + request(3)], ["at once 1", "task 20000", "task 3"]),
        ([request(1, "/?wait") + request(2)], ["at once 1", "task 2"]),
        ([request(1) + request(5)[:-2], bytes(2)], ["at once 1", "task 5"]),
        ([request(1) + b"\0"], ["at once 1"]),
        ([request(1, "/elsewhere") + b"\0"], ["task 1"]),
    ],
)
def test_a_small_request_that_came_whole_is_begun_without_a_task(
    sent: list[bytes], said: list[str]
) -> None:
    uvloop.run(converse(sent, said))  # the server's own: loops differ in what closing does


async def converse(sent: list[bytes], said: list[str]) -> None:
    async with listening(Witness()) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        for piece in sent:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)  # so that it is received by itself
        async with asyncio.timeout(10):
            assert [await answer(reader) for _ in said] == said
        await closed(writer)
        assert not server.server_state.tasks


@pytest.mark.parametrize("path", ["/", "/elsewhere", "/?wait"])
def test_what_nobody_would_hear_the_answer_to_is_not_begun(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    uvloop.run(break_off(request(1, path) + BROKEN))
    assert not [record for record in caplog.records if record.exc_info]


async def break_off(sent: bytes) -> None:
    async with listening(Witness()) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(sent)
        async with asyncio.timeout(10):
            await reader.read()
        await closed(writer)
        await until(lambda: server.is_quiet)


@pytest.mark.parametrize("path", ["/?hang", "/elsewhere?hang"])
def test_the_first_in_line_is_told_that_the_connection_is_gone(path: str) -> None:
    uvloop.run(lose(request(1, path) + request(2)))


async def lose(sent: bytes) -> None:
    witness = Witness()
    async with listening(witness) as server:
        _, writer = await asyncio.open_connection(*server.address)
        writer.write(sent)
        await until(lambda: witness.is_hanging)
        server.connection.transport.abort()
        await until(lambda: server.is_quiet, 5)
        await closed(writer)
