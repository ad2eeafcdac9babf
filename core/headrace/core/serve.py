"""The whole process of `headrace serve`: one server, from its start to a signal.

What it prints, and its exit code, are what whoever started it goes by.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from headrace.core.allocator import keep_freed_memory, leave_out_of_collections
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.interpreter import hand_over_soon
from headrace.core.server import Server, ServerConfig


def serve(config: ServerConfig) -> int:
    """Run a server until SIGTERM or SIGINT. Returns the exit code.

    Prints `headrace: listening on http://HOST:PORT` on standard output when it is ready.
    """
    import uvloop

    keep_freed_memory()
    hand_over_soon()
    try:
        uvloop.run(_run(config))
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


async def _run(config: ServerConfig) -> None:
    server = Server(config)
    await server.start()
    leave_out_of_collections()
    if server.new_certificate is not None:
        print(
            f"headrace: made a certificate for clients to trust: {server.new_certificate}",
            file=sys.stderr,
        )
    print(f"headrace: listening on {server.endpoint}", flush=True)
    stopping = asyncio.Event()
    loop: Any = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ended = asyncio.create_task(server.wait())
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, asked):
        task.cancel()
    await server.stop()
