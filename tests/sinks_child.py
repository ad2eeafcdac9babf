"""A worker as a process of its own, to be killed: delivers a scripted shard and exits 0.

python tests/sinks_child.py '{"config": {...}, "base": "...", "checkpoint": "...", ...}'
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

from headrace.core.model.leases import SHARD_END
from headrace.core.model.records import Record
from headrace.sinks.config import SinkConfig
from headrace.sinks.stores import s3
from headrace.sinks.testing import ScriptedShard, make_records
from sinks_support import deliver


def scripted_records(count: int) -> list[Record]:
    """The same every time: mostly JSON with a key that comes later, some of anything else."""
    data = []
    for i in range(count):
        value = {"id": i, "path": f"/{i % 13}", "ms": i / 4, **({"late": "x"} if i > 90 else {})}
        data.append(b"no json %d" % i if i % 50 == 7 else json.dumps(value).encode())
    return make_records(data)


def big_records() -> list[Record]:
    """Twelve of a mebibyte that no codec makes smaller: one file of several parts."""
    chance = random.Random(1)
    return make_records([chance.randbytes(1024 * 1024) for _ in range(12)])


def main() -> None:
    spec = json.loads(sys.argv[1])
    if spec.get("is_big"):
        s3.PART_BYTES = 5 * 1024 * 1024
    shard = ScriptedShard(
        big_records() if spec.get("is_big") else scripted_records(spec["records"]),
        checkpoint_file=Path(spec["checkpoint"]),
        is_closed=spec.get("is_closed", True),
        batch_records=spec.get("batch_records", 40),
    )

    if shard.checkpoint == SHARD_END:  # finished: nobody is given such a lease
        print("ready", flush=True)
        return

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shard.stopping.set)
        print("ready", flush=True)
        await deliver(SinkConfig.model_validate(spec["config"]), Path(spec["base"]), shard)

    asyncio.run(run())


if __name__ == "__main__":
    main()
