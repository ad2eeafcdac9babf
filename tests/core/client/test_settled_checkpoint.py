"""What a worker before had prepared is settled, and then not read again."""

from __future__ import annotations

import asyncio

from headrace.core.client import StreamClient
from headrace.core.consumer import Consumer, ShardLease
from headrace.core.leases import StreamLeases
from headrace.core.model.records import PutEntry


async def test_reading_begins_after_a_checkpoint_that_was_settled_first(
    client: StreamClient,
) -> None:
    await client.ensure_stream("numbers", shards=1)
    await client.put_records("numbers", [PutEntry(b"%d" % n, "key") for n in range(10)])
    seen: list[list[bytes]] = []
    done = asyncio.Event()

    async def work(lease: ShardLease) -> None:
        if lease.pending_checkpoint is not None:
            assert lease.pending_state == b"state"
            await lease.save(lease.pending_checkpoint)
        while (batch := await lease.read(max_records=4)) is not None:
            seen.append([record.data for record in batch.records])
            last = batch.records[-1]
            await lease.prepare(last.sequence_number, b"state")
            if len(seen) == 2:
                raise RuntimeError("dies with a prepared checkpoint")
            await lease.save(last.sequence_number)
            if last.data == b"9":
                done.set()

    leases = StreamLeases(client, "application", "numbers", "worker")
    consumer = Consumer(client, leases, stream="numbers", worker="worker", work=work)
    running = asyncio.create_task(consumer.run())
    await asyncio.wait_for(done.wait(), 20)
    await consumer.stop()
    await running
    assert seen == [[b"0", b"1", b"2", b"3"], [b"4", b"5", b"6", b"7"], [b"8", b"9"]]
