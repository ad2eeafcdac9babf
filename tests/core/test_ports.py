"""The ports that tests write into configurations."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from headrace.core.testing import ports
from headrace.core.testing.ports import free_port


def test_a_free_port_is_none_that_the_system_hands_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "range"
    given.write_text("11500\t60999\n")
    monkeypatch.setattr(ports, "_RANGE", given)
    for _ in range(50):
        port = free_port()
        assert 10_000 <= port < 11_500
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        used, free = listener.getsockname()[1], free_port()
        drawn = iter([used, used, free])
        monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: next(drawn))
        assert free_port() == free
