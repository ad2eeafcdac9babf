"""The demo's web server: a few pages, some 404s, some 500s, and an access log as nginx writes it.

Runs as a process of its own: `python -m headrace.pipeline.demo.site LOG`. The log file is opened
again when somebody has renamed it, so a rotation needs no signal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from logging.handlers import WatchedFileHandler
from typing import Any
from zlib import crc32

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ITEM_COUNT = 400


class Site:
    """An ASGI application that logs every answer in the combined format."""

    def __init__(self, log_file: str) -> None:
        self._handler = WatchedFileHandler(log_file, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._log = logging.Logger("access")
        self._log.addHandler(self._handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, body = answer(scope["method"], scope["path"])
        headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._log.info(_combined(scope, status, len(body)))


def answer(method: str, path: str) -> tuple[int, bytes]:
    """Status and page of a request; the same for the same path, so that a run can be repeated."""
    if path == "/":
        return 200, _page("Mill supplies", "Sluices, wheels, millstones.")
    if path == "/orders" and method == "POST":
        return 201, _page("Thank you", "The order is in.")
    if path == "/old":
        return 301, b""
    if path == "/report":
        return 500, _page("Something broke", "The report could not be made.")
    name = path.removeprefix("/items/")
    if name != path and name.isdigit() and int(name) < _ITEM_COUNT:
        size = crc32(path.encode()) % 3000
        return 200, _page(f"Item {name}", "wood and iron " * (size // 14))
    return 404, _page("Not here", "There is no such page.")


def _page(title: str, text: str) -> bytes:
    return f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{text}</p>".encode()


def _combined(scope: Scope, status: int, size: int) -> str:
    target = scope["raw_path"].decode("ascii")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("ascii")
    headers = dict(scope["headers"])
    time = datetime.now().astimezone().strftime("%d/%b/%Y:%H:%M:%S %z")
    referer = headers.get(b"referer", b"-").decode("latin-1")
    agent = headers.get(b"user-agent", b"-").decode("latin-1")
    host = scope["client"][0] if scope["client"] else "-"
    request = f"{scope['method']} {target} HTTP/{scope['http_version']}"
    return f'{host} - - [{time}] "{request}" {status} {size} "{referer}" "{agent}"'


async def _serve(log_file: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Site(log_file), access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await server.serve(sockets=[listener])


def _end_with_parent(server: uvicorn.Server) -> None:
    """Wait for stdin to close, which it does however the demo ends."""
    os.read(0, 1)
    server.should_exit = True


def main() -> None:
    asyncio.run(_serve(sys.argv[1]))


if __name__ == "__main__":
    main()
