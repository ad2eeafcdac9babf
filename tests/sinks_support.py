"""What the sinks' tests share: a bucket on a real HTTP server, ways to read what was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from pydantic import SecretStr

from headrace.sinks.config import S3Config


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own on a server that speaks S3."""

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}/lake/"

    @property
    def config(self) -> S3Config:
        return S3Config(
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id="test",
            secret_access_key=SecretStr("test"),
            session_token=None,
        )

    def boto3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(s3={"addressing_style": "path"}),
        )

    def object_keys(self) -> list[str]:
        client = self.boto3()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        client.close()
        return found
