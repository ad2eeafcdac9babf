"""A server that gives up on peers quickly, in a thread of its own on the event loop of `serve`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvloop

from fuzz.vitals import until
from headrace.core.server import Server, ServerConfig

PATIENCE_S = 0.3
IDLE_S = 0.8


class Impatient:
    """The server, and what is left in its loop."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self.endpoint = server.endpoint
        self._tasks = len(self.run(_tasks()))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    @property
    def state(self) -> Any:
        """What uvicorn knows: its connections and tasks."""
        return self._server._uvicorn.server_state

    @property
    def held_bytes(self) -> int:
        found: int = self._server._uvicorn.config.http_protocol_class.keywords["guard"].held_bytes  # type: ignore[attr-defined]
        return found

    def is_quiet(self) -> bool:
        """No connection, nothing under way, nothing kept."""
        return (
            not self.state.connections
            and not self.state.tasks  # not all of them are asyncio's
            and not self.held_bytes
            and len(self.run(_tasks())) <= self._tasks
        )

    def comes_to_rest(self) -> None:
        until(self.is_quiet, "nothing is left behind")


async def _tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks()


@contextlib.contextmanager
def impatient_server(data: Path, **config: Any) -> Iterator[Impatient]:
    started: concurrent.futures.Future[Impatient] = concurrent.futures.Future()
    over = threading.Event()
    options = {"patience_s": PATIENCE_S, "idle_s": IDLE_S, **config}

    async def live() -> None:
        server = Server(ServerConfig(port=0, data=data, **options))
        await server.start()
        # it tells what it knows from another thread, as it is about to wait
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, lambda: started.set_result(Impatient(server, loop)))
        await asyncio.to_thread(over.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: uvloop.run(live()))
    thread.start()
    try:
        yield started.result(30)
    finally:
        over.set()
        thread.join(30)


class Alarms(logging.Handler):
    """Collects what is logged as an error, or as an exception nobody took."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))
