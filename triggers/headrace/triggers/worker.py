"""The process a handler runs in: `python -m headrace.triggers.worker FD`.

Loads one function and answers invocations over the socket FD, one at a time, until the socket
closes. Whatever the handler does to this process - crash it, hang it, fill its memory, flood its
output - the runner only sees an answer or the lack of one. It writes no state of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import decimal
import importlib.machinery
import importlib.util
import inspect
import json
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import msgspec

from headrace.triggers.context import Context
from headrace.triggers.protocol import (
    HEADER,
    MAX_RESPONSE_BYTES,
    MAX_TEXT_CHARS,
    OUT_OF_MEMORY_STATUS,
    Invoke,
    Raised,
    Ready,
    Returned,
    Start,
    ToWorker,
    Unloadable,
    decode_to_worker,
    encode,
)

_PR_SET_PDEATHSIG = 1
_OWN_FRAMES = (__file__, "<frozen importlib")
Handler = Callable[[Any, Context], Any]


def main() -> None:
    parent = int(sys.argv[2])
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)  # what the handler starts has no business here
    _die_with(parent)
    start = _receive(channel)
    if not isinstance(start, Start):
        return
    _set_up(start)
    try:
        handler = _load(Path(start.file), start.attribute)
    except BaseException as error:  # an import can raise anything, SystemExit included
        channel.sendall(encode(Unloadable(*_describe(error))))
        return
    channel.sendall(encode(Ready()))
    own_pid = os.getpid()
    with asyncio.Runner() as loop:  # one loop for all invocations, so async clients can be kept
        while isinstance(request := _receive(channel), Invoke):
            answer = _invoke(handler, request, start, loop)
            if os.getpid() != own_pid:  # a child the handler forked and let return: not our answer
                os._exit(1)
            _answer(channel, answer)


def _invoke(
    handler: Handler, request: Invoke, start: Start, loop: asyncio.Runner
) -> Returned | Raised:
    """Run the handler once. Never raises."""
    context = Context(
        request_id=request.request_id,
        function_name=start.function_name,
        function_arn=start.function_arn,
        memory_limit_in_mb=str((start.memory_bytes or 0) // (1024 * 1024)),
        source_stream=start.source_stream,
        timeout_ms=request.timeout_ms,
    )
    try:
        event = msgspec.json.decode(request.event)
        result = handler(event, context)
        if inspect.isawaitable(result):
            result = loop.run(_awaited(result))
    except BaseException as error:
        return Raised(*_describe(error), is_out_of_memory=isinstance(error, MemoryError))
    finally:
        emits = context.close()
    try:
        payload = json.dumps(result, ensure_ascii=False, default=_encode_other).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return Raised("Runtime.MarshalError", f"Unable to marshal response: {error}", "")
    except MemoryError as error:
        return Raised(*_describe(error), is_out_of_memory=True)
    if len(payload) > MAX_RESPONSE_BYTES:
        message = (
            "Response payload size exceeded maximum allowed payload size "
            f"({MAX_RESPONSE_BYTES} bytes)."
        )
        return Raised("Function.ResponseSizeTooLarge", message, "")
    return Returned(payload, emits)


def _answer(channel: socket.socket, answer: Returned | Raised) -> None:
    # Output first: once the runner has the answer, everything printed is in its pipe.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the handler closed it
            continue
    try:
        frame = encode(answer)
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
    channel.sendall(frame)


def _receive(channel: socket.socket) -> ToWorker | None:
    """The runner's next message, or None when it has gone."""
    header = _read(channel, HEADER.size)
    if header is None:
        return None
    body = _read(channel, HEADER.unpack(header)[0])
    return None if body is None else decode_to_worker(body)


def _read(channel: socket.socket, size_bytes: int) -> bytearray | None:
    body = bytearray(size_bytes)
    view = memoryview(body)
    while view:
        try:
            count = channel.recv_into(view)
        except ConnectionError:
            return None
        if count == 0:
            return None
        view = view[count:]
    return body


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the runner dies, however the handler hangs."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def _set_up(start: Start) -> None:
    if start.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (start.memory_bytes, start.memory_bytes))
    # Lambda's runtime brings a root log handler too; handlers only set its level.
    logging.basicConfig(format="[%(levelname)s] %(name)s: %(message)s", level=logging.WARNING)
    sys.path.insert(0, str(Path(start.file).parent))


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Always compiles the source. The bytecode cache compares whole seconds and the size, so two
    quick edits of equal length would run the older one."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load(file: Path, attribute: str) -> Handler:
    name = file.stem
    if name in sys.stdlib_module_names or name in sys.modules:
        name = f"headrace_function_{name}"  # a function file called json.py is allowed
    spec = importlib.util.spec_from_file_location(name, file, loader=_SourceLoader(name, str(file)))
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    handler = getattr(module, attribute, None)
    if not callable(handler):
        found = "has no" if handler is None else "has something that cannot be called as"
        raise AttributeError(f"{file.name} {found} {attribute!r}")
    return handler  # type: ignore[no-any-return]


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _encode_other(value: object) -> object:
    if isinstance(value, decimal.Decimal):  # what DynamoDB clients hand out
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _describe(error: BaseException) -> tuple[str, str, str]:
    """Type, message and stack of an error, without this file's own frames."""
    try:
        message = str(error)
    except Exception:  # an exception whose __str__ fails is still an exception
        message = "(its message could not be read)"
    rest: TracebackType | None = error.__traceback__
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_OWN_FRAMES):
        rest = rest.tb_next
    stack = "".join(traceback.format_exception(type(error), error, rest))
    return type(error).__name__, message[:MAX_TEXT_CHARS], stack[-MAX_TEXT_CHARS:]


if __name__ == "__main__":
    main()
