"""Ten thousand connections that say nothing, and a server that has no descriptor left."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_support import boto3_client, create
from fuzz.impatient import IDLE_S, Impatient, impatient_server
from fuzz.sockets import GOOD, dialled, heard, statuses
from fuzz.vitals import Vitals, Watched, cpu_s, sockets, until
from headrace.core.testing.server_process import ServerProcess

MOST_KB = 16  # of memory for an idle connection
LATENCY_S = 0.1  # of a PutRecord beside them, at the median


@contextlib.contextmanager
def idle(
    server: ServerProcess, wanted: int, *, first: bytes = b""
) -> Iterator[list[socket.socket]]:
    """That many connections, or as many as this process may have; each has said `first`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(wanted, hard - 500)
    host, _, port = server.endpoint.removeprefix("http://").partition(":")
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.create_connection((host, int(port)), 20)
            found.append(sock)
            if first:
                sock.sendall(first)
                assert sock.recv(9).startswith(b"HTTP/1.1")
        yield found
    finally:
        for sock in found:
            sock.close()


def put_seconds(kinesis: Any, stream: str) -> list[float]:
    """How long each of some PutRecords takes, in order of length."""
    took = []
    for _ in range(50):
        began = time.monotonic()
        kinesis.put_record(StreamName=stream, Data=b"x" * 100, PartitionKey="k")
        took.append(time.monotonic() - began)
    return sorted(took)


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        pytest.param(10_000, b"", id="ten thousand silent ones"),
        pytest.param(10_000, GOOD, id="ten thousand after a request", marks=pytest.mark.slow),
    ],
)
def test_idle_connections(watched: Watched, wanted: int, first: bytes) -> None:
    watched.begin()
    create(watched.kinesis, f"beside-{wanted}-{len(first)}")
    alone_s = put_seconds(watched.kinesis, f"beside-{wanted}-{len(first)}")
    before = Vitals.of(watched.pid)
    with idle(watched.process, wanted, first=first) as connections:
        count = len(connections)
        until(
            lambda: Vitals.of(watched.pid).descriptors >= before.descriptors + count,
            "all are accepted",
        )
        each_kb = (Vitals.of(watched.pid).rss_mb - before.rss_mb) * 1024 / count
        beside_s = put_seconds(watched.kinesis, f"beside-{wanted}-{len(first)}")
        cpu_before = cpu_s(watched.pid)
        time.sleep(0.5)
        idle_cpu_s = 2 * (cpu_s(watched.pid) - cpu_before)
    print(
        f"{count} connections: {each_kb:.1f} KB each, {idle_cpu_s:.2f} s of CPU a second; "
        f"PutRecord {beside_s[25] * 1000:.1f} ms beside them, {alone_s[25] * 1000:.1f} ms alone"
    )
    if count < wanted:
        print(f"this machine allows no more than {count} connections")
    assert each_kb < MOST_KB
    assert beside_s[25] < LATENCY_S
    assert idle_cpu_s < 0.3
    watched.is_well(grown_mb=150)


def test_they_are_closed_when_idle_for_long(impatient: Impatient) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(dialled(impatient.endpoint)) for _ in range(200)]
        for sock in connections[::2]:
            with contextlib.suppress(ConnectionError):  # idle for long already, on a slow machine
                sock.sendall(GOOD)
        for sock in connections:
            heard(sock, IDLE_S * 3 + 5)
    impatient.comes_to_rest()


def test_no_more_than_allowed(tmp_path: Path) -> None:
    with impatient_server(tmp_path / "stream", max_connections=20, idle_s=60) as server:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(dialled(server.endpoint)) for _ in range(20)]
            until(lambda: len(server.state.connections) == 20, "they are accepted")
            for _ in range(30):
                with dialled(server.endpoint) as sock:
                    assert heard(sock) == b""
            for sock in connections:  # those that are open stay so
                sock.sendall(GOOD)
                assert sock.recv(20).startswith(b"HTTP/1.1 200")
        until(lambda: not server.state.connections, "they are gone")
        with dialled(server.endpoint) as sock:
            sock.sendall(GOOD)
            assert sock.recv(20).startswith(b"HTTP/1.1 200")


def test_a_limit_on_files_leaves_the_store_its_own(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "stream", max_open_files=200) as server:
        kinesis = boto3_client(server.endpoint)
        create(kinesis, "before")
        with idle(server, 400):
            time.sleep(0.3)
            assert Vitals.of(server.pid).descriptors < 200
            for number in range(5):  # each takes files
                create(kinesis, f"s{number}")
            assert put_seconds(kinesis, "before")[25] < LATENCY_S
        log = server.log_text
        assert log.count("no more are taken") == 1, log


def test_without_a_descriptor_left_it_neither_spins_nor_ends(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "stream") as server:
        kinesis = boto3_client(server.endpoint)
        create(kinesis, "s")
        put_seconds(kinesis, "s")  # a stream nobody has written to of late has no file open
        used, connected = Vitals.of(server.pid).descriptors, sockets(server.pid)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
        with idle(server, 100):
            time.sleep(0.3)
            before_s = cpu_s(server.pid)
            time.sleep(0.5)
            assert cpu_s(server.pid) - before_s < 0.2, "it spins"
            assert put_seconds(kinesis, "s")[25] < LATENCY_S
        until(lambda: sockets(server.pid) <= connected, "they are given back")
        with dialled(server.endpoint) as sock:
            sock.sendall(GOOD)
            sock.settimeout(10)
            assert statuses(sock.recv(1_000)) == [200]
        assert len(server.log_text) < 20_000
