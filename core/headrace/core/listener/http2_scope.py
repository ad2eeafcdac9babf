"""What an application is told of an HTTP/2 request: its ASGI scope. Pure functions."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from headrace.core.listener.http2_stream import Headers


def connection_scope(
    transport: Any, *, asgi_version: str, app_state: dict[str, Any]
) -> dict[str, Any]:
    """What all requests of a connection have in common."""
    return {
        "type": "http",
        "asgi": {"version": asgi_version, "spec_version": "2.3"},
        "http_version": "2",
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "https" if is_ssl(transport) else "http",
        "root_path": "",
        "state": app_state,
    }


def request_scope(headers: Headers, common: dict[str, Any]) -> dict[str, Any] | None:
    """The scope of a request, `common` in it; None when it is none (CONNECT)."""
    pseudo: dict[bytes, bytes] = {}
    plain: list[tuple[bytes, bytes]] = []
    has_host = False
    for name, value in headers:
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            has_host = has_host or name == b"host"
            plain.append((name, value))
    path = pseudo.get(b":path")
    if path is None:
        return None
    if not has_host and b":authority" in pseudo:
        plain.append((b"host", pseudo[b":authority"]))  # what signatures call it
    raw_path, _, query = path.partition(b"?")
    text = raw_path.decode("latin-1")
    scope = common.copy()
    scope["method"] = pseudo.get(b":method", b"").decode("latin-1")
    scope["path"] = unquote(text) if "%" in text else text
    scope["raw_path"] = raw_path
    scope["query_string"] = query
    scope["headers"] = plain
    scope["state"] = common["state"].copy()
    return scope
