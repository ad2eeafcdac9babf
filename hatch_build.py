"""Builds `headrace.core._speedups` while Headrace is installed, if there is a C compiler.

Without one, or without Python's headers, the package is installed without it and works the same
(see `core/headrace/core/speedups.py`).
"""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "core/headrace/core/_speedups.c"


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs before a wheel is put together, or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root, SOURCE)
        # beside its source: an editable install imports it from there
        built = source.with_name(source.stem + sysconfig.get_config_var("EXT_SUFFIX"))
        try:
            compile_extension(source, built)
        except (OSError, subprocess.CalledProcessError) as error:
            built.unlink(missing_ok=True)  # of an earlier source, maybe
            said = getattr(error, "stderr", None) or str(error)
            self.app.display_warning(f"installing without the compiled speedups: {said.strip()}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(built)] = f"headrace/core/{built.name}"


def compile_extension(source: Path, built: Path) -> None:
    """Compile and link with the compiler that Python itself was built with.

    Raises OSError if there is none, CalledProcessError if it could not.
    """
    link = shlex.split(sysconfig.get_config_var("LDSHARED"))
    include = sysconfig.get_path("include")
    temporary = built.with_suffix(".tmp")  # never half of one under its name
    command = [*link, "-O3", "-fPIC", f"-I{include}", str(source), "-o", str(temporary)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    temporary.replace(built)
