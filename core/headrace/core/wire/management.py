"""What is not the Kinesis API: health. A FastAPI application, made when first asked for."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from headrace.core.errors import AccessDenied
from headrace.core.service.catalog import Catalog
from headrace.core.wire import codec


def package_version() -> str:
    """The installed version; `0` in a checkout that is not installed."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "0"


def management_app(catalog: Catalog) -> FastAPI:
    """The application for every path the Kinesis API does not have."""
    app = FastAPI(
        title="Headrace",
        version=package_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # they lead to wherever the Host header says
    )

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        """Whether it serves: streams by status, and those it refuses, by name."""
        statuses: dict[str, int] = {}
        for stream in catalog.state.streams.streams.values():
            statuses[stream.status] = statuses.get(stream.status, 0) + 1
        refused = catalog.refused()
        return {
            "ok": not refused,
            "version": package_version(),
            "streams": statuses,
            "refused": refused,
        }

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown_route(request: Request, error: HTTPException) -> Response:
        """As AWS answers what it cannot assign to an operation."""
        status, headers, body = codec.encode_error(
            AccessDenied("Unable to determine service/operation name to be authorized"), ""
        )
        return Response(body, status, {k.decode(): v.decode() for k, v in headers})

    return app
