"""The files around the code: make's targets, the commands the documents tell, configs/."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from headrace.pipeline.cli.app import app
from pipeline.support import CHECKOUT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "*/README.md")
    for path in CHECKOUT.glob(pattern)
    if ".venv" not in path.parts
)
KIT = CHECKOUT / "core/headrace/pipeline/demo"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


def test_make_alone_lists_every_target() -> None:
    listed = set(re.findall(r"^  make ([a-z-]+) ", make().stdout, re.MULTILINE))
    assert listed == targets()
    assert {"help", "demo", "test", "check", "bench", "soak", "clean"} <= listed


def test_every_target_begins_by_making_the_environment(tmp_path: Path) -> None:
    for target in targets() - {"help", "clean"}:
        planned = make("--dry-run", target, f"VENV={tmp_path}/venv")
        assert planned.returncode == 0, planned.stderr
        assert f"-m venv {tmp_path}/venv" in planned.stdout, target
        assert 'pip install --quiet --disable-pip-version-check -e ".[dev]"' in planned.stdout


def test_an_old_python_is_refused_with_words(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    refused = make("install", f"PYTHON={old}", f"VENV={tmp_path}/venv")
    assert refused.returncode != 0
    assert f"headrace needs Python 3.11 or newer; {old} is Python 3.8.1." in refused.stdout
    missing = make("install", "PYTHON=python9", f"VENV={tmp_path}/venv")
    assert "There is no python9." in missing.stdout
    assert not (tmp_path / "venv").exists()


def commands(text: str) -> list[str]:
    """The lines of a document's code blocks, and its inline code."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [*"\n".join(blocks).splitlines(), *re.findall(r"`([^`\n]+)`", text)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_commands_in_documents_exist(document: Path) -> None:
    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    for line in commands(document.read_text(encoding="utf-8")):
        words = line.split("#")[0].removeprefix("$ ").split()
        if words[:1] == ["make"] and len(words) > 1 and "=" not in words[1]:
            assert words[1] in targets(), line
        if words[:1] == ["headrace"] and len(words) > 1 and not words[1].startswith("-"):
            for verb in re.split(r"[|/]", words[1]):
                assert verb.rstrip(".,") in verbs, line


def test_the_demo_in_configs_is_the_one_that_is_run() -> None:
    assert (CHECKOUT / "configs/demo.yaml").read_text() == (KIT / "demo.yaml").read_text()
    handler = "handlers/errors.py"
    assert (CHECKOUT / "configs" / handler).read_text() == (KIT / handler).read_text()


def test_every_dependency_has_its_why() -> None:
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in needed:
        name = re.split(r"[\[<>=~! ]", requirement)[0]
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", changelog), requirement
