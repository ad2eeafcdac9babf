"""One worker process, seen from the runner: start it, let it answer, kill it.

The worker leads its own process group; killing means SIGKILL to the whole group, so nothing the
handler started stays. No await here depends on the handler's goodwill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass, field

import msgspec

from headrace.core.units import format_size
from headrace.triggers.function import FunctionError, FunctionUnavailable
from headrace.triggers.output import Output
from headrace.triggers.protocol import (
    HEADER,
    MAX_FRAME_BYTES,
    OUT_OF_MEMORY_STATUS,
    FromWorker,
    Invoke,
    Ready,
    Returned,
    Start,
    Unloadable,
    decode_from_worker,
    encode,
)

LOAD_TIMEOUT_MS = 60_000  # imports may be slow on a cold disk; not part of the handler's timeout
_EXIT_GRACE_S = 2.0  # for a worker told to leave, before it is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a worker is started with; `environment` is the whole of it."""

    start: Start
    environment: dict[str, str] = field(repr=False)
    load_timeout_ms: int = LOAD_TIMEOUT_MS


class WorkerProcess:
    """A started worker. Use `start`; call `invoke` one at a time."""

    def __init__(
        self,
        spec: WorkerSpec,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
        output: Output,
    ) -> None:
        self._start = spec.start
        self._process = process
        self._channel = channel
        self._exited = asyncio.create_task(process.wait())
        self._is_killed = False
        self.output = output

    @classmethod
    async def start(cls, spec: WorkerSpec) -> WorkerProcess:
        """A worker with the function loaded.

        Raises:
            FunctionUnavailable: the process could not be started, or the function not loaded.
        """
        worker = await cls._spawn(spec)
        try:
            async with asyncio.timeout(spec.load_timeout_ms / 1000):
                answer = await worker._exchange(encode(spec.start))
        except TimeoutError:
            await worker.kill()
            seconds = spec.load_timeout_ms / 1000
            raise FunctionUnavailable(
                f"importing {spec.start.file} took longer than {seconds:g} s"
            ) from None
        except FunctionError as error:
            await worker.kill()
            raise FunctionUnavailable(
                f"importing {spec.start.file}: {error.message}", stack=error.output
            ) from None
        except BaseException:
            await worker.kill()
            raise
        if isinstance(answer, Ready):
            return worker
        await worker.kill()
        if isinstance(answer, Unloadable):
            raise FunctionUnavailable(
                f"cannot load {spec.start.file}: {answer.error_type}: {answer.message}",
                stack=answer.stack,
            )
        raise FunctionUnavailable(f"loading {spec.start.file}: the worker answered out of turn")

    @classmethod
    async def _spawn(cls, spec: WorkerSpec) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        read_fd, write_fd = os.pipe()
        try:
            # Pipes of our own: a pipe of asyncio's would keep `wait` waiting for whatever
            # child of the handler still holds it.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-u",  # or what a handler said just before it dies is lost
                "-m",
                "headrace.triggers.worker",
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=spec.environment,
            )
        except BaseException as error:
            ours.close()
            os.close(read_fd)
            if isinstance(error, OSError):
                raise FunctionUnavailable(
                    f"cannot start a worker process: {error}",
                    hint="the machine is out of processes, files or memory; see `ulimit -a`",
                ) from error
            raise
        finally:
            theirs.close()
            os.close(write_fd)
        ours.setblocking(False)
        return cls(spec, process, ours, Output(read_fd, spec.start.function_name))

    @property
    def is_usable(self) -> bool:
        return not self._is_killed and not self._exited.done()

    async def invoke(self, request: Invoke) -> Returned:
        """Run the handler on one batch. After an error, ask `is_usable`.

        Raises:
            FunctionError: the handler failed, or took longer than `request.timeout_ms`, or the
                process died. Cancelling kills the process.
        """
        self.output.begin()
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                answer = await self._exchange(encode(request))
        except TimeoutError:
            await self.kill()
            seconds = request.timeout_ms / 1000
            raise self._error(
                "Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds"
            ) from None
        except FunctionError:
            await self.kill()
            raise
        except BaseException:
            await self.kill()
            raise
        self.output.drain()
        if isinstance(answer, Returned):
            return answer
        if isinstance(answer, Ready | Unloadable):
            await self.kill()
            raise self._error("Runtime.InvalidAnswer", "the worker answered out of turn")
        message = answer.message
        if answer.is_out_of_memory:
            await self.kill()
            message = self._memory_message()
        raise self._error(answer.error_type, message, answer.stack)

    async def close(self) -> None:
        """Let the worker leave by itself, then make sure of it."""
        self._channel.close()
        await asyncio.wait({self._exited}, timeout=_EXIT_GRACE_S)
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL to the process group; returns when the worker is gone."""
        if not self._is_killed:
            self._is_killed = True
            self._channel.close()
            # Also after the worker itself has gone: what it started may still be there, or nobody.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.output.close()
        await asyncio.shield(self._exited)

    async def _exchange(self, frame: bytes) -> FromWorker:
        """Send a frame, and receive one.

        Raises:
            FunctionError: the process ended, or closed the socket, or sent nonsense.
        """
        exchange = asyncio.create_task(self._send_and_receive(frame))
        try:
            await asyncio.wait({exchange, self._exited}, return_when=asyncio.FIRST_COMPLETED)
            if exchange.done() and (answer := exchange.result()) is not None:
                return answer
        finally:
            exchange.cancel()
            await asyncio.wait({exchange})  # off the socket before anybody closes it
        if not self._exited.done():  # it closed the socket; give the exit a moment to be seen
            await asyncio.wait({self._exited}, timeout=_EXIT_GRACE_S)
        self.output.drain()
        raise self._error("Runtime.ExitError", self._exit_message())

    async def _send_and_receive(self, frame: bytes) -> FromWorker | None:
        """None when the connection ended before a whole answer."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._channel, frame)
            header = await self._read(HEADER.size)
            size_bytes = HEADER.unpack(header)[0]
            if size_bytes > MAX_FRAME_BYTES:
                raise self._error("Runtime.InvalidAnswer", f"an answer of {size_bytes} bytes")
            return decode_from_worker(await self._read(size_bytes))
        except (ConnectionError, EOFError):
            return None
        except msgspec.MsgspecError as error:
            raise self._error("Runtime.InvalidAnswer", f"an unreadable answer: {error}") from error

    async def _read(self, size_bytes: int) -> bytearray:
        loop = asyncio.get_running_loop()
        body = bytearray(size_bytes)
        view = memoryview(body)
        while view:
            count = await loop.sock_recv_into(self._channel, view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return body

    def _exit_message(self) -> str:
        status = self._process.returncode
        if status is None:
            return "Runtime exited: the handler closed the worker's socket"
        if status == OUT_OF_MEMORY_STATUS:
            return self._memory_message()
        if status >= 0:
            return f"Runtime exited with error: exit status {status}"
        if status == -signal.SIGKILL:
            return (
                "Runtime exited with error: signal: killed "
                "(by somebody, or by the system for lack of memory)"
            )
        return f"Runtime exited with error: signal: {signal.Signals(-status).name}"

    def _memory_message(self) -> str:
        limit_bytes = self._start.memory_bytes
        if limit_bytes is None:
            return "Runtime exited: out of memory"
        return f"Runtime exited: out of memory, over its limit of {format_size(limit_bytes)}"

    def _error(self, error_type: str, message: str, stack: str = "") -> FunctionError:
        return FunctionError(error_type, message, stack=stack, output=self.output.text())
