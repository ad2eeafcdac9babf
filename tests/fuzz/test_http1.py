"""HTTP/1.1 as no library speaks it: half of it, too much, or something else."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuzz.exchange import SIGNATURE
from fuzz.impatient import Impatient, impatient_server
from fuzz.sockets import GOOD, HEAD, dialled, heard, said, statuses
from fuzz.vitals import Vitals, Watched, forget_peak, peak_mb
from headrace.core.listener.guard import MAX_HEAD_BYTES, MAX_PIPELINED

# Half of it


@pytest.mark.parametrize("cut", [1, 10, 40, len(HEAD) - 1, len(HEAD) + 10, len(GOOD) - 1])
@pytest.mark.parametrize("end", ["close", "reset", "half close"])
def test_a_request_that_stops(impatient: Impatient, cut: int, end: str) -> None:
    for _ in range(20):
        # given up already, where this test was held up
        with dialled(impatient.endpoint) as sock, contextlib.suppress(OSError):
            sock.sendall(GOOD[:cut])
            if end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if end == "half close":
                sock.shutdown(socket.SHUT_WR)
    impatient.comes_to_rest()


def test_requests_that_go_no_further_are_given_up(impatient: Impatient) -> None:
    parts = [b"P", b"PRI * HTTP/2", HEAD[:50], HEAD + b"Content-Length: 9\r\n\r\n{"]
    with ThreadPoolExecutor(len(parts)) as pool:
        assert list(pool.map(lambda part: said(impatient.endpoint, part), parts)) == [[]] * 4


# Too much


def test_a_head_is_bounded(impatient: Impatient) -> None:
    many = b"".join(b"x-%d: y\r\n" % n for n in range(10_000))
    assert said(impatient.endpoint, HEAD, many, b"\r\n") == [431]
    assert said(impatient.endpoint, HEAD, b"x: " + b"y" * (1 << 20), b"\r\n\r\n") == [431]
    assert said(impatient.endpoint, b"POST /?" + b"y" * (1 << 20)) == [431]
    assert said(impatient.endpoint, b"POST / HTTP/1.1\r\n" + b"y" * (1 << 20)) == [431]
    assert said(impatient.endpoint, b"\r\n" * (1 << 20)) == [431]
    just_fits = (
        HEAD
        + b"x: "
        + b"y" * (MAX_HEAD_BYTES - 1_000)
        + b"\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert said(impatient.endpoint, just_fits, timeout_s=9) == [200]


def test_headers_without_end_take_no_memory(watched: Watched) -> None:
    watched.begin()
    before = Vitals.of(watched.pid).rss_mb
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for begin, piece in [
        (HEAD, b"x-y: z\r\n" * 10_000),
        (HEAD + b"x: ", b"y" * 100_000),
        (chunked + b"2\r\n{}\r\n0\r\n", b"x-y: z\r\n" * 10_000),
        (chunked + b"2\r\n{}\r\n0\r\nx:", b"y" * 100_000),
        (chunked + b"2;", b"y" * 100_000),
        (chunked, b"0" * 100_000),
    ]:
        with dialled(watched.process.endpoint) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(begin)
                for _ in range(300):
                    sock.sendall(piece)
            heard(sock)
    assert Vitals.of(watched.pid).rss_mb - before < 20
    watched.is_well()


def test_a_body_that_is_too_large_is_answered(tmp_path: Path) -> None:
    """Also when the client looks for an answer only after it has sent everything."""
    body = b" " * (20 << 20)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    with impatient_server(tmp_path / "stream", patience_s=10) as server:
        plain = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        for rest in (plain, chunked % (len(body), body)):
            with dialled(server.endpoint) as sock:
                sock.sendall(HEAD + rest)
                sock.settimeout(30)
                assert statuses(sock.recv(1_000)) == [413]


def test_trailers_are_no_headers(impatient: Impatient) -> None:
    """Or a proxy in between would have checked less than is believed here."""
    unsigned = HEAD.replace(b"Authorization", b"X-Nothing") + b"Transfer-Encoding: chunked\r\n\r\n"
    trailer = b"Authorization: " + SIGNATURE + b"\r\n\r\n"
    with dialled(impatient.endpoint) as sock:
        sock.sendall(unsigned + b"2\r\n{}\r\n0\r\n" + trailer)
        assert b"MissingAuthenticationToken" in sock.recv(2_000)


def test_chunks_of_a_byte_take_no_more_memory_than_others(watched: Watched) -> None:
    forget_peak(watched.pid)
    before = peak_mb(watched.pid)
    piece = b"1\r\n \r\n" * 100_000
    with dialled(watched.process.endpoint) as sock:
        sock.settimeout(20)
        sock.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            sock.sendall(piece)
        sock.sendall(b"2\r\n{}\r\n0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert peak_mb(watched.pid) - before < 40
    watched.is_well()


def test_pipelined_requests_are_answered_in_order_or_not_at_all(impatient: Impatient) -> None:
    few = MAX_PIPELINED // 2
    with dialled(impatient.endpoint) as sock:
        sock.sendall(GOOD * few)
        answer = b""
        while answer.count(b"HTTP/1.1 200") < few or not answer.endswith(b"}"):
            answer += sock.recv(100_000)
    assert statuses(answer) == [200] * few
    many = said(impatient.endpoint, GOOD * 2_000)
    assert set(many) <= {200} and len(many) <= MAX_PIPELINED + 1
    # garbage after good requests takes nothing from them
    assert said(impatient.endpoint, GOOD * 3 + b"garbage\r\n\r\n") == [200] * 3
    impatient.comes_to_rest()


def test_a_flood_of_pipelined_requests_takes_no_memory(watched: Watched) -> None:
    before = Vitals.of(watched.pid).rss_mb
    for request in (b"POST / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", GOOD):
        for _ in range(5):
            said(watched.process.endpoint, *[request * 5_000] * 20)
    assert Vitals.of(watched.pid).rss_mb - before < 60  # FastAPI is among it
    watched.is_well(grown_mb=100)


# Lies


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Content-Length: -2\r\n\r\n{}",
        b"Content-Length: 2x\r\n\r\n{}",
        b"Content-Length: 0x2\r\n\r\n{}",
        b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}",
        b"Content-Length:\r\n\r\n{}",
        b"Transfer-Encoding: gzip, identity\r\n\r\n{}",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
        b" Content-Length: 2\r\n\r\n{}",
        b"Content-Length : 2\r\n\r\n{}",
        b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        b"X\x00: a\r\n\r\n",
        b"X: a\x00b\r\n\r\n",
        b": a\r\n\r\n",
        b"no colon\r\n\r\n",
    ],
    ids=lambda rest: repr(rest[:40]),
)
def test_what_could_be_read_in_two_ways_is_refused(impatient: Impatient, rest: bytes) -> None:
    smuggled = b"POST /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    found = said(impatient.endpoint, HEAD + rest + smuggled)
    assert found in ([400], [])


@pytest.mark.parametrize(
    "line",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 300,  # TLS
        b"GET /",
        b"FOO / HTTP/1.1",
        b"GET / HTTP/9.9",
        b"GET / HTTP/2.0",
        b"get / http/1.1",
        b"\x00" * 100,
        b"CONNECT a:1 HTTP/1.1",
        b"GET http://[::1/ HTTP/1.1",
        b"GET \xff HTTP/1.1",
        b"GET  HTTP/1.1",
        b"SSH-2.0-x",
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"\xff\xfb\x01" * 20,
    ],
    ids=repr,
)
def test_what_is_no_request(impatient: Impatient, line: bytes) -> None:
    assert said(impatient.endpoint, line + b"\r\n\r\n", timeout_s=9) in ([400], [403], [])


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0", b"x" * 1_000])
def test_an_upgrade_is_declined(impatient: Impatient, protocol: bytes) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    offer += b"Upgrade: %s\r\n" % protocol
    request = HEAD + offer + b"Content-Length: 2\r\n\r\n{}"
    # on a first request, and on a later one
    assert all(200 <= s < 500 for s in said(impatient.endpoint, request, timeout_s=9))
    found = said(impatient.endpoint, GOOD, request, b"x" * 1_000, timeout_s=9)
    assert found[0] == 200 and all(200 <= s < 500 for s in found)


def test_http_1_0_and_expectations(impatient: Impatient) -> None:
    assert said(impatient.endpoint, GOOD.replace(b"HTTP/1.1", b"HTTP/1.0", 1)) == [200]
    with dialled(impatient.endpoint) as sock:
        sock.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    with dialled(impatient.endpoint) as sock:
        sock.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413")
    assert said(
        impatient.endpoint,
        HEAD + b"Expect: miracles\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        timeout_s=9,
    ) == [200]


# At random


def mangled(chance: random.Random) -> bytes:
    """A conversation of a few requests with some bytes of it changed, lost or added."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\nx: y\r\n\r\n"
    text = bytearray(
        b"".join(chance.choices([GOOD, chunked, b"GET /healthz HTTP/1.1\r\n\r\n"], k=3))
    )
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(text))
        match chance.randrange(4):
            case 0:
                text[at] = chance.randrange(256)
            case 1:
                del text[at : at + chance.randint(1, 30)]
            case 2:
                text[at:at] = chance.choice([b"\r\n", b"\r", b"\n", b"\x00", b":", b" ", b"\xff"])
            case _:
                text[at:at] = chance.randbytes(chance.randint(1, 30))
    return bytes(text)


def run_mangled(watched: Watched, chance: random.Random, rounds: int) -> None:
    watched.begin()
    for _ in range(rounds):
        text = mangled(chance)
        with dialled(watched.process.endpoint) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(text)
                sock.shutdown(socket.SHUT_WR)
            try:
                found = statuses(heard(sock, 10))
            except TimeoutError:
                raise AssertionError(f"the server waits for more after {text!r}") from None
            assert all(200 <= status < 500 for status in found), (found, text)
    watched.is_well()


def test_mangled_requests(watched: Watched, chance: random.Random) -> None:
    run_mangled(watched, chance, 500)


@pytest.mark.slow
def test_mangled_requests_for_long(watched: Watched, chance: random.Random) -> None:
    run_mangled(watched, chance, 10_000)
