"""Headrace's own operations, beside those of Kinesis: leases and usage. JSON only."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headrace.core.errors import Serialization, UnknownOperation, ValidationError
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog
from headrace.core.service.leases import OPERATIONS as LEASE_OPERATIONS
from headrace.core.service.leases import LeaseService
from headrace.core.service.usage_report import DescribeUsageRequest, UsageService
from headrace.core.wire import codec
from headrace.core.wire.answer import Answer

_Request = TypeVar("_Request", bound=msgspec.Struct)


class Extension:
    """Those of one catalog."""

    def __init__(self, catalog: Catalog, metered: UsageService) -> None:
        self._leases = LeaseService(
            catalog.engine.control.submit, lambda: catalog.state.leases, clock=catalog.clock
        )
        self._metered = metered

    async def answer(self, caller: Caller, name: str, body: bytes) -> Answer:
        """Answer one request. Raises ServiceError, UnknownOperation for a name that is none."""
        if name == "DescribeUsage":
            asked = _decode(body, DescribeUsageRequest)
            pieces = await self._metered.describe(caller, asked.stream_name, asked.hours)
            return Answer(200, [(b"content-type", codec.JSON.encode())], pieces)
        found = LEASE_OPERATIONS.get(name)
        if found is None:
            raise UnknownOperation("")
        request_type, method = found
        answer = await getattr(self._leases, method)(
            _decode(body, request_type), account=caller.account, region=caller.region
        )
        return Answer(200, [], msgspec.json.encode(answer))


def _decode(body: bytes, request_type: type[_Request]) -> _Request:
    try:
        return msgspec.json.decode(body, type=request_type)
    except msgspec.ValidationError as error:
        raise ValidationError(str(error)) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Serialization(str(error)) from error
