"""What ends a worker, from within or without: it alone suffers, and the next one answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from headrace.triggers.config import MIN_MEMORY_BYTES
from headrace.triggers.event import MAX_EVENT_BYTES
from headrace.triggers.function import FunctionUnavailable
from triggers_support import (
    MakePool,
    WriteFunction,
    call,
    content,
    exists,
    failure,
    until,
)

MIB = 1024 * 1024


class TestDeaths:
    async def test_os_exit(self, write_function: WriteFunction, make_pool: MakePool) -> None:
        """Scenario 17."""
        path = write_function(
            """
            import os
            def handler(event, context):
                if event:
                    print("last words")
                    os._exit(event)
                return os.getpid()
            """
        )
        pool = make_pool(path)
        first = await call(pool)
        error = await failure(pool, 3)
        assert error.error_type == "Runtime.ExitError"
        assert error.message == "Runtime exited with error: exit status 3"
        assert error.output == "last words\n"
        assert await call(pool) != first

    async def test_sigkill(self, write_function: WriteFunction, make_pool: MakePool) -> None:
        """Scenario 18."""
        path = write_function(
            """
            import os, signal
            def handler(event, context):
                print("before the kill")
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        error = await failure(make_pool(path))
        assert "signal: killed" in error.message
        assert error.output == "before the kill\n"

    async def test_a_worker_killed_between_invocations_costs_nothing(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("import os\ndef handler(e, c): return os.getpid()")
        pool = make_pool(path)
        pid = await call(pool)
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not exists(pid))
        # until asyncio's watcher thread has told the loop
        await until(lambda: not any(worker.is_usable for _, worker in pool._idle))
        assert await call(pool) != pid

    @pytest.mark.parametrize(
        "hang",
        [
            "while True: pass",
            "import time; time.sleep(1000)",
            "pthread_sigmask(SIG_BLOCK, valid_signals()); pause()",
            "raise_signal(SIGSTOP)",
        ],
    )
    async def test_a_hang_is_killed_at_the_timeout(
        self, write_function: WriteFunction, make_pool: MakePool, hang: str
    ) -> None:
        """Scenario 20."""
        path = write_function(
            f"""
            from signal import *
            def handler(event, context):
                print("hm")
                {hang}
            """
        )
        pool = make_pool(path)
        began = time.monotonic()
        error = await failure(pool, timeout_ms=800)  # so long a worker may take to print
        assert error.message == "Task timed out after 0.80 seconds"
        assert error.output == "hm\n"
        assert time.monotonic() - began < 30

    @pytest.mark.parametrize("crash", [True, False])
    async def test_children_die_with_the_worker(
        self, write_function: WriteFunction, make_pool: MakePool, tmp_path: Path, crash: bool
    ) -> None:
        """Scenario 21: after a crash that leaves a child behind, and after a timeout."""
        path = write_function(
            """
            import os, subprocess, time
            def handler(event, context):
                child = subprocess.Popen(["sleep", "1000"])
                open(event["file"], "w").write(str(child.pid))
                if event["crash"]:
                    os._exit(1)
                time.sleep(1000)
            """
        )
        file = tmp_path / "child"
        timeout_ms = 20_000 if crash else 3_000
        await failure(make_pool(path), {"file": str(file), "crash": crash}, timeout_ms=timeout_ms)
        await until(lambda: not exists(int(file.read_text())))

    async def test_a_forked_child_that_returns_answers_nothing(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            import os
            def handler(event, context):
                if event == "fork" and (pid := os.fork()):
                    os.waitpid(pid, 0)
                    return "parent"
                return "child" if event == "fork" else event
            """
        )
        pool = make_pool(path)
        assert await call(pool, "fork") == "parent"
        assert await call(pool, "next") == "next"

    async def test_a_handler_that_closes_every_descriptor(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("import os\ndef handler(e, c): os.closerange(0, 1 << 16)")
        error = await failure(make_pool(path))
        assert error.error_type == "Runtime.ExitError"

    async def test_a_cancelled_invocation_kills_its_worker(
        self, write_function: WriteFunction, make_pool: MakePool, tmp_path: Path
    ) -> None:
        path = write_function(
            """
            import os, time
            def handler(event, context):
                open(event, "w").write(str(os.getpid()))
                time.sleep(1000)
            """
        )
        file = tmp_path / "pid"
        task = asyncio.create_task(call(make_pool(path), str(file)))
        await until(lambda: content(file))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not exists(int(file.read_text())))


class TestMemory:
    async def test_memory(self, write_function: WriteFunction, make_pool: MakePool) -> None:
        """Scenario 19: only the worker suffers, and the error says what was short."""
        path = write_function(
            """
            import os
            def handler(event, context):
                if event:
                    hoard = [bytearray(10_000_000) for _ in range(1000)]
                return os.getpid()
            """
        )
        pool = make_pool(path, memory_bytes=256 * MIB)
        pid = await call(pool)
        error = await failure(pool, True)
        assert error.message == "Runtime exited: out of memory, over its limit of 256.0 MiB"
        assert error.error_type == "MemoryError"
        assert await call(pool) != pid

    async def test_the_least_memory_holds_the_largest_event(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("def handler(event, context): return len(event)")
        pool = make_pool(path, memory_bytes=MIN_MEMORY_BYTES)
        size = MAX_EVENT_BYTES - 2
        assert await call(pool, "x" * size) == size

    async def test_a_limit_too_low_for_its_imports_says_so(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("hoard = bytearray(100_000_000)\ndef handler(e, c): ...")
        with pytest.raises(FunctionUnavailable, match="MemoryError"):
            await call(make_pool(path, memory_bytes=MIN_MEMORY_BYTES))
