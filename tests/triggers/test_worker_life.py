"""A worker's life: loading the function, emitting, being shared, and its end with the runner."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from headrace.triggers.function import FunctionUnavailable
from headrace.triggers.protocol import Emit, Invoke
from headrace.triggers.worker_pool import WorkerPool
from triggers_support import (
    MakePool,
    WriteFunction,
    call,
    content,
    emits,
    exists,
    failure,
    until,
)

MIB = 1024 * 1024


class TestLoading:
    async def unavailable(self, pool: WorkerPool) -> FunctionUnavailable:
        def started(_version: str) -> None:
            raise AssertionError("it was invoked")

        with pytest.raises(FunctionUnavailable) as caught:
            await pool.invoke(Invoke("r", b"null", 20_000), on_start=started)
        return caught.value

    async def test_a_missing_file(self, tmp_path: Path, make_pool: MakePool) -> None:
        error = await self.unavailable(make_pool(tmp_path / "none.py"))
        assert "none.py: No such file" in error.message

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("def handler(e, c:", "SyntaxError"),
            ("import there_is_no_such_module", "there_is_no_such_module"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("import os; os._exit(3)", "exit status 3"),
            ("def handle(e, c): ...", "function.py has no 'handler'"),
            ("handler = 5", "cannot be called"),
        ],
    )
    async def test_a_file_that_cannot_be_imported(
        self, write_function: WriteFunction, make_pool: MakePool, source: str, message: str
    ) -> None:
        """Scenario 23, as far as a file has versions: nothing is invoked."""
        error = await self.unavailable(make_pool(write_function(source)))
        assert message in error.message

    async def test_an_import_that_hangs(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("import time\ntime.sleep(1000)")
        error = await self.unavailable(make_pool(path, load_timeout_ms=500))
        assert "took longer than 0.5 s" in error.message

    async def test_an_import_error_has_its_stack(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("def build():\n    return {}['nothing']\n\nthing = build()\n")
        error = await self.unavailable(make_pool(path))
        assert "in build" in error.stack
        assert "importlib" not in error.stack

    async def test_changed_content_runs_in_a_fresh_worker(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        """Same length and quick succession: what the bytecode cache would get wrong."""
        path = write_function("def handler(e, c): return 1")
        pool = make_pool(path)
        for version in (1, 2, 3):
            path.write_text(f"def handler(e, c): return {version}")
            os.utime(path, ns=(version, version))
            assert await call(pool) == version

    async def test_a_repaired_file_is_taken_up(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("def handler(e, c) return 1")
        pool = make_pool(path)
        await self.unavailable(pool)
        path.write_text("def handler(e, c): return 1")
        assert await call(pool) == 1

    async def test_a_touched_file_keeps_its_worker(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("import os\ndef handler(e, c): return os.getpid()")
        pool = make_pool(path)
        pid = await call(pool)
        path.touch()
        assert await call(pool) == pid


class TestEmits:
    async def test_they_come_with_the_answer_in_order(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            def handler(event, context):
                context.emit("alerts", b"\\x00\\xff", "k1")
                context.emit("alerts", "text ü", partition_key="k2", sequence_number="49")
            """
        )
        assert await emits(make_pool(path)) == [
            Emit("alerts", b"\x00\xff", "k1", None),
            Emit("alerts", "text ü".encode(), "k2", "49"),
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("'source', b'', 'k'", "is the stream this trigger reads"),
            ("'s', {}, 'k'", "data is bytes or str, not dict"),
            ("'s', b'', ''", "1 to 256 characters"),
            ("'s', b'', 'k' * 257", "1 to 256 characters"),
            ("'', b'', 'k'", "name of a stream"),
            ("'s', bytes(10 * 1024 * 1024 + 1), 'k'", "10 MiB at most"),
            ("'s', bytes(8 * 1024 * 1024), 'k'", "about 8 MiB"),
        ],
    )
    async def test_one_that_could_never_be_put_is_refused_at_once(
        self, write_function: WriteFunction, make_pool: MakePool, arguments: str, message: str
    ) -> None:
        """Scenario 44 among them."""
        path = write_function(f"def handler(e, context):\n    context.emit({arguments})\n")
        error = await failure(make_pool(path))
        assert message in error.message
        assert "context.emit(" in error.stack

    async def test_65536_fit_and_no_more(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            "def handler(n, context):\n    for _ in range(n): context.emit('s', b'', 'k')\n"
        )
        pool = make_pool(path)
        assert len(await emits(pool, 65_536)) == 65_536
        assert "at most 65536 records" in (await failure(pool, 65_537)).message

    async def test_a_thread_that_emits_too_late_is_told(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            kept = []
            def handler(event, context):
                if not kept:
                    kept.append(context)
                    return
                try:
                    kept[0].emit("s", b"", "k")
                except RuntimeError as error:
                    return str(error)
            """
        )
        pool = make_pool(path)
        await call(pool)
        assert "this invocation is over" in str(await call(pool))


class TestPool:
    async def test_no_more_processes_than_its_size(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            "import os, time\ndef handler(e, c):\n    time.sleep(0.1)\n    return os.getpid()"
        )
        pool = make_pool(path, size=2)
        pids = await asyncio.gather(*(call(pool) for _ in range(6)))
        assert len(set(map(str, pids))) == 2

    async def test_workers_die_with_the_runner(
        self, write_function: WriteFunction, tmp_path: Path
    ) -> None:
        """The runner is killed while its handler hangs: nobody is there to kill the worker."""
        path = write_function(
            """
            import os, time
            def handler(event, context):
                open(event, "w").write(str(os.getpid()))
                while True: time.sleep(1)
            """
        )
        file = tmp_path / "pid"
        runner = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"""
import asyncio, json
from pathlib import Path
from headrace.triggers.function import FunctionFile
from headrace.triggers.protocol import Invoke, Start
from headrace.triggers.worker_pool import WorkerPool
async def main():
    file = {str(path)!r}
    start = Start(file=file, attribute="handler", function_name="f", function_arn="arn",
                  source_stream="s", memory_bytes=None)
    pool = WorkerPool(FunctionFile(Path(file)), start, size=1, region="us-east-1")
    await pool.invoke(Invoke("r", json.dumps({str(file)!r}).encode(), 60_000), on_start=print)
asyncio.run(main())
""",
        )
        await until(lambda: content(file))
        runner.kill()
        await runner.wait()
        await until(lambda: not exists(int(file.read_text())))
