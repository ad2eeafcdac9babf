"""Path patterns: `*`, `?` and `[...]` within a name, `**` for any number of folders.

A leading dot must be named to be matched, as in a shell. Symbolic links are followed; a folder
that is met a second time below `**` (a link loop) is not entered again.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

_MAGIC = re.compile(r"[*?\[]")


class Glob:
    """One pattern."""

    def __init__(self, pattern: str, *, base: Path, name_suffices: bool = False) -> None:
        """`base` is the folder relative patterns start from; `~` is the user's home.

        With `name_suffices`, a pattern without a slash matches files of such a name anywhere.
        """
        pattern = str(Path(pattern).expanduser())
        self._is_name = name_suffices and "/" not in pattern
        self.pattern = os.path.normpath(base.absolute() / pattern)
        segments = [part for part in self.pattern.split("/") if part not in ("", ".")]
        if segments[-1] == "**":
            segments.append("*")
        self._segments = segments
        self._tests = [
            re.compile(fnmatch.translate(part)).match if _MAGIC.search(part) else None
            for part in segments
        ]

    def expand(self, on_error: Callable[[str, OSError], None]) -> Iterator[str]:
        """Paths that match now (of any kind, possibly twice). Folders that cannot be read are
        told to `on_error` and left out; those that vanish meanwhile are just left out."""
        yield from self._walk("", 0, set(), on_error)

    def _walk(
        self,
        folder: str,
        index: int,
        visited: set[tuple[int, int, int]],
        on_error: Callable[[str, OSError], None],
    ) -> Iterator[str]:
        part = self._segments[index]
        is_last = index == len(self._segments) - 1
        if part == "**":
            if not self._enter(folder, index, visited):
                return
            yield from self._walk(folder, index + 1, visited, on_error)
            for entry in _entries(folder, on_error):
                if not entry.name.startswith(".") and _is_folder(entry):
                    yield from self._walk(entry.path, index, visited, on_error)
            return
        test = self._tests[index]
        if test is None:
            path = f"{folder}/{part}"
            if is_last:
                yield path
            else:
                yield from self._walk(path, index + 1, visited, on_error)
            return
        for entry in _entries(folder, on_error):
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if not test(entry.name):
                continue
            if is_last:
                yield entry.path
            elif _is_folder(entry):
                yield from self._walk(entry.path, index + 1, visited, on_error)

    def _enter(self, folder: str, index: int, visited: set[tuple[int, int, int]]) -> bool:
        try:
            found = Path(folder or "/").stat()
        except OSError:
            return False
        key = (index, found.st_dev, found.st_ino)
        if key in visited:
            return False
        visited.add(key)
        return True

    def matches(self, path: str) -> bool:
        """Whether an absolute path matches, without looking at the disk."""
        if self._is_name:
            return fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], self._segments[-1])
        parts = [part for part in path.split("/") if part]
        return self._match(parts, 0, 0)

    def _match(self, parts: list[str], at: int, index: int) -> bool:
        if index == len(self._segments):
            return at == len(parts)
        part = self._segments[index]
        if part == "**":
            if self._match(parts, at, index + 1):
                return True
            return (
                at < len(parts)
                and not parts[at].startswith(".")
                and self._match(parts, at + 1, index)
            )
        if at == len(parts):
            return False
        test = self._tests[index]
        name = parts[at]
        if test is None:
            return name == part and self._match(parts, at + 1, index + 1)
        if name.startswith(".") and not part.startswith("."):
            return False
        return test(name) is not None and self._match(parts, at + 1, index + 1)

    @property
    def root(self) -> Path:
        """The folder above the first pattern character: what must exist for anything to match."""
        plain: list[str] = []
        for part, test in zip(self._segments[:-1], self._tests[:-1], strict=True):
            if test is not None:
                break
            plain.append(part)
        return Path("/" + "/".join(plain))


def _entries(folder: str, on_error: Callable[[str, OSError], None]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder or "/") as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        on_error(folder or "/", error)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a dangling or looping link
        return False
