"""A bucket as an object store, through s3fs.

put-if-absent is `If-None-Match: *`, on PutObject and, for large objects, on
CompleteMultipartUpload: s3fs sends it for both when told `mode="create"`. Attempts are not
repeated here or below: whoever calls knows how to wait and what to tell the user meanwhile.

Only files of records get large enough for parts, and whoever races for such a name has the same
bytes, so a server that lets two completions race (moto does) does no harm. Entries of the plan
log, where the race decides, are always one PutObject.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import s3fs
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from headrace.core.errors import DeliveryError
from headrace.core.limits import MIB
from headrace.sinks.config import S3Config
from headrace.sinks.stores.protocol import ObjectHead

PART_BYTES = 50 * MIB  # an object of two parts or more is put in parts

RENEW_PAUSE_S = 10.0  # between two looks for renewed credentials

_WAITING = "records wait in the stream meanwhile"
_CREDENTIALS = {
    "AccessDenied",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "403",
}
_HINTS = {
    "AccessDenied": "grant s3:PutObject, s3:GetObject and s3:ListBucket on the target",
    "403": "grant s3:PutObject, s3:GetObject and s3:ListBucket on the target",
    "ExpiredToken": "renew the credentials",
    "InvalidAccessKeyId": "check access_key_id and endpoint",
    "SignatureDoesNotMatch": "check secret_access_key",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NoSuchBucket": "create the bucket, or correct the target",
    "SlowDown": "the store asks for fewer requests; a longer buffer interval makes fewer files",
}
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_TAKEN = {"PreconditionFailed", "412"}
_UNSUPPORTED = {"NotImplemented", "501"}


class S3Store:
    """ObjectStore over `s3://bucket/prefix/`. Metadata is kept as user metadata."""

    def __init__(
        self, target: str, config: S3Config | None, *, part_bytes: int | None = None
    ) -> None:
        self._bucket, _, prefix = target.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._config = config or S3Config.model_validate({})
        self._part_bytes = part_bytes or PART_BYTES
        self._fs: Any = None
        self._retired: Any = None
        self._renew_after = 0.0

    @property
    def destination(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    async def open(self) -> None:
        if self._fs is None:
            fs = self._make()
            await self._mapped(fs.set_session())
            self._fs = fs
        try:
            await self._call("head_bucket", Bucket=self._bucket)
        except _Absent as error:
            hint = f"{_HINTS['NoSuchBucket']}; {_WAITING}"
            raise self._error("there is no such bucket", hint=hint) from error

    async def close(self) -> None:
        fs, self._fs = self._fs, None
        retired, self._retired = self._retired, None
        if fs is not None:
            client = await fs.set_session()
            await client.close()
        if retired is not None:
            await retired.close()

    async def put_if_absent(self, key: str, data: bytes, metadata: Mapping[str, str]) -> bool:
        try:
            await self._mapped(
                self._fs._pipe_file(
                    f"{self._bucket}/{self._prefix}{key}",
                    data,
                    chunksize=self._part_bytes,
                    mode="create",
                    Metadata=dict(metadata),
                )
            )
        except _Taken:
            return False
        return True

    async def get(self, key: str) -> bytes | None:
        try:
            answer = await self._call("get_object", Bucket=self._bucket, Key=self._prefix + key)
            async with answer["Body"] as body:
                return bytes(await self._mapped(body.read()))
        except _Absent:
            return None

    async def head(self, key: str) -> ObjectHead | None:
        try:
            answer = await self._call("head_object", Bucket=self._bucket, Key=self._prefix + key)
        except _Absent:
            return None
        return ObjectHead(answer["ContentLength"], answer.get("Metadata", {}))

    async def list_from(self, prefix: str, after: str = "") -> AsyncIterator[str]:
        request = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            request["StartAfter"] = self._prefix + after
        while True:
            answer = await self._call("list_objects_v2", **request)
            for found in answer.get("Contents", []):
                yield found["Key"][len(self._prefix) :]
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    async def discard_partial(self, key: str) -> None:
        # Parts of an unfinished upload are invisible and cost little; a user without the
        # permission to list or abort uploads, or a server without them, delivers all the same.
        with contextlib.suppress(DeliveryError, _Absent):
            await self._abort_uploads(self._prefix + key)

    async def _abort_uploads(self, key: str) -> None:
        answer = await self._call("list_multipart_uploads", Bucket=self._bucket, Prefix=key)
        for upload in answer.get("Uploads") or []:
            if upload["Key"] == key:
                await self._call(
                    "abort_multipart_upload",
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload["UploadId"],
                )

    async def delete(self, key: str) -> None:
        await self._call("delete_object", Bucket=self._bucket, Key=self._prefix + key)

    def _make(self) -> Any:
        config = self._config
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
        if config.endpoint is not None:
            # Servers other than AWS often know no bucket names in host names, nor the newer
            # checksum trailers.
            options["s3"] = {"addressing_style": "path"}
            options["request_checksum_calculation"] = "when_required"
            options["response_checksum_validation"] = "when_required"
        secret, token = config.secret_access_key, config.session_token
        fs = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=config.endpoint,
            key=config.access_key_id,
            secret=secret.get_secret_value() if secret else None,
            token=token.get_secret_value() if token else None,
            client_kwargs={"region_name": config.region} if config.region else {},
            config_kwargs={**options, "connect_timeout": 5, "read_timeout": 60},
        )
        fs.retries = 1
        return fs

    async def _call(self, operation: str, **request: Any) -> Any:
        return await self._mapped(self._fs._call_s3(operation, **request))

    async def _mapped(self, call: Awaitable[Any]) -> Any:
        """The one place where what botocore and s3fs raise becomes ours."""
        try:
            return await call
        except FileExistsError as error:
            raise _Taken(str(error)) from error
        except (OSError, BotoCoreError, ClientError) as error:
            raise await self._translated(error) from error

    async def _translated(self, error: Exception) -> Exception:
        cause = error if isinstance(error, ClientError) else error.__cause__
        code = cause.response["Error"].get("Code", "") if isinstance(cause, ClientError) else ""
        if code in _ABSENT:
            return _Absent(str(error))
        if code in _TAKEN:
            return _Taken(str(error))
        if code in _UNSUPPORTED:
            return self._error(f"{code}: {error}", retryable=False)
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            hint = "set s3: access_key_id and secret_access_key, or AWS's environment variables"
            return self._error(str(error), hint=f"{hint}; {_WAITING}")
        if code in _CREDENTIALS:
            await self._renew_session()
        hint = _HINTS.get(code, "")
        name = code or type(error).__name__
        return self._error(f"{name}: {error}", hint=f"{hint}; {_WAITING}" if hint else _WAITING)

    async def _renew_session(self) -> None:
        """Read the credentials again: somebody may have renewed them.

        Other calls may still be on the old connections; they are closed at the next renewal.
        """
        if self._fs is None or time.monotonic() < self._renew_after:
            return
        self._renew_after = time.monotonic() + RENEW_PAUSE_S
        current = await self._fs.set_session()
        await self._fs.set_session(refresh=True)
        retired, self._retired = self._retired, current
        if retired is not None:
            await retired.close()

    def _error(self, message: str, *, retryable: bool = True, hint: str = "") -> DeliveryError:
        return DeliveryError(
            f"{self.destination}: {message}",
            destination=self.destination,
            retryable=retryable,
            hint=hint or None,
        )


class _Absent(Exception):
    """The object is not there; becomes None."""


class _Taken(Exception):
    """The key is taken; becomes False."""
