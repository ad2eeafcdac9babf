"""The server: engine, operations and wire put together behind uvicorn.

`Server` lives in a running event loop (a part of a pipeline has one); the whole process of
`headrace serve` is in `serve`. The data path comes up first: what only errors or management need is
imported when it is first needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from headrace.core.access_key import AccessKey
from headrace.core.address import bind
from headrace.core.clock import Clock, SystemClock
from headrace.core.engine.embedded.engine import EmbeddedEngine
from headrace.core.engine.embedded.usage_store import SqliteUsageStore
from headrace.core.engine.seam import UsageStore
from headrace.core.errors import HeadraceError
from headrace.core.listener.guard import MAX_HELD_BYTES, PATIENCE_S, Guard
from headrace.core.listener.protocol import FirstBytesProtocol
from headrace.core.listener.tls import ServerTls, TlsConfig, server_tls
from headrace.core.log.files import Files
from headrace.core.log.stream_log import StreamLogOptions
from headrace.core.service.call_rates import CallRates
from headrace.core.service.capacity import Capacity
from headrace.core.service.catalog import Catalog
from headrace.core.service.consumers import ConsumerService
from headrace.core.service.expiry import Expiry
from headrace.core.service.metering import Metering, MeteringOptions
from headrace.core.service.on_demand import OnDemandScaler
from headrace.core.service.streams import StreamService
from headrace.core.service.usage import Usage
from headrace.core.service.usage_report import UsageService
from headrace.core.wire.app import App, KinesisApp
from headrace.core.wire.auth import Authenticator
from headrace.core.wire.cors import Cors
from headrace.core.wire.data_path import DataPath
from headrace.core.wire.dispatch import Dispatcher
from headrace.core.wire.service_model import service_model

log = logging.getLogger("headrace.core")

EXIT_STORE_FAILED = 70  # EX_SOFTWARE: the store could not write; a restart reads back what is there
TRIM_INTERVAL_MS = 60_000
IDLE_S = 75  # longer than the pools of the SDKs keep an idle connection
FILES_FOR_THE_STORE = 64  # or a quarter of the limit if that is more
GRACE_S = 5  # for requests under way when the server is asked to end


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server runs. Port 0 takes a free one.

    `access_keys` is by access key id. Without any, every signature is taken, and the server binds
    to nothing but loopback addresses. `cors_origins` are those whose web pages may use it, as
    `cors.check_origin` gives them; none is any page with keys, this machine's without. `limits` is
    `off` (the hardware is the limit) or `aws` (what the service allows). `state_delay_ms` is how
    long CREATING, UPDATING and DELETING last. With `tls` the port speaks TLS only.
    `on_demand_max_shards` is how far traffic alone takes an on-demand stream: 200 with AWS's
    limits, 32 without, unless given.

    `idle_s` is how long a connection without a request is kept; what the other bounds on
    connections are for is told in `listener.guard`. `max_connections` None is as many as the limit
    on open files leaves beside the store's own.
    """

    host: str = "127.0.0.1"
    port: int = 4567
    data: Path
    access_keys: Mapping[str, AccessKey] = field(default_factory=dict, repr=False)
    cors_origins: Sequence[str] = ()
    limits: str = "off"
    state_delay_ms: int = 0
    tls: TlsConfig | None = None
    log_options: StreamLogOptions | None = None
    idle_s: float = IDLE_S
    patience_s: float = PATIENCE_S
    max_connections: int | None = None
    max_held_bytes: int = MAX_HELD_BYTES
    on_demand_max_shards: int | None = None
    metering: MeteringOptions | None = None


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers of its own: the process has one owner of those."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Server:
    """One data folder served on one address."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        clock: Clock | None = None,
        files: Files | None = None,
        usage_store: UsageStore | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._files = files
        self._usage_store = usage_store
        self._endpoint = ""
        self._tls: ServerTls | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        """Open the data folder and listen. Raises HeadraceError when either cannot be."""
        _raise_open_files()
        sock = bind(self._config.host, self._config.port, has_keys=bool(self._config.access_keys))
        try:
            if self._config.tls is not None:
                self._tls = server_tls(
                    self._config.tls, data=self._config.data, host=self._config.host
                )
            await self._open()
        except BaseException:
            sock.close()
            raise
        host, port = sock.getsockname()[:2]
        scheme = "http" if self._tls is None else "https"
        self._endpoint = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        is_limited = self._config.limits == "aws"
        capacity = Capacity(self._clock) if is_limited else None
        rates = CallRates(self._clock) if is_limited else None
        if capacity is not None:
            self._catalog.on_removal.append(capacity.forget)
        self._dispatcher = Dispatcher(
            self._catalog, self._streams, self._usage, self._metered, capacity, rates
        )
        self._authenticator = Authenticator(self._config.access_keys, self._clock)
        cors = Cors(self._config.cors_origins, has_keys=bool(self._config.access_keys))
        data_path = DataPath(self._dispatcher, self._authenticator, cors)
        app = KinesisApp(data_path, self._management, cors)
        config = uvicorn.Config(
            app,
            http=partial(FirstBytesProtocol, guard=_guard(self._config)),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=self._config.idle_s,  # type: ignore[arg-type]  # or less than one
            timeout_graceful_shutdown=GRACE_S,
        )
        config.load()
        config.ssl = None if self._tls is None else self._tls.context
        self._uvicorn = _Uvicorn(config)
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=[sock]))
        while not self._uvicorn.started:
            if self._serving.done():
                self._serving.result()
                raise HeadraceError("the HTTP server ended while starting")
            await asyncio.sleep(0.001)
        self._tasks.append(asyncio.create_task(self._catalog.open_waiting()))
        self._tasks.append(asyncio.create_task(self._trim()))
        self._tasks.append(asyncio.create_task(self._metering.run()))
        # takes a fifth of a second: after the first answers, and before somebody waits for it
        self._tasks.append(asyncio.create_task(asyncio.to_thread(service_model)))

    async def _open(self) -> None:
        self._engine = EmbeddedEngine(
            self._config.data,
            self._clock,
            on_fatal=_stop_the_process,
            files=self._files,
            options=self._config.log_options,
        )
        self._catalog = Catalog(self._engine, self._clock)
        self._streams = StreamService(
            self._catalog,
            delay_ms=self._config.state_delay_ms,
            is_limited=self._config.limits == "aws",
        )
        self._engine.sweep(s.uid for s in self._catalog.state.streams.streams.values())
        await self._catalog.open_all()
        await self._streams.resume()
        await ConsumerService(self._catalog, self._streams.transitions).resume()
        self._open_usage()

    def _open_usage(self) -> None:
        config = self._config
        store = self._usage_store or SqliteUsageStore(config.data / "usage.sqlite")
        self._usage = Usage()
        self._metering = Metering(self._catalog, self._usage, store, config.metering)
        self._metered = UsageService(self._catalog, self._metering)
        self._scaler = OnDemandScaler(
            self._catalog,
            self._streams.updates,
            self._metering,
            max_shards=config.on_demand_max_shards,
            is_limited=config.limits == "aws",
        )

    def _management(self) -> App:
        from headrace.core.wire.management import management_app  # brings FastAPI: not at start

        authenticator = self._authenticator if self._config.access_keys else None
        return management_app(self._catalog, self._metered, authenticator)

    async def _trim(self) -> None:
        expiry = Expiry(self._catalog)
        while True:
            await self._clock.sleep_ms(TRIM_INTERVAL_MS)
            try:
                await expiry.run()
            except (OSError, HeadraceError) as error:
                log.error("expired segments could not be removed: %s", error)

    @property
    def endpoint(self) -> str:
        """`http://HOST:PORT`, once started; https over TLS."""
        return self._endpoint

    @property
    def new_certificate(self) -> Path | None:
        """The certificate that was made at this start, for clients to trust."""
        return self._tls.certificate if self._tls is not None and self._tls.is_new else None

    async def stop(self) -> None:
        """Answer what is under way, make everything durable, release the data folder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._dispatcher.close()
        self._uvicorn.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)
        await self._scaler.close()
        await self._metering.close()
        await self._streams.close()
        await self._engine.close()

    async def wait(self) -> None:
        """Until the HTTP server ends by itself or through `stop`."""
        await asyncio.wait([self._serving])


def _stop_the_process(error: BaseException) -> None:
    """After a failed write nothing in memory can be trusted to match the disk."""
    log.critical("the store failed and the process stops: %r", error)
    # the answers that say so get a moment to leave
    asyncio.get_running_loop().call_later(0.1, os._exit, EXIT_STORE_FAILED)


def _guard(config: ServerConfig) -> Guard:
    """The bounds on connections; their number leaves the store the files it needs."""
    most = config.max_connections
    if most is None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            most = max(soft - max(FILES_FOR_THE_STORE, soft // 4), 1)
    return Guard(
        patience_s=config.patience_s,
        max_connections=most,
        max_held_bytes=config.max_held_bytes,
    )


def _raise_open_files() -> None:
    """Every stream and connection takes a file: the usual soft limit of 1,024 is for `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
