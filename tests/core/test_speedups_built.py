"""Where the compiled twins come from, and that Headrace works without them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.core import speedups
from headrace.core.log.format import small_frame
from speedups_support import compiled_only, plain

ROOT = Path(__file__).parents[2]
FOLDER = "core/headrace/core"
SOURCES = [
    "_credential.c", "_one_record.c", "_plain_head.c", "_put_answer.c", "_routes.c",
    "_small_frame.c", "_speedups.c", "_speedups.h", "_split.c", "_usual_puts.c",
]  # fmt: skip


def in_use(env: dict[str, str], *paths: Path) -> str:
    """What a new interpreter says of them; `paths` come before those of this one."""
    python_path = os.pathsep.join([*map(str, paths), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "headrace.core.speedups"],
        # a cache takes two sources of one size, written within a second, for the same
        env={**os.environ, "PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@compiled_only
def test_they_are_on_if_they_are_of_this_source(tmp_path: Path) -> None:
    assert in_use({}) == "speedups on"
    folder = tmp_path / "headrace" / "core"
    folder.mkdir(parents=True)
    for name in ("__init__.py", "speedups.py"):
        shutil.copy(ROOT / "core/headrace/core" / name, folder)
    assert in_use({}, tmp_path) == "speedups off"
    (folder / "_speedups.py").write_text("VERSION = 0")
    assert in_use({}, tmp_path) == "speedups off"
    (folder / "_speedups.py").write_text(f"VERSION = {speedups._VERSION}")
    assert in_use({}, tmp_path) == "speedups on"


def test_without_them_everything_works_the_same() -> None:
    """The tests of what they stand in for, once more in Python."""
    assert in_use({"HEADRACE_SPEEDUPS": "0"}) == "speedups off"
    tests = [
        "tests/core/log/test_rendering.py",
        "tests/core/log/test_recovery.py",
        "tests/core/model",
        "tests/core/test_routing.py",
        "tests/core/api/test_put_records.py",
        "tests/core/api/test_producer_headers.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "HEADRACE_SPEEDUPS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Hook:
    """`hatch_build` run as hatchling runs it, on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.beside = folder / FOLDER / ("_speedups" + sysconfig.get_config_var("EXT_SUFFIX"))
        self.beside.parent.mkdir(parents=True)
        for name in SOURCES:
            shutil.copy(ROOT / FOLDER / name, folder / FOLDER / name)

    def run(self, version: str, before: str = "") -> dict[str, Any]:
        """What the hook adds to a build, and `found`: the files it then packs."""
        code = (
            "import json, os, sysconfig, hatch_build\n"
            "from hatchling.bridge.app import Application\n"
            f"{before}\n"
            f"hook = hatch_build.CustomBuildHook({str(self.root)!r}, {{}}, None, None, '.', "
            "'wheel', Application())\n"
            "data = {'force_include': {}}\n"
            f"hook.initialize({version!r}, data)\n"
            "data['found'] = [os.path.exists(path) for path in data['force_include']]\n"
            f"hook.finalize({version!r}, data, '')\n"
            "print(json.dumps(data))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.said = done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def files(self) -> list[str]:
        return sorted(path.name for path in self.beside.parent.iterdir())


@compiled_only
def test_the_wheel_has_it_if_there_is_a_compiler(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    data = hook.run("standard")
    assert list(data["force_include"].values()) == [f"headrace/core/{hook.beside.name}"]
    assert data["found"] == [True] and data["infer_tag"] and not data["pure_python"]
    assert hook.files() == SOURCES, "the tree is not written to"


@compiled_only
def test_an_editable_install_has_it_beside_its_source(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    with ThreadPoolExecutor(4) as several:  # who build at once
        list(several.map(lambda _: hook.run("editable"), range(4)))
    assert hook.files() == sorted([*SOURCES, hook.beside.name])
    there = subprocess.run(
        [sys.executable, "-c", "import _speedups; print(_speedups.VERSION)"],
        cwd=hook.beside.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout == f"{speedups._VERSION}\n"


@compiled_only
def test_checksums_where_the_processor_has_no_instruction_for_them(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    source = tmp_path / FOLDER / "_small_frame.c"
    text = source.read_text().replace("defined(__x86_64__) &&", "0 &&")
    assert text != source.read_text()
    source.write_text(text)
    hook.run("editable")
    call = "small_frame(array('I', [5]), [b'abc', b'd' * 99], b'marks', 1, 2, 3, 4, 5)"
    there = subprocess.run(
        [sys.executable, "-c", f"from array import array; from _speedups import *; print({call})"],
        cwd=hook.beside.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    here = plain(small_frame)(array("I", [5]), [b"abc", b"d" * 99], b"marks", 1, 2, 3, 4, 5)
    assert there.stdout == f"{here!r}\n"


NO_COMPILER = "sysconfig.get_config_vars()['LDSHARED'] = '/nowhere/cc -shared'"
NOT_SAID = "sysconfig.get_config_vars()['LDSHARED'] = None"


@pytest.mark.parametrize("version", ["standard", "editable"])
@pytest.mark.parametrize("before", [NO_COMPILER, NOT_SAID])
def test_it_is_installed_without_a_compiler(tmp_path: Path, version: str, before: str) -> None:
    hook = Hook(tmp_path)
    hook.beside.write_bytes(b"of an earlier source")
    assert hook.run(version, before) == {"force_include": {}, "found": []}
    assert "without the compiled speedups" in hook.said
    assert hook.beside.exists() == (version == "standard")


def test_it_is_installed_if_the_source_does_not_compile(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    (tmp_path / FOLDER / SOURCES[0]).write_text("this is no C")
    assert hook.run("editable") == {"force_include": {}, "found": []}
    assert "without the compiled speedups" in hook.said
    assert hook.files() == SOURCES
