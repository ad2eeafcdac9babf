"""Which requests are answered as they come in, and that these too are answered as HTTP asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from headrace.core.listener.guard import MAX_HEAD_BYTES
from headrace.core.listener.http1 import MAX_PARTS, Http1Protocol
from http2_support import until
from plain_requests_support import BROKEN, LARGE_BYTES, Witness, received, reply, request, serving


@pytest.fixture(params=["coroutine", "later"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    way: str = request.param
    monkeypatch.setattr(Witness, "way", way)
    return way


@pytest.mark.parametrize("way", ["coroutine", "later", "at once"], indirect=True)
@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([request(10)], ["plain 10"]),
        ([request(0)], ["plain 0"]),
        ([request(1), request(2), request(3)], ["plain 1", "plain 2", "plain 3"]),
        ([request(10, "Connection: Keep-Alive")], ["plain 10"]),
        ([request(1_000_000)], ["plain 1000000"]),
        ([request(10)[:-10], bytes(10)], ["plain 10"]),
        ([request(10)[:-9], bytes(4), bytes(5)], ["plain 10"]),
        ([request(10)[:-10], bytes(10) + request(2), request(3)], ["ASGI 10", "ASGI 2", "plain 3"]),
        ([request(20_000)[:-19_999], bytes(19_999), request(3)], ["plain 20000", "plain 3"]),
        ([request(9)[:-5], bytes(4), bytes(1) + request(3)], ["ASGI 9", "ASGI 3"]),
        ([request(10)[:30], request(10)[30:], request(3)], ["ASGI 10", "plain 3"]),
        ([request(1) + request(2), request(3)], ["ASGI 1", "ASGI 2", "plain 3"]),
        ([request(1) + request(2)[:-1], bytes(1), request(3)], ["ASGI 1", "ASGI 2", "plain 3"]),
        ([request(1, "X-Kind: streamed"), request(2)], ["ASGI 1", "plain 2"]),
        ([request(9, "X-Kind: streamed")[:-5], bytes(5), request(2)], ["ASGI 9", "plain 2"]),
        ([request(1, path="/elsewhere"), request(2)], ["ASGI 1", "plain 2"]),
        ([b"\r\n", request(2)], ["plain 2"]),
        ([request(1), b"\r\n" + request(2), request(3)], ["plain 1", "ASGI 2", "plain 3"]),
    ],
)
def test_which_way_a_request_goes(sent: list[bytes], said: list[str]) -> None:
    uvloop.run(converse(sent, said))  # the server's own loop: others differ in what closing does


async def converse(sent: list[bytes], said: list[str]) -> None:
    async with serving(Witness()) as (_, guard, client):
        await client.send(*sent)
        assert [await client.answer() for _ in said] == said
        assert guard.held_bytes == 0


@pytest.mark.parametrize("way", ["coroutine", "later", "at once"], indirect=True)
@pytest.mark.parametrize("missing", [0, 1, 1_000_000])
@pytest.mark.parametrize(("more", "said"), [(0, "plain"), (1, "ASGI")])
def test_how_large_a_plain_request_may_be(missing: int, more: int, said: str) -> None:
    async def run() -> None:
        size = Http1Protocol.plain_bytes + more
        whole = request(size)
        at = len(whole) - missing
        async with serving(Witness()) as (server, guard, client):
            received(server, [whole[:at], whole[at:]] if missing else [whole])
            assert await client.answer() == f"{said} {size}"
            assert guard.held_bytes == 0

    uvloop.run(run())


@pytest.mark.parametrize(("more", "said"), [(0, "plain"), (1, "ASGI")])
def test_in_how_many_parts_a_plain_request_may_come(more: int, said: str) -> None:
    async def run() -> None:
        size = MAX_PARTS + more
        whole = request(size)
        head = whole[: 1 - size]  # and a byte
        async with serving(Witness()) as (server, guard, client):
            received(server, [head, *[b"\0"] * (size - 1)])
            assert await client.answer() == f"{said} {size}"
            assert guard.held_bytes == 0

    uvloop.run(run())


@pytest.mark.parametrize("first", [40_000, 60_000])
def test_a_part_for_which_there_is_no_room_gives_up_its_own(first: int) -> None:
    async def run() -> None:
        whole = request(100_000)
        async with serving(Witness()) as (server, guard, client):
            guard.max_held_bytes = 50_000
            received(server, [whole[:first], whole[first : first + 20_000]])
            assert (await client.rest()).startswith(b"HTTP/1.1 503")
            assert guard.held_bytes == 0  # or all others would be refused as well

    uvloop.run(run())


def test_what_came_in_parts_is_put_together_in_order() -> None:
    whole = b"".join(b"%06d" % n for n in range(5_000))

    class Echo(Witness):
        def answer_whole(self, pairs: list[tuple[bytes, bytes]], body: bytes) -> Any:
            return reply(body)

    async def run() -> None:
        sent = request(0).replace(b"Length: 0", b"Length: %d" % len(whole)) + whole
        async with serving(Echo()) as (server, _, client):
            received(server, [sent[at : at + 777] for at in range(0, len(sent), 777)])
            assert await client.answer() == whole.decode()

    uvloop.run(run())


@pytest.mark.parametrize("count", [1, 10_000])
def test_a_head_that_is_too_large_is_refused_also_where_it_comes_at_once(count: int) -> None:
    async def run() -> None:
        async with serving(Witness()) as (server, _, client):
            padding = "y" * ((MAX_HEAD_BYTES + 1_000) // count)
            whole = request(2, *(f"X-{n}: {padding}" for n in range(count)))
            received(server, [whole])
            with pytest.raises(AssertionError):  # it is no 200
                await client.answer()
            assert client.head.startswith(b"http/1.1 431")

    uvloop.run(run())


@pytest.mark.parametrize("behind", [[request(2)], [request(2)[:-1], bytes(1)], [request(2) * 2]])
def test_what_comes_behind_a_request_waits_for_its_answer(behind: list[bytes]) -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (_, guard, client):
            witness.may_answer.clear()
            await client.send(request(1), *behind)
            assert guard.held_bytes > len(request(1))
            witness.may_answer.set()
            assert await client.answer() == "plain 1"
            for _ in range(b"".join(behind).count(b"POST")):
                assert await client.answer() == "ASGI 2"
            await client.send(request(3))
            assert await client.answer() == "plain 3"
            assert guard.held_bytes == 0

    uvloop.run(run())


def test_what_is_broken_behind_a_request_ends_the_connection_after_its_answer() -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (_, _, client):
            witness.may_answer.clear()
            await client.send(request(1), b"\0")
            witness.may_answer.set()
            assert await client.answer() == "plain 1"
            assert b"connection: close\r\n" in client.head
            assert await client.rest() == b""

    uvloop.run(run())


def test_a_body_that_breaks_behind_a_request_ends_the_connection_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (_, _, client):
            witness.may_answer.clear()
            await client.send(request(1), BROKEN)
            assert await client.rest() == b""
            witness.may_answer.set()

    uvloop.run(run())
    assert not [record for record in caplog.records if record.exc_info]


def test_a_request_whose_client_has_gone_is_not_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (server, guard, client):
            witness.may_answer.clear()
            await client.send(request(1))
            assert guard.held_bytes == len(request(1))
            server.connection.transport.abort()
            await until(lambda: not server.server_state.connections)
            assert guard.held_bytes == 0 and witness.waiting == 1
            witness.may_answer.set()  # what was begun is finished: a put may be on its way
            await until(lambda: witness.ended == 1)

    uvloop.run(run())
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("pieces", [[request(1)[:-1]], [request(2)[:-2], bytes(1)]])
def test_a_client_that_goes_with_half_a_request_leaves_nothing(pieces: list[bytes]) -> None:
    async def run() -> None:
        async with serving(Witness()) as (server, guard, client):
            await client.send(*pieces)
            assert guard.held_bytes == len(b"".join(pieces))
            server.connection.transport.abort()

    uvloop.run(run())


def test_the_first_in_line_is_told_that_the_connection_is_gone() -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (server, _, client):
            await client.send(request(1, path="/hang") + request(2))
            assert witness.waiting == 1
            server.connection.transport.abort()

    uvloop.run(run())


@pytest.mark.parametrize(
    ("kind", "logged"),
    [("broken", "as it should"), ("no bytes", "an answer in one piece was promised")],
)
def test_an_error_is_answered_as_such_and_logged(
    kind: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with serving(Witness()) as (_, _, client):
            await client.send(request(1, f"X-Kind: {kind}"))
            said = await client.rest()
            assert said.startswith(b"HTTP/1.1 500 ") and b"\r\nconnection: close\r\n" in said
            assert said.endswith(b"Internal Server Error")

    uvloop.run(run())
    assert logged in caplog.text


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_server_that_ends_answers_what_has_come(is_whole: bool) -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (server, _, client):
            witness.may_answer.clear()
            await client.send(request(5) if is_whole else request(5)[:-2])
            server.connection.shutdown()
            if not is_whole:
                await client.send(bytes(2))
            witness.may_answer.set()
            assert await client.answer() == ("plain 5" if is_whole else "ASGI 5")
            assert b"connection: close\r\n" in client.head
            assert await client.rest() == b""

    uvloop.run(run())


def test_a_server_that_must_not_wait_cancels_what_is_under_way() -> None:
    async def run() -> None:
        witness = Witness()
        async with serving(witness) as (server, _, client):
            witness.may_answer.clear()
            await client.send(request(5))
            for task in tuple(server.server_state.tasks):
                task.cancel()
            assert await client.rest() == b""
            assert witness.ended == 1

    uvloop.run(run())


IDLE_S = 0.8


def test_a_connection_is_kept_so_long_after_its_last_answer() -> None:
    async def run() -> None:
        witness = Witness()
        loop = asyncio.get_running_loop()
        async with serving(witness, keep_alive_s=IDLE_S) as (_, _, client):
            started_s = loop.time()
            while loop.time() - started_s < 2 * IDLE_S:
                await client.send(request(1))
                assert await client.answer() == "plain 1"
            witness.may_answer.clear()
            await client.send(request(2)[:-1])
            await asyncio.sleep(1.5 * IDLE_S)  # neither one that comes nor one that waits is idle
            await client.send(request(2)[-1:])
            await asyncio.sleep(1.5 * IDLE_S)
            witness.may_answer.set()
            assert await client.answer() == "plain 2"
            answered_s = loop.time()
            assert await client.rest() == b""
            assert IDLE_S - 0.1 <= loop.time() - answered_s < 4 * IDLE_S

    uvloop.run(run())


def test_a_client_that_is_slow_to_take_its_answers_gets_them_all() -> None:
    async def run() -> None:
        async with serving(Witness()) as (server, guard, client):
            client.reader._limit = 1_000  # type: ignore[attr-defined]  # it reads no further
            for _ in range(3):
                await client.send(request(1, "X-Kind: large"))
            connection = server.connection
            assert guard.held_bytes >= connection.transport.get_write_buffer_size() > 0
            assert len(await client.answer()) == LARGE_BYTES
            assert [await client.answer() for _ in range(2)] == ["ASGI 1"] * 2
            await client.send(request(1))
            assert await client.answer() == "plain 1"

    uvloop.run(run())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [request(1)]),
        ([request(1)[:-1]], [bytes(1)]),
        ([request(1)[:-1]], []),
    ],
)
def test_there_is_no_room_for_plain_requests_either(
    before: list[bytes], after: list[bytes]
) -> None:
    async def run() -> None:
        async with serving(Witness()) as (server, guard, client):
            await client.send(*before)
            others_bytes = guard.max_held_bytes + 1
            guard.held_bytes += others_bytes
            await client.send(*after)
            if not after:
                server.connection._look()
            assert (await client.rest()).startswith(b"HTTP/1.1 503 ")
            guard.held_bytes -= others_bytes

    uvloop.run(run())


def test_half_a_request_is_not_waited_for_without_end() -> None:
    async def run() -> None:
        async with serving(Witness()) as (server, guard, client):
            await client.send(request(9)[:-5])
            connection = server.connection
            assert guard.held_bytes == len(request(9)) - 5
            connection._look()
            assert guard.held_bytes == len(request(9)) - 5
            connection._look()
            assert await client.rest() == b""

    uvloop.run(run())


def test_line_ends_between_requests_do_not_add_up() -> None:
    async def run() -> None:
        async with serving(Witness()) as (server, _, client):
            for _ in range(2):
                await client.send(request(1), b"\r\n")
                assert await client.answer() == "plain 1"
                server.connection._formless_bytes += MAX_HEAD_BYTES - 2

    uvloop.run(run())
