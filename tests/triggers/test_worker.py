"""What a handler gets, gives and raises: the runner has an answer or an error, and goes on."""

from __future__ import annotations

import pytest

from headrace.triggers.protocol import MAX_RESPONSE_BYTES, Invoke
from triggers_support import MakePool, WriteFunction, call, failure

MIB = 1024 * 1024


class TestHandlers:
    async def test_a_lambda_handler_runs_unchanged(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            import os
            def handler(event, context):
                left = context.get_remaining_time_in_millis()
                return {
                    "event": event,
                    "name": context.function_name,
                    "version": context.function_version,
                    "arn": context.invoked_function_arn,
                    "memory": context.memory_limit_in_mb,
                    "request": context.aws_request_id,
                    "group": context.log_group_name,
                    "stream": context.log_stream_name,
                    "identity": context.identity.cognito_identity_id,
                    "client": context.client_context,
                    "left_is_right": 50_000 < left <= 60_000,
                    "environment": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
                }
            """
        )
        pool = make_pool(path, memory_bytes=512 * MIB)
        assert await call(pool, {"Records": []}, timeout_ms=60_000) == {
            "event": {"Records": []},
            "name": "function-handler",
            "version": "$LATEST",
            "arn": "arn:aws:lambda:us-east-1:123456789012:function:function-handler",
            "memory": "512",
            "request": "request-1",
            "group": "/aws/lambda/function-handler",
            "stream": "request-1",
            "identity": None,
            "client": None,
            "left_is_right": True,
            "environment": "function-handler",
        }

    async def test_async_handlers_share_one_loop(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            import asyncio
            loops = []
            async def handler(event, context):
                await asyncio.sleep(0)
                loops.append(asyncio.get_running_loop())
                return len(loops), len(set(loops))
            """
        )
        pool = make_pool(path)
        assert await call(pool) == [1, 1]
        assert await call(pool) == [2, 1]

    async def test_a_neighbouring_module_can_be_imported(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        write_function("answer = 42", name="neighbour")
        path = write_function("import neighbour\ndef handler(e, c): return neighbour.answer")
        assert await call(make_pool(path)) == 42

    async def test_a_file_named_like_a_standard_module(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("def handler(e, c):\n    return 1", name="json")
        assert await call(make_pool(path)) == 1

    async def test_decimals_are_numbers(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            "from decimal import Decimal\ndef handler(e, c): return [Decimal('1.5')]"
        )
        assert await call(make_pool(path)) == [1.5]

    async def test_what_it_prints_is_logged_and_kept_apart_from_the_answer(
        self,
        write_function: WriteFunction,
        make_pool: MakePool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = write_function(
            """
            import logging, os, sys
            def handler(event, context):
                print("to stdout")
                print("to stderr", file=sys.stderr)
                logging.getLogger().error("to the log")
                os.write(1, b"to the descriptor\\n")
                return "ok"
            """
        )
        caplog.set_level("INFO", logger="headrace.triggers.function")
        pool = make_pool(path)
        answer, output = await pool.invoke(
            Invoke("r", b"null", 20_000), on_start=lambda _version: None
        )
        assert answer.payload == b'"ok"'
        for text in ("to stdout", "to stderr", "to the log", "to the descriptor"):
            assert text in output
            assert text in caplog.text
        assert "[function-handler] to stdout" in caplog.messages


class TestErrors:
    async def test_an_exception_has_its_type_message_and_stack(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("def handler(e, c):\n    print('so far')\n    return 1 / 0")
        pool = make_pool(path)
        error = await failure(pool)
        assert (error.error_type, error.message) == ("ZeroDivisionError", "division by zero")
        assert "return 1 / 0" in error.stack
        assert "worker.py" not in error.stack
        assert error.output == "so far\n"

    async def test_after_an_exception_the_worker_is_used_again(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            import os
            def handler(event, context):
                if event:
                    raise SystemExit(os.getpid())
                return os.getpid()
            """
        )
        pool = make_pool(path)
        error = await failure(pool, True)
        assert error.error_type == "SystemExit"
        assert await call(pool) == int(error.message)

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            ("object()", "Unable to marshal response: Object of type object is not JSON"),
            ("b'bytes'", "Unable to marshal response: Object of type bytes is not JSON"),
            ("(lambda x: x.append(x) or x)([])", "Unable to marshal response: Circular"),
            ("'\\ud800'", "Unable to marshal response: 'utf-8' codec can't encode"),
        ],
    )
    async def test_an_unserialisable_response(
        self, write_function: WriteFunction, make_pool: MakePool, returned: str, message: str
    ) -> None:
        """Scenario 22."""
        path = write_function(f"def handler(event, context):\n    return {returned}\n")
        error = await failure(make_pool(path))
        assert error.error_type == "Runtime.MarshalError"
        assert error.message.startswith(message)

    async def test_a_response_over_6_mb(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        """Scenario 22: to the byte."""
        path = write_function("def handler(size, context):\n    return 'x' * (size - 2)\n")
        pool = make_pool(path)
        assert len(str(await call(pool, MAX_RESPONSE_BYTES))) == MAX_RESPONSE_BYTES - 2
        error = await failure(pool, MAX_RESPONSE_BYTES + 1)
        assert error.error_type == "Function.ResponseSizeTooLarge"
        assert "(6291556 bytes)" in error.message

    async def test_a_flood_of_output_neither_blocks_nor_fills_anything(
        self,
        write_function: WriteFunction,
        make_pool: MakePool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Scenario 22: 64 MiB of output; the tail is kept, the log says what it left out."""
        path = write_function(
            """
            def handler(event, context):
                for _ in range(1024):
                    print("x" * 65535)
                print("the end")
                return "ok"
            """
        )
        caplog.set_level("INFO", logger="headrace.triggers.function")
        pool = make_pool(path)
        answer, output = await pool.invoke(
            Invoke("r", b"null", 60_000), on_start=lambda _version: None
        )
        assert answer.payload == b'"ok"'
        assert output.endswith("x\nthe end\n")
        assert len(output) == 64 * 1024
        await pool.close()
        assert len(caplog.records) < 1_010
        assert "more bytes of output not logged" in caplog.text

    async def test_an_exception_of_megabytes_is_cut(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function("def handler(e, c):\n    raise ValueError('x' * 50_000_000)")
        error = await failure(make_pool(path))
        assert len(error.message) == len(error.stack) == 64 * 1024

    async def test_an_exception_that_cannot_be_shown(
        self, write_function: WriteFunction, make_pool: MakePool
    ) -> None:
        path = write_function(
            """
            class Odd(Exception):
                def __str__(self):
                    raise RuntimeError
            def handler(event, context):
                raise Odd
            """
        )
        assert (await failure(make_pool(path))).error_type == "Odd"
