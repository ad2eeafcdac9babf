"""Tokens of the next page expire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api_support import server_here
from headrace.core.client import StreamClient
from headrace.core.errors import ExpiredNextToken
from headrace.core.part import StreamTarget
from headrace.core.testing.manual_clock import ManualClock


@pytest.mark.parametrize(
    ("operation", "all_", "limit", "listed"),
    [
        ("ListStreams", {}, "Limit", "StreamNames"),
        ("ListShards", {"StreamName": "a"}, "MaxResults", "Shards"),
    ],
)
async def test_a_token_expires_after_300_seconds(
    tmp_path: Path, operation: str, all_: dict[str, Any], limit: str, listed: str
) -> None:
    clock = ManualClock()
    async with (
        server_here(tmp_path / "s", clock) as server,
        StreamClient(StreamTarget(endpoint=server.endpoint)) as client,
    ):
        for stream in "abc":
            await client.ensure_stream(stream, shards=3)
        whole = (await client.call(operation, all_))[listed]
        token = (await client.call(operation, {**all_, limit: 1}))["NextToken"]
        await clock.advance(300_000)
        assert (await client.call(operation, {"NextToken": token}))[listed] == whole[1:]
        await clock.advance(1)
        with pytest.raises(ExpiredNextToken, match="more than the tolerated 300000"):
            await client.call(operation, {"NextToken": token})
