"""The stream as a part of a pipeline: its section of the YAML file, and the server's process.

Besides hosting the server it makes the declared streams true at every start, through the same API
everybody else uses: what is missing is created, mode, shard count and retention are brought to
what the file says, and streams the file does not name are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from headrace.core.access_key import ACCOUNT_EXPECTED, AccessKey, is_account
from headrace.core.errors import HeadraceError, ResourceInUse, ResourceNotFound, ServiceError
from headrace.core.limits import (
    DEFAULT_ACCOUNT,
    DEFAULT_REGION,
    DEFAULT_SHARD_QUOTA,
    MAX_RETENTION_HOURS,
    MIN_RETENTION_HOURS,
)
from headrace.core.part import Finding, Health, Part, PartContext, StreamTarget
from headrace.core.units import DurationMs, Secret

if TYPE_CHECKING:
    from headrace.core.client import StreamClient
    from headrace.core.listener.tls import TlsConfig
    from headrace.core.server import Server

HOUR_MS = 3_600_000

_log = logging.getLogger("headrace.stream")


def split_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:4567`, `[::1]:4567` -> host and port. Raises ValueError on anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("an address and a port, such as 127.0.0.1:4567")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> str:
    split_address(text)
    return text


def _origin(text: str) -> str:
    from headrace.core.wire.cors import check_origin

    return check_origin(text)


def _whole_hours(retention_ms: int) -> int:
    low, high = MIN_RETENTION_HOURS * HOUR_MS, MAX_RETENTION_HOURS * HOUR_MS
    if retention_ms % HOUR_MS or not low <= retention_ms <= high:
        raise ValueError("a retention of whole hours from 24h to 365d")
    return retention_ms


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


class StreamSpec(BaseModel):
    """One declared stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["on-demand", "provisioned"] = Field(
        "on-demand", description="on-demand scales its shards by itself; provisioned keeps yours"
    )
    shards: int | None = Field(
        None, ge=1, le=DEFAULT_SHARD_QUOTA, description="open shards of a provisioned stream"
    )
    retention: Annotated[DurationMs, AfterValidator(_whole_hours)] = Field(
        MIN_RETENTION_HOURS * HOUR_MS, description="how long records are kept: 24h to 365d"
    )

    @property
    def retention_hours(self) -> int:
        return self.retention // HOUR_MS


def _account(value: Any) -> Any:
    """YAML takes twelve digits without quotes for a number."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not is_account(text):
        raise ValueError(ACCOUNT_EXPECTED)
    return text


class KeySection(BaseModel):
    """An access key of an account other than the default one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: Secret = Field(min_length=1, description="secret access key")
    account: Annotated[str, BeforeValidator(_account)] = Field(
        DEFAULT_ACCOUNT, description="account whose streams it opens, twelve digits"
    )


