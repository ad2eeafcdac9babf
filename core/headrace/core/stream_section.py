"""The `stream` section of a pipeline's file: its models, and what they refuse in words."""

from __future__ import annotations

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
from headrace.core.address import split_address
from headrace.core.limits import (
    DEFAULT_ACCOUNT,
    DEFAULT_REGION,
    DEFAULT_SHARD_QUOTA,
    MAX_RETENTION_HOURS,
    MAX_SCALED_SHARDS,
    MIN_RETENTION_HOURS,
)
from headrace.core.part import StreamTarget
from headrace.core.units import DurationMs, Secret

if TYPE_CHECKING:
    from headrace.core.listener.tls import TlsConfig

HOUR_MS = 3_600_000


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
        "off",
        description="aws: the limits of the service on throughput, calls and streams; off: the "
        "hardware's",
    )
    on_demand_max_shards: int | None = Field(
        None,
        ge=1,
        le=MAX_SCALED_SHARDS,
        description="shards that traffic alone can give an on-demand stream "
        "(200 with limits: aws, else 32)",
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
