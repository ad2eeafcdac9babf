"""One entry of the `triggers` section at work: its stream, its consumer, its workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from headrace.core.client import StreamClient
from headrace.core.consumer import Consumer, ShardLease
from headrace.core.errors import HeadraceError, ResourceNotFound
from headrace.core.leases import StreamLeases
from headrace.core.part import PartContext
from headrace.core.racing import pause
from headrace.core.retry import Backoff
from headrace.core.troubles import Troubles
from headrace.triggers import retry
from headrace.triggers.config import TriggerConfig
from headrace.triggers.event import EventSource
from headrace.triggers.function import FunctionFile, FunctionName
from headrace.triggers.invoke import Function
from headrace.triggers.outbox import Outlet
from headrace.triggers.protocol import Start
from headrace.triggers.runner import ShardRunner, TriggerTools
from headrace.triggers.stats import TriggerStats
from headrace.triggers.worker_pool import WorkerPool

_STREAM_POLL_MS = (200, 5_000)  # a stream that is about to be created is found soon

log = logging.getLogger("headrace.triggers")


def no_seam(_step: str) -> None:
    """What a running trigger does at each step: nothing."""


class Trigger:
    """Runs from `run` until `stop`. One per entry; they share a client."""

    def __init__(
        self,
        config: TriggerConfig,
        context: PartContext,
        client: StreamClient,
        *,
        worker: str,
        seam: Callable[[str], None] = no_seam,
    ) -> None:
        self.config = config
        self.stats = TriggerStats()
        self.troubles = Troubles(log, context.clock)
        self._context = context
        self._client = client
        self._worker = worker
        self._seam = seam
        self._stopping = asyncio.Event()
        self._consumer: Consumer | None = None

    @property
    def application(self) -> str:
        """What leases and emits go under. It must not change, or positions are forgotten."""
        return f"trigger-{self.config.name}"

    async def run(self) -> None:
        """Until `stop`. Waits for a stream that does not exist yet."""
        stream_arn = await self._find_stream()
        if stream_arn is None:
            return
        config, clock = self.config, self._context.clock
        region, account = stream_arn.split(":")[3:5]
        tools = self._tools(region, account)
        role_arn = f"arn:aws:iam::{account}:role/{config.name}"

        async def work(lease: ShardLease) -> None:
            source = EventSource(stream_arn, lease.shard_id, role_arn, region)
            await ShardRunner(lease, source, config.stream, tools).run()

        leases = StreamLeases(self._client, self.application, config.stream, self._worker)
        self._consumer = Consumer(
            self._client,
            leases,
            stream=config.stream,
            worker=self._worker,
            work=work,
            start=config.start.position,
            start_at_ms=config.start.at_ms,
            clock=clock,
        )
        try:
            if not self._stopping.is_set():
                await self._consumer.run()
        finally:
            await tools.function.pool.close()

    async def stop(self) -> None:
        self._stopping.set()
        if self._consumer is not None:
            await self._consumer.stop()

    def problems(self) -> tuple[str, ...]:
        """What is wrong right now, a line each."""
        below = self._consumer.problems() if self._consumer is not None else ()
        return (*self.troubles.current(), *below)

    def _tools(self, region: str, account: str) -> TriggerTools:
        config, context = self.config, self._context
        name = FunctionName.parse(config.function)
        file = FunctionFile((context.base / name.file).absolute())
        arn = f"arn:aws:lambda:{region}:{account}:function:{config.name}"
        start = Start(
            file=str(file.path),
            attribute=name.attribute,
            function_name=config.name,
            function_arn=arn,
            source_stream=config.stream,
            memory_bytes=config.memory,
        )
        return TriggerTools(
            function=Function(
                trigger=config.name,
                arn=arn,
                pool=WorkerPool(file, start, size=config.workers, region=region),
                timeout_ms=config.timeout,
                retries=config.retries,
                reports_item_failures=config.report_batch_item_failures,
            ),
            file=file,
            batch=config.batch,
            letters=self.letters,
            outlet=Outlet(self._client, self.application, context.clock),
            stats=self.stats,
            troubles=self.troubles,
            clock=context.clock,
            backoff=Backoff(initial_ms=retry.FIRST_BACKOFF_MS, max_ms=retry.MAX_BACKOFF_MS),
            seam=self._seam,
        )

    @property
    def letters(self) -> Path:
        """The folder of this trigger's dead letters."""
        if self.config.on_failure is not None:
            return self._context.base / self.config.on_failure
        return self._context.data / "dead-letters" / self.config.name

    async def _find_stream(self) -> str | None:
        """The stream's ARN, once there is such a stream; None when stopped before."""
        stream, attempt = self.config.stream, 0
        backoff = Backoff(initial_ms=_STREAM_POLL_MS[0], max_ms=_STREAM_POLL_MS[1])
        while not self._stopping.is_set():
            try:
                answer = await self._client.call("DescribeStreamSummary", {"StreamName": stream})
            except HeadraceError as error:
                text = f"{self.config.name}: waiting for stream {stream!r}: {error}"
                if isinstance(error, ResourceNotFound):
                    text += f"; create it with: headrace streams create {stream}"
                self.troubles.report("stream", text)
                await pause(self._context.clock, backoff.next_ms(attempt), self._stopping)
                attempt += 1
            else:
                self.troubles.clear("stream")
                return str(answer["StreamDescriptionSummary"]["StreamARN"])
        return None
