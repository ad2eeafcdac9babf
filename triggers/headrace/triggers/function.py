"""The function of a trigger: its file, its name, and which version of the file is current."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import InvocationError

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class FunctionUnavailable(InvocationError):
    """The function cannot be called at all: missing file, failing import, no process.

    Nothing was invoked, so this spends no retries. `stack` is the import's traceback, or what it
    printed.
    """

    def __init__(self, message: str, *, stack: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.stack = stack


class FunctionError(InvocationError):
    """An invocation failed: the handler raised, timed out, died, or answered what cannot be.

    `error_type` uses Lambda's names where it has one. `output` is the tail of what the
    invocation printed.
    """

    def __init__(self, error_type: str, message: str, *, stack: str = "", output: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type
        self.stack = stack
        self.output = output


@dataclass(frozen=True, slots=True)
class FunctionName:
    """`path/to/file.py:name`, taken apart."""

    file: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> FunctionName:
        """Raises ValueError when it is not of that form."""
        file, colon, attribute = text.rpartition(":")
        if not colon or not file.endswith(".py") or not attribute.isidentifier():
            raise ValueError("a file and a function in it, such as handlers/alerts.py:on_errors")
        return cls(file, attribute)

    @property
    def default_trigger_name(self) -> str:
        """`handlers/alerts.py:on_errors` -> `alerts-on_errors`."""
        return _NOT_IN_NAMES.sub("-", f"{Path(self.file).stem}-{self.attribute}")[:64]


class FunctionFile:
    """A function's file on disk. `version` is a hash of its content."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._version = ""

    def version(self) -> str:
        """SHA-256 of the content, in hex; read again only when the file looks touched.

        Raises:
            FunctionUnavailable: there is no such file, or it cannot be read.
        """
        try:
            found = self.path.stat()
            # The inode tells an editor's rename, the time (ns) and size a write in place.
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._version = hashlib.sha256(self.path.read_bytes()).hexdigest()
                self._seen = seen
        except OSError as error:
            self._seen = None
            raise FunctionUnavailable(
                f"cannot read the function's file {self.path}: {error.strerror}",
                hint="put it there, or correct `function:`; the trigger goes on by itself",
            ) from error
        return self._version
