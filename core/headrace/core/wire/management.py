"""What is not the Kinesis API: health, usage. A FastAPI application, made when first asked for.

With access keys configured, what tells about streams is for requests that are signed with one of
them (as those of the API are), and shows the streams of the key's account in the signed region.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from headrace.core.errors import AccessDenied, InternalFailure, ServiceError, StorageError
from headrace.core.limits import DEFAULT_ACCOUNT, DEFAULT_REGION
from headrace.core.service.caller import Caller, LocalCaller
from headrace.core.service.catalog import Catalog
from headrace.core.service.usage_report import MAX_HOURS, UsageService
from headrace.core.wire import codec
from headrace.core.wire.data_path import Authenticator


def package_version() -> str:
    """The installed version; `0` in a checkout that is not installed."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "0"


def management_app(
    catalog: Catalog, usage: UsageService, authenticator: Authenticator | None
) -> FastAPI:
    """The application for every path the Kinesis API does not have.

    Without `authenticator` whoever reaches it may ask: that is loopback, the server sees to it.
    """
    app = FastAPI(
        title="Headrace",
        version=package_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # they lead to wherever the Host header says
    )

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        """Whether it serves: streams by status, those it refuses, by name; and what else is
        wrong."""
        statuses: dict[str, int] = {}
        for stream in catalog.state.streams.streams.values():
            statuses[stream.status] = statuses.get(stream.status, 0) + 1
        refused = catalog.refused()
        return {
            "ok": not refused,
            "version": package_version(),
            "streams": statuses,
            "refused": refused,
            "troubles": catalog.troubles.current(),
        }

    @app.get("/usage", response_class=StreamingResponse)
    async def metered(
        request: Request,
        stream: str | None = None,
        hours: Annotated[int, Query(ge=1, le=MAX_HOURS)] = 24,
        account: str = DEFAULT_ACCOUNT,
        region: str = DEFAULT_REGION,
    ) -> StreamingResponse:
        """What streams were used for by the hour; of one stream by shard and consumer too.

        `account` and `region` are the signature's where one is needed.
        """
        caller: Caller = LocalCaller(account, region)
        if authenticator is not None:
            scope = request.scope
            caller = authenticator.authenticate(
                "GET", scope["raw_path"], scope["query_string"], scope["headers"],
                await request.body(),
            )  # fmt: skip
        pieces = await usage.describe(caller, stream, hours)
        return StreamingResponse(pieces, media_type="application/json")

    @app.exception_handler(ServiceError)
    @app.exception_handler(StorageError)
    async def refused(request: Request, error: Exception) -> Response:
        """Errors look as those of the Kinesis API do."""
        known = error if isinstance(error, ServiceError) else InternalFailure(str(error))
        status, headers, body = codec.encode_error(known, codec.JSON)
        return Response(body, status, {k.decode(): v.decode() for k, v in headers})

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown_route(request: Request, error: HTTPException) -> Response:
        """As AWS answers what it cannot assign to an operation."""
        status, headers, body = codec.encode_error(
            AccessDenied("Unable to determine service/operation name to be authorized"), ""
        )
        return Response(body, status, {k.decode(): v.decode() for k, v in headers})

    return app
