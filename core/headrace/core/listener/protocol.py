"""One port for HTTP/1.1 and HTTP/2: the first bytes of a connection say which it is.

An HTTP/2 client always speaks first, with a preface no HTTP/1.1 request can begin with. Looking at
it covers every way clients come to HTTP/2: by prior knowledge in the clear (the JavaScript SDK, the
Java SDK on http://), by ALPN over TLS, and over TLS without ALPN (Java SDKs before 2025). After the
first bytes the connection belongs to `Http1Protocol` or to `Http2Protocol`, and nothing of this
file stands between the socket and it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from headrace.core.listener.guard import Guard
from headrace.core.listener.http1 import Http1Protocol

ALPN_PROTOCOLS = ["h2", "http/1.1"]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n|$)", re.IGNORECASE)


class FirstBytesProtocol(asyncio.Protocol):
    """A connection that has not said yet which protocol it speaks."""

    alpn_protocols: ClassVar[list[str]] = ALPN_PROTOCOLS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard or Guard()
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: Any = None
        self._silence: asyncio.TimerHandle | None = None
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if not self._guard.takes(len(self._connections)):
            self._transport.abort()
            return
        self._connections.add(self)
        self._silence = self._loop.call_later(self._config.timeout_keep_alive, transport.close)

    def data_received(self, data: bytes) -> None:
        self._first += data
        if len(self._first) < len(PREFACE) and PREFACE.startswith(self._first):
            return  # may become either
        self._leave()
        protocol = self._protocol_class()(
            self._config, self._server_state, self._app_state, self._loop, guard=self._guard
        )
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(_without_upgrade(self._first))

    def _protocol_class(self) -> Any:
        if not self._first.startswith(PREFACE):
            return Http1Protocol
        from headrace.core.listener.http2 import Http2Protocol  # not at start: few need it

        return Http2Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def shutdown(self) -> None:
        """uvicorn calls this on every connection when the server is asked to end."""
        self._transport.close()

    @property
    def _connections(self) -> set[Any]:
        return self._server_state.connections

    def _leave(self) -> None:
        self._connections.discard(self)
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


def _without_upgrade(first: bytes) -> bytes:
    """An HTTP/1.1 request that offers HTTP/2 (`Upgrade: h2c`) goes on without the offer.

    A server may decline it, but httptools takes such a request to end with its headers. Clients
    that do so (Java's own, curl --http2) do it in a connection's first request.
    """
    if b"h2c" not in first:
        return first
    head, end, body = first.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"", head) + end + body
