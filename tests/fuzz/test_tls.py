"""Peers that begin TLS and do not finish it, or speak something else to a TLS port."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator

import pytest

from fuzz.frames import HELLO
from fuzz.sockets import GOOD, dialled, heard
from fuzz.vitals import Watched, sockets, until
from headrace.core.testing.server_process import ServerProcess

HANDSHAKE_S = 60  # the event loop's own bound


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tls") / "stream"
    with ServerProcess(folder, arguments=("--tls",)) as process:
        yield process


def endpoint(server: ServerProcess) -> str:
    return server.endpoint.replace("https", "http")


def client_hello() -> bytes:
    """What a TLS client says first."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def works(server: ServerProcess) -> None:
    context = ssl.create_default_context(cafile=server.target.certificate)
    with (
        dialled(endpoint(server)) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(GOOD)
        assert secure.recv(100).startswith(b"HTTP/1.1 200")


def test_what_is_no_tls(tls: ServerProcess, chance: random.Random) -> None:
    hello = client_hello()
    before = sockets(tls.pid)
    wrong = [GOOD, HELLO, b"", b"\x00" * 1_000, chance.randbytes(500), b"\x16\x03\x01\xff\xff" * 9]
    for _ in range(150):
        at = chance.randrange(len(hello))
        wrong.append(hello[:at] + chance.randbytes(chance.randint(1, 9)) + hello[at:])
        wrong.append(hello[:at])
    for text in wrong:
        with dialled(endpoint(tls)) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(text)
            if chance.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: sockets(tls.pid) <= before, "they are closed")
    works(tls)
    assert "Traceback" not in tls.log_text
    assert len(tls.log_text) < 20_000, "it writes a line for whoever asks for it"


def test_a_tls_client_at_a_plain_port(watched: Watched) -> None:
    for _ in range(20):
        with dialled(watched.process.endpoint) as sock:
            sock.sendall(client_hello())
            assert b"400" in heard(sock)
    watched.is_well()


@pytest.mark.slow
def test_a_handshake_that_stops_is_given_up(tls: ServerProcess) -> None:
    before = sockets(tls.pid)
    with contextlib.ExitStack() as stack:
        for cut in (0, 1, 5, 50, None):
            stack.enter_context(dialled(endpoint(tls))).sendall(client_hello()[:cut])
        time.sleep(1)
        assert sockets(tls.pid) >= before + 5
        most_s = HANDSHAKE_S + 20
        until(lambda: sockets(tls.pid) <= before, "they are closed", most_s)
    works(tls)
