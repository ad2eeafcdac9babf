"""The HTTP/2 connection itself: flow control, resets, endings, and what peers do wrong."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from typing import Any

import pytest
from h2.errors import ErrorCodes

from headrace.core.listener.http2 import MAX_ABANDONED
from headrace.core.listener.http2_state import MAX_HEADERS_BYTES, MAX_STREAMS
from headrace.core.listener.http2_stream import SEND_AHEAD_BYTES
from headrace.core.listener.protocol import PREFACE
from http2_support import Http2Client, closed, connected, listening, until


async def read_body(receive: Any) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(send: Any, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    if body is not None:
        await answer(send, body)


async def test_a_preface_in_single_bytes_and_an_unfinished_one() -> None:
    async with listening(echo) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        for byte in PREFACE:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS
        assert (await reader.readexactly(9))[3] == 4
        await closed(writer)
        _, half = await asyncio.open_connection(*server.address)
        half.write(PREFACE[:7])
        await half.drain()
        await closed(half)
        async with connected(server.endpoint) as client:
            assert bytes((await client.request(body=b"x")).body) == b"x"


async def test_what_begins_like_the_preface_may_be_http_1() -> None:
    async with listening(echo) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"P")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(b"OST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await closed(writer)


async def test_requests_without_a_body_and_of_other_paths() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await echo(scope, receive, send)

    async with listening(app) as server, connected(server.endpoint) as client:
        found = await client.request("/a%20b?q=1", method="GET", headers=[("x-a", "1")])
    assert found.status == 200
    scope = seen[0]
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("GET", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["http_version"]) == (b"q=1", "2")
    host = server.endpoint.removeprefix("http://").encode()
    assert scope["headers"] == [(b"x-a", b"1"), (b"host", host)]


async def test_large_bodies_both_ways_and_many_at_a_time() -> None:
    body = random.Random(1).randbytes(10 << 20)
    async with listening(echo) as server, connected(server.endpoint) as client:
        for found in await asyncio.gather(*(client.request(body=body) for _ in range(3))):
            assert found.body == body


async def test_five_thousand_requests_on_one_connection() -> None:
    async with listening(echo) as server, connected(server.endpoint) as client:
        for start in range(0, 5_000, 500):
            bodies = [b"%d" % n for n in range(start, start + 500)]
            found = await asyncio.gather(*(client.request(body=b) for b in bodies))
            assert [bytes(a.body) for a in found] == bodies
        protocol = server.connection
        assert not protocol.streams and not protocol._running_count


async def test_a_reader_that_takes_nothing_is_not_written_ahead_for() -> None:
    sent_bytes = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent_bytes
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent_bytes += 65_536

    async with (
        listening(endless) as server,
        connected(server.endpoint, is_reading=False) as client,
    ):
        stream_id = client.open([], is_last=True)
        client.conn.clear_outbound_data_buffer()
        before = -1
        while sent_bytes != before:
            before = sent_bytes
            await asyncio.sleep(0.2)
        assert sent_bytes <= SEND_AHEAD_BYTES + 2 * 65_536
        # and it goes on where it stopped, once the reader does
        client.conn.increment_flow_control_window(65_536, stream_id)
        client.flush()
        await until(lambda: sent_bytes > before)
        client.conn.reset_stream(stream_id)
        client.flush()
        await until(lambda: sent_bytes > before + (4 << 20))  # it sends into the void, and notices
        for task in list(server.server_state.tasks):
            task.cancel()


async def test_one_stalled_stream_does_not_hold_up_the_others() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await answer(send, b"x" * (1 << 20) if scope["path"] == "/big" else b"small")

    async with (
        listening(app) as server,
        connected(server.endpoint, is_reading=False) as client,
    ):
        stalled = [client.open([], path="/big", is_last=True) for _ in range(5)]
        assert bytes((await client.request("/")).body) == b"small"
        assert not any(client.answers[s].done.is_set() for s in stalled)


async def test_nothing_is_read_ahead_of_the_application() -> None:
    may_read = asyncio.Event()
    got: list[bytes | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await may_read.wait()
        got.append(await read_body(receive))
        await answer(send, b"")

    async with listening(app) as server, connected(server.endpoint) as client:
        stream_id = client.open([])
        sending = asyncio.create_task(client.send(stream_id, b"x" * (4 << 20)))
        await until(lambda: client.conn.local_flow_control_window(stream_id) == 0)
        await asyncio.sleep(0.3)
        assert client.conn.local_flow_control_window(stream_id) == 0
        assert not sending.done()
        may_read.set()
        await sending
        await client.answer(stream_id)
        assert [len(b or b"") for b in got] == [4 << 20]


async def test_an_answer_before_the_end_of_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"too much", 413)

    async with listening(app) as server, connected(server.endpoint) as client:
        found = await client.request(body=b"x" * (30 << 20))
        assert (found.status, bytes(found.body)) == (413, b"too much")
        assert found.reset in (None, ErrorCodes.NO_ERROR)
        assert (await client.request(body=b"again")).status == 413


async def test_errors_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] != "/silent":
            raise ValueError("a bug")

    async with listening(app) as server, connected(server.endpoint) as client:
        assert (await client.request("/")).status == 500
        assert (await client.request("/silent")).status == 500
        assert (await client.request("/late")).reset == ErrorCodes.INTERNAL_ERROR
    assert "a bug" in caplog.text


async def test_a_reset_and_a_lost_connection_are_a_disconnect() -> None:
    ends: list[bytes | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ends.append(await read_body(receive))

    async with listening(app) as server:
        async with connected(server.endpoint) as client:
            stream_id = client.open([])
            await client.send(stream_id, b"half", is_last=False)
            client.conn.reset_stream(stream_id)
            stream_id = client.open([])
            await client.send(stream_id, b"half", is_last=False)
            client.writer.transport.abort()
        await until(lambda: len(ends) == 2 and server.is_quiet)
        assert ends == [None, None]


async def test_a_flood_of_resets_ends_the_connection() -> None:
    async with listening(echo) as server:
        async with connected(server.endpoint) as client:
            flood = bytearray()
            for _ in range(MAX_STREAMS + MAX_ABANDONED + 100):
                stream_id = client.conn.get_next_available_stream_id()
                client.conn.send_headers(
                    stream_id,
                    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")],
                )
                client.conn.reset_stream(stream_id)
                flood += client.conn.data_to_send()
            client.writer.write(flood)
            async with asyncio.timeout(20):
                await client.closed.wait()
            assert client.goaway is not None
            assert client.goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM
        async with connected(server.endpoint) as client:
            assert (await client.request(body=b"x")).status == 200


async def test_pings_are_answered_and_huge_headers_refused() -> None:
    async with listening(echo) as server:
        async with connected(server.endpoint) as client:
            client.conn.ping(b"12345678")
            client.flush()
            assert (await client.request(body=b"x")).status == 200
        async with connected(server.endpoint) as client:
            client.conn.max_outbound_frame_size = 1 << 20
            client.open([(f"x-{n}", "y" * 1_000) for n in range(MAX_HEADERS_BYTES // 1_000 + 1)])
            async with asyncio.timeout(20):
                await client.closed.wait()
        async with connected(server.endpoint) as client:
            assert (await client.request(body=b"x")).status == 200


@pytest.mark.parametrize("who", ["server", "client"])
async def test_a_goaway_lets_what_is_under_way_be_answered(who: str) -> None:
    may_answer = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await may_answer.wait()
        await answer(send, b"y" * (1 << 20))

    async with listening(app) as server, connected(server.endpoint) as client:
        streams = [client.open([], is_last=True) for _ in range(5)]
        await until(lambda: len(server.server_state.tasks) == 5)
        if who == "server":
            server.should_exit = True
            server.connection.shutdown()
            late = client.open([], is_last=True)
            assert (await client.answer(late)).reset == ErrorCodes.REFUSED_STREAM
            assert client.goaway is not None and client.goaway.last_stream_id == streams[-1]
        else:
            client.conn.close_connection()
            client.flush()
            client.conn.state_machine.state = type(client.conn.state_machine.state).CLIENT_OPEN
            client.conn.ping(b"87654321")  # right behind it, as Node has its window updates
            client.flush()
        may_answer.set()
        for stream_id in streams:
            assert len((await client.answer(stream_id)).body) == 1 << 20
        async with asyncio.timeout(20):
            await client.closed.wait()


async def test_an_idle_connection_is_ended_and_a_stalled_one_too() -> None:
    async with listening(echo, keep_alive_s=0.5) as server:
        async with connected(server.endpoint) as client:
            assert (await client.request(body=b"x")).status == 200
            async with asyncio.timeout(20):
                await client.closed.wait()
            assert client.goaway is not None and client.goaway.error_code == ErrorCodes.NO_ERROR
        async with connected(server.endpoint) as client:
            await client.send(client.open([]), b"half", is_last=False)
            async with asyncio.timeout(20):
                await client.closed.wait()
        _, silent = await asyncio.open_connection(*server.address)
        await until(lambda: server.is_quiet)
        await closed(silent)


async def test_a_slow_application_is_waited_for() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await asyncio.sleep(1)
        await answer(send, b"late")

    async with listening(app, keep_alive_s=0.3) as server, connected(server.endpoint) as client:
        assert bytes((await client.request(body=b"x")).body) == b"late"


def recorded() -> bytes:
    """What an ordinary client says: preface, settings, three requests, a ping."""
    client = Http2Client("http://x:1")
    client.conn.initiate_connection()
    for number in range(3):
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/")]
        client.conn.send_headers(2 * number + 1, [*head, ("x-a", "b" * 50)])
        client.conn.send_data(2 * number + 1, b"body" * 20, end_stream=True)
    client.conn.ping(b"12345678")
    return client.conn.data_to_send()


async def test_mangled_frames_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    good, chance = recorded(), random.Random(20261122)
    with caplog.at_level(logging.ERROR):
        async with listening(echo) as server:
            address = server.address
            for number in range(600):
                bad = bytearray(good)
                for _ in range(chance.randint(1, 8)):
                    at = chance.randrange(len(PREFACE), len(bad))
                    match chance.randrange(3):
                        case 0:
                            bad[at] = chance.randrange(256)
                        case 1:
                            del bad[at : at + chance.randint(1, 20)]
                        case _:
                            bad[at:at] = chance.randbytes(chance.randint(1, 20))
                reader, writer = await asyncio.open_connection(*address)
                writer.write(bad)
                if number % 3:
                    writer.write_eof()
                else:
                    writer.transport.abort()
                async with asyncio.timeout(20):
                    try:
                        while await reader.read(65_536):
                            pass
                    except ConnectionError:
                        pass
                await closed(writer)
            await until(lambda: server.is_quiet)
            async with connected(server.endpoint) as client:
                assert (await client.request(body=b"x")).status == 200
    assert not caplog.records


async def test_a_thousand_connections_leave_nothing_behind() -> None:
    async with listening(echo) as server:
        for _ in range(20):
            clients = [await Http2Client(server.endpoint).connect() for _ in range(50)]
            found = await asyncio.gather(*(c.request(body=b"x") for c in clients))
            assert all(a.status == 200 for a in found)
            for client in clients[::2]:
                client.writer.transport.abort()
            for client in clients:
                await client.close()
        await until(lambda: server.is_quiet)


async def test_a_peer_that_reads_nothing_at_all_is_not_read_from() -> None:
    """Pings without end, and nobody takes the answers: they do not pile up here."""
    async with listening(echo) as server:
        address = server.address
        with socket.create_connection(address) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, PREFACE + b"\0\0\0\4\0\0\0\0\0")
            pings = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    for _ in range(1_000):
                        await loop.sock_sendall(sock, pings * 4_000)
            protocol = server.connection
            assert protocol._transport.get_write_buffer_size() < 4 << 20