class TlsSection(BaseModel):
    """Serving over TLS. Without a certificate one is made at the first start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: str | None = Field(
        None, min_length=1, description="PEM file of the certificate, the chain below it"
    )
    key: str | None = Field(None, min_length=1, description="PEM file of the certificate's key")

    @model_validator(mode="after")
    def _both_or_neither(self) -> TlsSection:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key go together")
        return self

    def config(self, base: Path) -> TlsConfig:
        """For a server; relative paths start from `base`."""
        from headrace.core.listener.tls import TlsConfig

        if self.certificate is None or self.key is None:
            return TlsConfig()
        return TlsConfig(
            certificate=base / Path(self.certificate).expanduser(),
            key=base / Path(self.key).expanduser(),
        )


def _tls(value: Any) -> Any:
    """`tls: true` and an empty `tls:` are a section with its defaults, `tls: false` is none."""
    if value is None or value is True:
        return {}
    return None if value is False else value


StreamName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class StreamSection(BaseModel):
    """The `stream` section: a stream served here, or (`endpoint`) one that is elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1:4567", description="address and port to serve on"
    )
    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+/?$")] | None = Field(
        None, description="URL of a stream served elsewhere; nothing is served here then"
    )
    region: str = Field(DEFAULT_REGION, min_length=1, description="region in signatures and ARNs")
    keys: dict[str, Secret | KeySection] = Field(
        default_factory=dict,
        description="access key id: secret access key, or {secret, account}; the first is the one "
        "parts use",
    )
    cors_origins: list[Annotated[str, AfterValidator(_origin)]] = Field(
        default_factory=list,
        description="origins whose web pages may use the stream, or *; none: any page with keys, "
        "this machine's without",
    )
    limits: Literal["off", "aws"] = Field(
        "off", description="aws: the capacity limits of the service; off: the hardware's"
    )
    tls: Annotated[TlsSection | None, BeforeValidator(_tls)] = Field(
        None, description="true, or a certificate and its key: serve over TLS"
    )
    streams: dict[StreamName, Annotated[StreamSpec, BeforeValidator(_empty_if_none)]] = Field(
        default_factory=dict, description="streams to create, by name"
    )

    def declared_names(self) -> list[str] | None:
        """The names a file can be held to; None when the streams are kept elsewhere."""
        return list(self.streams) if self.streams or self.endpoint is None else None

    def access_keys(self) -> dict[str, AccessKey]:
        """What is configured, by access key id."""
        return {
            access_key_id: AccessKey(given.secret.get_secret_value(), given.account)
            if isinstance(given, KeySection)
            else AccessKey(given.get_secret_value())
            for access_key_id, given in self.keys.items()
        }

    def target(self, *, data: Path = Path(), base: Path = Path()) -> StreamTarget:
        """How the other parts reach the stream.

        `data` is the folder the stream has for itself, `base` where relative paths start.
        """
        host, port = split_address(self.listen)
        access_key_id, key = next(iter(self.access_keys().items()), (None, None))
        scheme, certificate = "http", None
        if self.tls is not None and self.endpoint is None:
            from headrace.core.listener.tls import certificate_path

            scheme = "https"
            certificate = str(certificate_path(self.tls.config(base), data))
        return StreamTarget(
            endpoint=(self.endpoint or f"{scheme}://{_reachable(host)}:{port}").rstrip("/"),
            certificate=certificate,
            region=self.region,
            access_key_id=access_key_id,
            secret_access_key=key.secret if key else None,
        )


def _reachable(host: str) -> str:
    """A server on every address is reached over loopback from here."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


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
        from headrace.core.client import StreamClient
        from headrace.core.server import Server, ServerConfig

        host, port = split_address(self.config.listen)
        server = Server(
            ServerConfig(
                host=host,
                port=port,
                data=self.context.data,
                access_keys=self.config.access_keys(),
                cors_origins=self.config.cors_origins,
                limits=self.config.limits,
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
                    await self._declare(client, name, spec)
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
            await ensure_declared(client, name, spec)
        except HeadraceError as error:
            self._problems[name] = str(error)
            _log.warning("%s", error)


async def ensure_declared(client: StreamClient, name: str, spec: StreamSpec) -> None:
    """Create a stream, or bring an existing one to its declared mode, shards and retention.

    Raises:
        HeadraceError: the service refused some of it; the message has each refusal, and every
            change it did not refuse is made.
    """
    mode = {"StreamMode": "ON_DEMAND" if spec.mode == "on-demand" else "PROVISIONED"}
    try:
        await _summary(client, name)
    except ResourceNotFound:
        request: dict[str, Any] = {"StreamName": name, "StreamModeDetails": mode}
        if spec.shards is not None:
            request["ShardCount"] = spec.shards
        with contextlib.suppress(ResourceInUse):  # somebody else created it this moment
            await client.call("CreateStream", request)
            _log.info("created the stream %s", name)
    await client.wait_active(name)
    refused: list[str] = []
    for operation, change in _changes(await _summary(client, name), spec, mode):
        try:
            await client.call(operation, change)
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


async def _summary(client: StreamClient, name: str) -> Mapping[str, Any]:
    answer = await client.call("DescribeStreamSummary", {"StreamName": name})
    summary: Mapping[str, Any] = answer["StreamDescriptionSummary"]
    return summary
