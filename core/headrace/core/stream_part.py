"""The stream as a part of a pipeline: the process of the server.

Besides hosting the server it makes the declared streams true at every start, through the same API
everybody else uses: what is missing is created, mode, shard count and retention are brought to
what the file says, and streams the file does not name are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.core.address import is_loopback, split_address
from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import (
    HeadraceError,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
)
from headrace.core.part import Finding, Health, Part, PartContext
from headrace.core.stream_section import StreamSection, StreamSpec

if TYPE_CHECKING:
    from headrace.core.client import StreamClient
    from headrace.core.server import Server

#: What a service with limits says of calls that come too fast, not of what they ask for.
_PASSING = re.compile("^Rate exceeded|simultaneously be in CREATING or DELETING")
_MOST_TRIES = 10
_PAUSE_MS = 1000

_log = logging.getLogger("headrace.stream")


class StreamPart(Part):
    """Hosts the server and keeps the declared streams as declared."""

    section = "stream"
    schema = StreamSection

    config: StreamSection

    def __init__(self, config: StreamSection, context: PartContext) -> None:
        super().__init__(config, context)
        self._stopping = asyncio.Event()
        self._is_ready = False
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        # Slow to import, and a check of a file needs neither.
        from headrace.core.allocator import keep_freed_memory, leave_out_of_collections
        from headrace.core.client import StreamClient
        from headrace.core.interpreter import hand_over_soon
        from headrace.core.server import Server, ServerConfig

        keep_freed_memory()
        hand_over_soon()
        host, port = split_address(self.config.listen)
        server = Server(
            ServerConfig(
                host=host,
                port=port,
                data=self.context.data,
                access_keys=self.config.access_keys(),
                cors_origins=self.config.cors_origins,
                limits=self.config.limits,
                on_demand_max_shards=self.config.on_demand_max_shards,
                tls=self.config.tls.config(self.context.base) if self.config.tls else None,
            )
        )
        await server.start()
        try:
            if server.new_certificate is not None:
                _log.info("made a certificate for clients to trust: %s", server.new_certificate)
            _log.info("listening on %s", server.endpoint)
            async with StreamClient(self.context.target) as client:
                for name, spec in self.config.streams.items():
                    if self._stopping.is_set():
                        break
                    await self._declare(client, name, spec)
            leave_out_of_collections()
            self._is_ready = True
            await self._until_stopped(server)
        finally:
            self._is_ready = False
            await server.stop()

    async def stop(self) -> None:
        self._stopping.set()

    def health(self) -> Health:
        figures: dict[str, int | float | str] = {
            "endpoint": self.context.target.endpoint,
            "streams": len(self.config.streams),
        }
        return Health(ok=self._is_ready, figures=figures, problems=tuple(self._problems.values()))

    @classmethod
    def check(
        cls, config: StreamSection, *, base: Path, streams: Sequence[str] | None
    ) -> list[Finding]:
        found: list[Finding] = []
        host, _ = split_address(config.listen)
        if config.endpoint is None and not is_loopback(host) and not config.keys:
            found.append(
                Finding(
                    ("listen",),
                    f"{host} can be reached from other machines, and there are no keys",
                    "set stream.keys, or listen on 127.0.0.1",
                )
            )
        for name, spec in config.streams.items():
            if spec.mode == "provisioned" and spec.shards is None:
                message = "a provisioned stream needs its number of shards"
                found.append(Finding(("streams", name), message, "such as shards: 1"))
            if spec.mode == "on-demand" and spec.shards is not None:
                message = "an on-demand stream finds its shards by itself"
                hint = "leave shards out, or set mode: provisioned"
                found.append(Finding(("streams", name, "shards"), message, hint))
        return found

    async def _until_stopped(self, server: Server) -> None:
        """Wait for `stop`; a server that ends by itself is an error."""
        stopped = asyncio.create_task(self._stopping.wait())
        ended = asyncio.create_task(server.wait())
        try:
            await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not self._stopping.is_set():
                ended.result()
                raise HeadraceError("the server ended by itself")
        finally:
            stopped.cancel()
            ended.cancel()

    async def _declare(self, client: StreamClient, name: str, spec: StreamSpec) -> None:
        """Make one stream what the file says; what is refused is reported, not fatal."""
        try:
            await ensure_declared(client, name, spec, clock=self.context.clock)
        except HeadraceError as error:
            self._problems[name] = str(error)
            _log.warning("%s", error)


async def ensure_declared(
    client: StreamClient, name: str, spec: StreamSpec, *, clock: Clock | None = None
) -> None:
    """Create a stream, or bring an existing one to its declared mode, shards and retention.

    Raises:
        HeadraceError: the service refused some of it; the message has each refusal, and every
            change it did not refuse is made.
    """
    unhurried = partial(_call, client, clock or SystemClock())
    mode = {"StreamMode": "ON_DEMAND" if spec.mode == "on-demand" else "PROVISIONED"}
    try:
        await _summary(unhurried, name)
    except ResourceNotFound:
        request: dict[str, Any] = {"StreamName": name, "StreamModeDetails": mode}
        if spec.shards is not None:
            request["ShardCount"] = spec.shards
        with contextlib.suppress(ResourceInUse):  # somebody else created it this moment
            await unhurried("CreateStream", request)
            _log.info("created the stream %s", name)
    await client.wait_active(name)
    refused: list[str] = []
    for operation, change in _changes(await _summary(unhurried, name), spec, mode):
        try:
            await unhurried(operation, change)
            await client.wait_active(name)
            _log.info("changed the stream %s: %s", name, operation)
        except ServiceError as error:
            refused.append(f"{operation} was refused: {error}")
    if refused:
        raise HeadraceError(f"the stream {name} is not as declared: {'; '.join(refused)}")


def _changes(
    summary: Mapping[str, Any], spec: StreamSpec, mode: Mapping[str, str]
) -> list[tuple[str, dict[str, Any]]]:
    """The operations that make a stream what is declared, and their requests."""
    name = summary["StreamName"]
    changes: list[tuple[str, dict[str, Any]]] = []
    if summary.get("StreamModeDetails", mode) != mode:
        arn = {"StreamARN": summary["StreamARN"], "StreamModeDetails": mode}
        changes.append(("UpdateStreamMode", arn))
    if spec.shards is not None and summary["OpenShardCount"] != spec.shards:
        count = {"TargetShardCount": spec.shards, "ScalingType": "UNIFORM_SCALING"}
        changes.append(("UpdateShardCount", {"StreamName": name, **count}))
    hours = summary["RetentionPeriodHours"]
    if hours != spec.retention_hours:
        longer = spec.retention_hours > hours
        operation = f"{'Increase' if longer else 'Decrease'}StreamRetentionPeriod"
        period = {"StreamName": name, "RetentionPeriodHours": spec.retention_hours}
        changes.append((operation, period))
    return changes


async def _call(
    client: StreamClient, clock: Clock, operation: str, request: dict[str, Any]
) -> dict[str, Any]:
    """Call an operation, again while the service only says that it is called too often."""
    for tries_left in reversed(range(_MOST_TRIES)):
        try:
            return await client.call(operation, request)
        except LimitExceeded as error:
            if not (tries_left and _PASSING.search(str(error))):
                raise
            await clock.sleep_ms(_PAUSE_MS)
    raise AssertionError("the last try returns or raises")


async def _summary(
    call: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]], name: str
) -> Mapping[str, Any]:
    answer = await call("DescribeStreamSummary", {"StreamName": name})
    summary: Mapping[str, Any] = answer["StreamDescriptionSummary"]
    return summary
