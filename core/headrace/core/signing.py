"""Who the client says it is: credentials, and the SigV4 signature by botocore.

Three cases. Keys given with the target are used. Without keys, an AWS endpoint is asked with
whatever botocore's credential chain finds (environment, shared files, instance role). Any other
endpoint without keys is taken for one that checks none, such as a Headrace on loopback: it is
shown a signature made with a fixed key, because a request without any signature is refused there
as it is on AWS, and because account and region are read from its credential scope.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.session import get_session

from headrace.core.errors import AccessDenied
from headrace.core.part import StreamTarget

_AWS_SUFFIXES = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_OPEN_KEY = "headrace"
_OPEN_LIFETIME_S = 60.0


def is_aws(endpoint: str) -> bool:
    """Whether an endpoint is AWS itself."""
    return (urlsplit(endpoint).hostname or "").endswith(_AWS_SUFFIXES)


class Signer:
    """Signs requests for one target."""

    def __init__(self, target: StreamTarget) -> None:
        self._region = target.region
        self._endpoint = target.endpoint
        self._credentials: Any = None
        self._open_headers: dict[str, str] = {}
        self._open_until_s = 0.0
        if target.access_key_id and target.secret_access_key:
            self._credentials = Credentials(target.access_key_id, target.secret_access_key)
        self.is_open = self._credentials is None and not is_aws(target.endpoint)

    async def headers(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """`headers` plus those that sign them and the body.

        Raises AccessDenied when the endpoint is AWS and no credentials are to be found.
        """
        if self.is_open:
            return headers | self._signed_for_nobody(url)
        if self._credentials is None:
            # the chain reads files and may ask the instance's metadata service
            self._credentials = await asyncio.to_thread(get_session().get_credentials)
            if self._credentials is None:
                raise AccessDenied(
                    f"no AWS credentials for {self._endpoint}",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile, "
                    "or give keys with the target",
                )
        if getattr(self._credentials, "refresh_needed", _never)():
            await asyncio.to_thread(self._credentials.get_frozen_credentials)
        return self._sign(self._credentials.get_frozen_credentials(), url, headers, body)

    def _signed_for_nobody(self, url: str) -> dict[str, str]:
        """Headers an endpoint without keys wants to see and cannot check.

        Made once a minute, not per request: hashing bodies for nobody would be the larger part of
        what a put costs the client.
        """
        now_s = time.monotonic()
        if now_s >= self._open_until_s:
            signed = self._sign(Credentials(_OPEN_KEY, _OPEN_KEY), url, {}, b"")
            self._open_headers = signed
            self._open_until_s = now_s + _OPEN_LIFETIME_S
        return self._open_headers

    def _sign(
        self, credentials: Any, url: str, headers: dict[str, str], body: bytes
    ) -> dict[str, str]:
        request = AWSRequest("POST", url, headers=headers, data=body)
        SigV4Auth(credentials, "kinesis", self._region).add_auth(request)
        return dict(request.headers.items())


def _never() -> bool:
    return False
