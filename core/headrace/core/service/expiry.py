"""Expiry: takes from the logs what is older than their streams keep it."""

from __future__ import annotations

import contextlib

from headrace.core.control.stream_state import StreamState
from headrace.core.control.streams import DropShards
from headrace.core.engine.seam import LogClosed
from headrace.core.errors import StorageError, StorageFull
from headrace.core.service.addressing import address
from headrace.core.service.catalog import Catalog, OpenStream


class Expiry:
    """Of all streams of a catalog that are served."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def run(self) -> None:
        """Remove segments that hold nothing but expired records, and shards that have none left.

        Where that fails in one stream it goes on with the others: see `Catalog.troubles`.
        """
        catalog = self._catalog
        for stream in list(catalog.state.streams.streams.values()):
            opened = catalog.opened_by_uid(stream.uid)
            if opened is None or stream.status == "DELETING":
                continue
            try:
                gone = await self._expire_in(opened)
            except LogClosed:  # deleted meanwhile
                continue
            except (StorageError, OSError) as error:
                if catalog.opened_by_uid(stream.uid) is not None:
                    message = f"stream {stream.name} keeps records that have expired: {error}"
                    catalog.troubles.report(stream.uid, message)
                continue
            catalog.troubles.clear(stream.uid)
            if gone:
                await self._drop(stream, gone)

    async def _expire_in(self, opened: OpenStream) -> list[int]:
        """Trim a log; returns the shards that have nothing left."""
        horizon_ms = self._catalog.horizon_ms(opened.stream)
        if await opened.log.trim(horizon_ms):
            for tell in self._catalog.on_trim:
                tell(opened.stream.uid)
        return [
            shard.number
            for shard in tuple(opened.stream.shards)
            if shard.closed_s is not None
            and (shard.closed_s + 1) * 1000 <= horizon_ms
            and shard.number not in opened.closing
            # a put may have come in later than the second in which the shard is said to close
            and await opened.log.find_time(shard.number, horizon_ms) >= opened.log.tail
        ]

    async def _drop(self, stream: StreamState, shards: list[int]) -> None:
        # on a full disk the next streams' segments are what is wanted; the next round drops them
        with contextlib.suppress(StorageFull):
            await self._catalog.engine.control.submit(DropShards(**address(stream), shards=shards))
