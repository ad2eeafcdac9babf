"""Builds `headrace.core._speedups` while Headrace is installed, if there is a C compiler.

Without one, or without Python's headers, the package is installed without it and works the same
(see `core/headrace/core/speedups.py`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "core/headrace/core"
MODULE = "_speedups"


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs before a wheel is put together, or an editable install.

    An editable install imports it from beside its source. For a wheel nothing is written there:
    the tree may be read-only, and others may be building from it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        beside = Path(self.root, FOLDER)
        name = MODULE + sysconfig.get_config_var("EXT_SUFFIX")
        if version == "editable":
            folder = beside
        else:
            self._folder = tempfile.TemporaryDirectory()
            folder = Path(self._folder.name)
        try:
            compile_extension(sorted(beside.glob("*.c")), folder / name)
        except (OSError, subprocess.CalledProcessError) as error:
            if version == "editable":
                with contextlib.suppress(OSError):
                    Path(folder, name).unlink(missing_ok=True)  # of an earlier source
            said = getattr(error, "stderr", None) or str(error)
            self.app.display_warning(f"installing without the compiled speedups: {said.strip()}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(folder / name)] = f"headrace/core/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def compile_extension(sources: Sequence[Path], built: Path) -> None:
    """Compile and link with the compiler that Python itself was built with.

    Raises OSError if there is none, CalledProcessError if it could not.
    """
    link = shlex.split(sysconfig.get_config_var("LDSHARED") or "")
    if not link:
        raise OSError("this Python does not say how it links its modules")
    include = sysconfig.get_path("include")
    # never half of one under its name, and never another's
    handle, temporary = tempfile.mkstemp(".so", dir=built.parent)
    os.close(handle)
    try:
        flags = ["-O3", "-fPIC", "-fwrapv", "-fvisibility=hidden", "-DNDEBUG", f"-I{include}"]
        command = [*link, *flags, *map(str, sources), "-o", temporary]
        subprocess.run(command, check=True, capture_output=True, text=True)
        os.chmod(temporary, 0o755)
        os.replace(temporary, built)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
