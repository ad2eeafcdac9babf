"""HTTP/2 as no library speaks it: frames at random, floods, windows that never open."""

from __future__ import annotations

import contextlib
import random
import socket
import time

import pytest

from fuzz import frames
from fuzz.bystander import Bystander
from fuzz.frames import HELLO, frame, request, settings, window
from fuzz.impatient import PATIENCE_S, Impatient
from fuzz.sockets import SOON_S, dialled, heard, is_closed
from fuzz.steadiness import Gaps, assert_steady
from fuzz.vitals import Watched, cpu_s, forget_peak, peak_mb, sockets, until
from headrace.core.listener.guard import MIN_PROGRESS_BYTES
from headrace.core.listener.http2_state import (
    MAX_FRAME_BYTES,
    MAX_HEADERS_BYTES,
    MAX_SETTINGS,
    MAX_STREAMS,
)

GOODBYE = frame(frames.GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x01")  # PROTOCOL_ERROR
LONGEST_S = 1.0  # that others wait while a flood is dealt with


def flood(
    endpoint: str, begin: bytes, flooding: bytes, *, mb: int = 20, most_s: float = 0.3
) -> None:
    """Send so much of something, taking no notice of answers, until the connection is closed."""
    with dialled(endpoint) as sock:
        sock.sendall(begin)
        sock.setblocking(False)
        sent, end_s, at = 0, time.monotonic() + most_s, 0
        while sent < mb << 20 and time.monotonic() < end_s:
            try:
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1 << 20)
                count = sock.send(flooding[at:])
                sent, at = sent + count, (at + count) % len(flooding)
            except BlockingIOError:
                time.sleep(0.001)
            except ConnectionError:
                return


