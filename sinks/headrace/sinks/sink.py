"""One sink at work: its store, proven fit, and a consumer that hands its shards to delivery."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import uuid
from functools import partial
from pathlib import Path

from headrace.core.client import StreamClient
from headrace.core.clock import Clock
from headrace.core.consumer import Consumer, ShardLease
from headrace.core.errors import DeliveryError
from headrace.core.leases import StreamLeases
from headrace.core.troubles import Troubles
from headrace.sinks.config import SinkConfig
from headrace.sinks.context import SinkContext
from headrace.sinks.delivery import ShardDelivery
from headrace.sinks.json_types import to_json
from headrace.sinks.plan import LOG_FOLDER
from headrace.sinks.schema import conflicts, declared
from headrace.sinks.stores.local import LocalStore
from headrace.sinks.stores.probe import require_put_if_absent
from headrace.sinks.stores.protocol import ObjectStore
from headrace.sinks.stores.s3 import S3Store

_log = logging.getLogger("headrace.sinks")

#: An orderly end writes what is buffered; after this it is left to the next start, which reads
#: it again. Below the time supervisors commonly give a process before they kill it (30 s).
DRAIN_MS = 20_000


def open_store(config: SinkConfig, base: Path) -> ObjectStore:
    """The store a sink's target names. Relative folders start from `base`."""
    if config.is_s3:
        return S3Store(config.to, config.s3)
    return LocalStore((base / config.to.removeprefix("file://")).resolve())


def application_name(config: SinkConfig) -> str:
    """What the stream keeps the checkpoints under: a sink that moves to a new target is another."""
    digest = hashlib.sha256(config.target_text.encode()).hexdigest()[:8]
    return f"sink/{config.sink_name}/{digest}"


class Sink:
    """Runs one entry of the section. Others go on when it fails."""

    def __init__(
        self, config: SinkConfig, *, base: Path, client: StreamClient, clock: Clock
    ) -> None:
        self._client = client
        self._clock = clock
        self.troubles = Troubles(_log, clock)
        self.context = SinkContext(
            config, open_store(config, base), clock=clock, troubles=self.troubles
        )
        self._consumer: Consumer | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Deliver until `stop`. Raises DeliveryError when the target cannot keep the promise."""
        if self._stopping.is_set():
            return
        self._task = asyncio.current_task()
        store = self.context.store
        try:
            await self._make_ready()
            self._consumer = self._make_consumer()
            _log.info(
                "sink %s: %s -> %s", self.context.name, self.context.stream, store.destination
            )
            await self._consumer.run()
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except DeliveryError as error:
            self.troubles.report("refused", f"sink {self.context.name} does not run: {error}")
            raise
        finally:
            await store.close()

    async def stop(self) -> None:
        """Write what is buffered, within DRAIN_MS; what is not written is read again later."""
        self._stopping.set()
        if self._task is None:
            return
        if self._consumer is None:
            self._task.cancel()
            return
        try:
            await asyncio.wait_for(self._consumer.stop(), DRAIN_MS / 1000)
        except TimeoutError:
            _log.warning(
                "sink %s: could not write everything within %d s; the rest is delivered after "
                "the next start",
                self.context.name,
                DRAIN_MS // 1000,
            )
            self._task.cancel()

    def problems(self) -> tuple[str, ...]:
        """What is wrong now, a line each."""
        consumer = self._consumer.problems() if self._consumer is not None else ()
        return (*self.troubles.current(), *consumer)

    async def _make_ready(self) -> None:
        sink, store = self.context, self.context.store
        await sink.until_done("start", store.open)
        probe = partial(require_put_if_absent, store, f"{LOG_FOLDER}/{sink.name}/probe")
        await sink.until_done("start", probe)
        schema = await sink.until_done("start", sink.schemas.open)
        columns = sink.config.columns
        wrong = conflicts(schema, columns)
        if wrong:
            known = to_json(schema.by_key[wrong[0]].type)
            raise DeliveryError(
                f"columns: {wrong[0]} is to be {columns[wrong[0]]}, and files have it as {known}",
                destination=store.destination,
                retryable=False,
                hint="a column keeps its type; take it out of columns:, or give the sink a new "
                "name: and an empty target",
            )
        if columns:
            await sink.until_done("start", partial(sink.schemas.grow, declared(columns)))

    def _make_consumer(self) -> Consumer:
        worker = f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        stream = self.context.stream
        leases = StreamLeases(self._client, application_name(self.context.config), stream, worker)
        return Consumer(
            self._client,
            leases,
            stream=stream,
            worker=worker,
            work=self._work,
            clock=self._clock,
        )

    async def _work(self, lease: ShardLease) -> None:
        await ShardDelivery(self.context, lease).run()
