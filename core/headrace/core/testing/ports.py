"""Ports that nobody else is given between choosing one and listening on it."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST_PORT = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A free port of this machine's loopback address, to be written into a configuration.

    It is below those that the system hands out by itself, to listeners on port 0 and to every
    outgoing connection: one of these, once let go, may be somebody else's a moment later.
    """
    given = _RANGE.read_text().split()[0] if _RANGE.exists() else "32768"
    end = max(int(given), LOWEST_PORT + 1_000)
    while True:
        port = random.SystemRandom().randrange(LOWEST_PORT, end)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:  # somebody listens there
            continue
