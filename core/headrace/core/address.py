"""Where a server listens: an address as it is written, who can reach it, and a socket there."""

from __future__ import annotations

import ipaddress
import os
import socket

from headrace.core.errors import ConfigError


def split_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:4567`, `[::1]:4567` -> host and port. Raises ValueError on anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("an address and a port, such as 127.0.0.1:4567")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int, *, has_keys: bool) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises ConfigError saying what to do: for an address that others can reach, without keys to tell
    them apart, and for one that cannot be had.
    """
    if not has_keys and not is_loopback(host):
        raise ConfigError(
            f"refusing to listen on {host} without access keys",
            hint="give keys, or listen on 127.0.0.1",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with its protocol named: asyncio looks for that before it turns off Nagle's algorithm, which
    # would hold back an answer's second part, where it has one, for 40 ms
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            hint="another process has the port, or the address is not this machine's",
        ) from error
    sock.listen(2048)
    return sock