OPEN_STREAMS = HELLO + b"".join(
    frame(frames.HEADERS, frames.END_HEADERS, 2 * n + 1, frames.fields("ListStreams"))
    for n in range(MAX_STREAMS)
)
RAPID_RESETS = b"".join(
    frame(frames.HEADERS, 5, 2 * n + 1, frames.fields("ListStreams"))
    + frame(frames.RST_STREAM, 0, 2 * n + 1, b"\0\0\0\x08")
    for n in range(20_000)
)
FLOODS = {
    "rapid resets": (HELLO, RAPID_RESETS),
    "settings": (HELLO, settings((4, 1), (4, 65_535)) * 1_000),
    "settings that move a thousand windows": (OPEN_STREAMS, settings((4, 1), (4, 65_535)) * 1_000),
    "settings acknowledged": (HELLO, frame(frames.SETTINGS, frames.ACK, 0) * 1_000),
    "pings": (HELLO, frame(frames.PING, 0, 0, b"12345678") * 1_000),
    "priorities": (HELLO, frame(frames.PRIORITY, 0, 1, b"\0\0\0\x03\xff") * 1_000),
    "empty data": (OPEN_STREAMS, frame(frames.DATA, 0, 1) * 1_000),
    "padding": (OPEN_STREAMS, frame(frames.DATA, 8, 1, b"\xff" + b"\0" * 255) * 1_000),
    "windows of a stream": (OPEN_STREAMS, window(1, 1) * 1_000),
    "windows of the connection": (OPEN_STREAMS, window(0, 1) * 1_000),
    "unknown frames": (HELLO, frame(0xEE, 0, 1, b"x" * 100) * 1_000),
    "continuations": (
        HELLO,
        frame(frames.HEADERS, 0, 1, b"\x00") + frame(frames.CONTINUATION, 0, 1) * 1_000,
    ),
    "large continuations": (
        HELLO,
        frame(frames.HEADERS, 0, 1, b"\x00")
        + frame(frames.CONTINUATION, 0, 1, b"x" * MAX_FRAME_BYTES),
    ),
    "a frame of 16 MiB": (HELLO, b"\xff\xff\xff\x00\x00\0\0\0\x01" + b"x" * 100_000),
    "a table that grows": (
        HELLO,
        frame(frames.HEADERS, 5, 1, (b"\x40\x01a\x7f\x81\x1f" + b"y" * 4_000) * 15),
    ),
    "a header that is repeated": (
        HELLO,
        frame(frames.HEADERS, 5, 1, b"\x40\x01a\x7f\x81\x1f" + b"y" * 4_000 + b"\xbe" * 50_000),
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_holds_up_nobody_and_fills_nothing(watched: Watched, name: str) -> None:
    begin, flooding = FLOODS[name]
    watched.begin()
    forget_peak(watched.pid)
    before_mb, before_s = peak_mb(watched.pid), cpu_s(watched.pid)
    with Bystander(watched.process.endpoint) as bystander:
        flood(watched.process.endpoint, begin, flooding)
    longest_s = bystander.longest_s
    if longest_s >= LONGEST_S:  # a busy machine may have held this test up: once more
        with Bystander(watched.process.endpoint) as bystander:
            flood(watched.process.endpoint, begin, flooding)
        longest_s = min(longest_s, bystander.longest_s)
    grown_mb = peak_mb(watched.pid) - before_mb
    print(f"{name}: {longest_s:.3f} s, {grown_mb:.1f} MB, CPU {cpu_s(watched.pid) - before_s:.2f}")
    assert longest_s < LONGEST_S
    assert grown_mb < 40
    watched.is_well()


def test_what_is_refused_is_not_kept(watched: Watched) -> None:
    """Frames that say they are too large, and headers without an end, on some connections."""
    continuation = frame(frames.CONTINUATION, 0, 1, b"x" * MAX_FRAME_BYTES)
    for text in (
        b"\xff\xff\xff\x00\x00\0\0\0\x01" + b"x" * (15 << 20),
        frame(frames.HEADERS, 0, 1, b"\x00") + continuation * 60,
    ):
        forget_peak(watched.pid)
        before_mb = peak_mb(watched.pid)
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                sock = stack.enter_context(dialled(watched.process.endpoint))
                with contextlib.suppress(ConnectionError):
                    sock.sendall(HELLO + text)
            assert peak_mb(watched.pid) - before_mb < 20
    watched.is_well()


# Windows


def test_answers_nobody_takes_are_given_up(impatient: Impatient) -> None:
    """A thousand streams whose windows never open; pings keep the connection alive."""
    with dialled(impatient.endpoint) as sock:
        sock.sendall(frames.PREFACE + settings((frames.INITIAL_WINDOW_SIZE, 0)))
        for n in range(MAX_STREAMS):
            sock.sendall(request(2 * n + 1, "ListStreams"))
        sock.settimeout(0.01)
        for _ in range(int(SOON_S * 20)):
            sock.sendall(frame(frames.PING, 0, 0, b"12345678"))
            with contextlib.suppress(TimeoutError):
                sock.recv(100_000)
            time.sleep(0.05)
            if not impatient.held_bytes:
                break
        assert not impatient.held_bytes
        assert not is_closed(sock)
    impatient.comes_to_rest()


def test_a_body_that_comes_slowly_loses_its_stream_only(impatient: Impatient) -> None:
    began = time.monotonic()
    with dialled(impatient.endpoint) as sock:
        sock.sendall(HELLO + frame(frames.HEADERS, 4, 1, frames.fields("ListStreams")))
        answer, stream = b"", 3
        sock.settimeout(0.05)
        while frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08") not in answer:
            assert time.monotonic() - began < SOON_S
            sock.sendall(frame(frames.DATA, 0, 1, b" ") + request(stream, "ListStreams"))
            stream += 2
            with contextlib.suppress(TimeoutError):
                answer += sock.recv(100_000)
            time.sleep(0.02)
        assert time.monotonic() - began > PATIENCE_S / 2
        assert not is_closed(sock)
    impatient.comes_to_rest()


def test_a_body_that_comes_steadily_is_waited_for(impatient: Impatient) -> None:
    given_up = frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")

    def is_waited_for(gaps: Gaps) -> bool:
        with dialled(impatient.endpoint) as sock:
            sock.sendall(HELLO + frame(frames.HEADERS, 4, 1, frames.fields("ListStreams")))
            for _ in range(10):
                gaps.note()
                sock.sendall(frame(frames.DATA, 0, 1, b" " * MIN_PROGRESS_BYTES))
                time.sleep(PATIENCE_S / 4)
            gaps.note()
            sock.sendall(frame(frames.DATA, 1, 1, b"{}"))
            answer = b""
            while b"StreamNames" not in answer and given_up not in answer:
                part = sock.recv(100_000)
                assert part, "the connection was closed"
                answer += part
            return b"StreamNames" in answer

    assert_steady(is_waited_for, PATIENCE_S)
    impatient.comes_to_rest()


def test_headers_are_bounded(impatient: Impatient) -> None:
    with dialled(impatient.endpoint) as sock:
        block = b"\x00\x01x\x7f\x81\x7f" + b"y" * (MAX_HEADERS_BYTES // 2)
        sock.sendall(HELLO + frame(frames.HEADERS, 0, 1, block))
        for _ in range(3):
            with contextlib.suppress(ConnectionError):
                sock.sendall(frame(frames.CONTINUATION, 0, 1, b"z" * (MAX_HEADERS_BYTES // 2)))
        assert GOODBYE in heard(sock)
    impatient.comes_to_rest()


def test_settings_are_not_for_floods(impatient: Impatient) -> None:
    """Each makes the server go through all streams of the connection."""
    with dialled(impatient.endpoint) as sock:
        sock.sendall(HELLO + settings((4, 1)) * (MAX_SETTINGS + 1))
        assert GOODBYE in heard(sock)
    impatient.comes_to_rest()


# At random


def run_random_frames(watched: Watched, chance: random.Random, rounds: int) -> None:
    watched.begin()
    for number in range(rounds):
        text = b"".join(frames.any_frame(chance) for _ in range(chance.randint(1, 40)))
        begin = HELLO + (request(1, "ListStreams") if number % 2 else b"")
        with dialled(watched.process.endpoint) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(begin + text)
            if number % 3:
                sock.shutdown(socket.SHUT_WR)
                heard(sock, 10)
    watched.is_well()


def test_frames_at_random(watched: Watched, chance: random.Random) -> None:
    run_random_frames(watched, chance, 80)


@pytest.mark.slow
def test_frames_at_random_for_long(watched: Watched, chance: random.Random) -> None:
    run_random_frames(watched, chance, 8_000)


def test_connections_that_end_in_the_middle(watched: Watched) -> None:
    """Half a preface, half a frame, half a request: nothing of it stays."""
    before = sockets(watched.pid)
    whole = HELLO + request(1, "ListStreams")
    for cut in range(1, len(whole), 3):
        with dialled(watched.process.endpoint) as sock:
            sock.sendall(whole[:cut])
    until(lambda: sockets(watched.pid) <= before, "they are closed")
    watched.is_well()
