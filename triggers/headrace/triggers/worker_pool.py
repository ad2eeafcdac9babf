"""The workers of one trigger: warm ones are used again, outdated and broken ones are not.

Shards share the pool, so the number of processes is bounded by `size`, not by the shards.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from headrace.triggers.function import FunctionFile
from headrace.triggers.protocol import Invoke, Returned, Start
from headrace.triggers.worker_process import LOAD_TIMEOUT_MS, WorkerProcess, WorkerSpec


class WorkerPool:
    """At most `size` processes, started when needed."""

    def __init__(
        self,
        file: FunctionFile,
        start: Start,
        *,
        size: int,
        region: str,
        load_timeout_ms: int = LOAD_TIMEOUT_MS,
    ) -> None:
        self._file = file
        self._spec = WorkerSpec(
            start=start,
            environment=_environment(start, region),
            load_timeout_ms=load_timeout_ms,
        )
        self._places = asyncio.Semaphore(size)
        self._idle: list[tuple[str, WorkerProcess]] = []
        self._busy: set[WorkerProcess] = set()

    async def invoke(
        self, request: Invoke, *, on_start: Callable[[str], None]
    ) -> tuple[Returned, str]:
        """Run one batch in a worker that has the file's present content.

        `on_start` is called when a worker is at hand and the handler is about to run, with the
        version of the file it runs.

        Returns:
            The answer, and the tail of what the handler printed.

        Raises:
            FunctionUnavailable: no worker could be had; the handler has not run.
            FunctionError: the invocation failed.
        """
        async with self._places:
            version = self._file.version()
            worker = await self._take(version)
            self._busy.add(worker)
            try:
                on_start(version)
                return await worker.invoke(request), worker.output.text()
            finally:
                self._busy.discard(worker)
                if worker.is_usable:
                    self._idle.append((version, worker))
                else:
                    await worker.kill()

    async def close(self) -> None:
        """End every process; what still runs is killed."""
        idle, self._idle = self._idle, []
        await asyncio.gather(
            *(worker.kill() for worker in self._busy), *(worker.close() for _, worker in idle)
        )

    async def _take(self, version: str) -> WorkerProcess:
        while self._idle:
            warm_version, worker = self._idle.pop()
            if warm_version == version and worker.is_usable:
                return worker
            await worker.close()
        return await WorkerProcess.start(self._spec)


def _environment(start: Start, region: str) -> dict[str, str]:
    """The runner's own environment, with what Lambda sets and libraries for it look for."""
    memory_mb = (start.memory_bytes or 0) // (1024 * 1024)
    return {
        **os.environ,
        "AWS_REGION": os.environ.get("AWS_REGION", region),
        "AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION", region),
        "AWS_LAMBDA_FUNCTION_NAME": start.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{start.function_name}",
        "LAMBDA_TASK_ROOT": os.path.dirname(start.file),
        "_HANDLER": f"{os.path.basename(start.file)[:-3]}.{start.attribute}",
    }
