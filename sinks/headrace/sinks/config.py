"""The `sinks:` section: what goes where, how often, in what shape."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from headrace.core.limits import MIB
from headrace.core.units import DurationMs, Secret, SizeBytes
from headrace.sinks.prefix import PrefixTemplate

Compression = Literal["zstd", "snappy", "gzip", "none"]
ColumnType = Literal["bool", "int64", "double", "string"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_BUCKET = re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)")


class BufferConfig(BaseModel):
    """When a file is written: whichever of size and interval comes first, per shard."""

    model_config = ConfigDict(extra="forbid")

    size: SizeBytes = Field(
        64 * MIB, ge=1, description="Record data per shard that makes a file, before compression."
    )
    interval: DurationMs = Field(
        60_000, ge=1, description="Longest time a record waits for its file to be started."
    )
    memory: SizeBytes = Field(
        512 * MIB,
        ge=16 * MIB,
        description="Records held in memory over all shards of this sink. When it is reached "
        "reading waits and the largest buffer is written first.",
    )


class S3Config(BaseModel):
    """How to reach a bucket. What is left out comes from AWS's usual chain."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="URL of an S3-compatible server; AWS when left out.",
    )
    region: str | None = Field(None, description="Region of the bucket.")
    access_key_id: str | None = Field(None, description="With secret_access_key; or neither.")
    secret_access_key: Secret | None = Field(None, description="With access_key_id; or neither.")
    session_token: Secret | None = Field(None, description="For temporary credentials.")

    @model_validator(mode="after")
    def _both_or_none(self) -> S3Config:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError(
                "access_key_id and secret_access_key go together: give both, or neither to use "
                "the environment, the shared credentials file or the instance's role"
            )
        return self


class SinkConfig(BaseModel):
    """One sink: a stream, a target, and how the files look."""

    model_config = ConfigDict(extra="forbid")

    stream: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$", description="The stream to read.")
    to: str = Field(
        min_length=1,
        description="A folder (relative to this file) or s3://bucket/prefix/.",
    )
    name: str | None = Field(
        None,
        pattern=_NAME,
        description="What the sink's progress is kept under. Left out it is derived from stream "
        "and target. A new name starts over from the oldest record.",
    )
    format: Literal["parquet"] = Field("parquet", description="File format.")
    partition_by: list[str] = Field(
        default_factory=lambda: ["!{timestamp:yyyy/MM/dd/HH}"],
        description="Path between target and file, one item per level: text and Firehose's "
        "!{timestamp:pattern}, evaluated in UTC on the arrival of the file's oldest record.",
    )
    buffer: BufferConfig = Field(default_factory=lambda: BufferConfig.model_validate({}))
    compression: Compression = Field("zstd", description="Codec inside the Parquet files.")
    columns: dict[str, ColumnType] = Field(
        default_factory=dict,
        description="Types of columns decided here instead of by the first value seen.",
    )
    s3: S3Config | None = Field(None, description="Only for a target that starts with s3://.")

    @field_validator("partition_by")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        PrefixTemplate(value)
        return value

    @model_validator(mode="after")
    def _target(self) -> SinkConfig:
        if self.to.startswith("s3://"):
            if not _BUCKET.match(self.to):
                raise ValueError(f"{self.to!r} is not of the form s3://bucket/prefix/")
        elif "://" in self.to and not self.to.startswith("file://"):
            raise ValueError(f"{self.to!r}: a target is a folder or s3://bucket/prefix/")
        elif self.s3 is not None:
            raise ValueError("s3: is given but the target is a folder; write to: s3://bucket/...")
        return self

    @property
    def is_s3(self) -> bool:
        return self.to.startswith("s3://")

    @property
    def sink_name(self) -> str:
        """The name, given or derived. Stable: a pure function of stream and target text."""
        if self.name is not None:
            return self.name
        digest = hashlib.sha256(f"{self.stream}\n{self.target_text}".encode()).hexdigest()[:8]
        return f"{self.stream[:48].strip('.-_') or 'sink'}-{digest}"

    @property
    def target_text(self) -> str:
        """The target as written, without what does not change where it is."""
        text = self.to.rstrip("/")
        while text.startswith("./"):
            text = text[2:].lstrip("/")
        return text or "/"
