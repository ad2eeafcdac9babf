"""Path patterns, against the standard library's own where it agrees on what they mean."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from headrace.agent.globs import Glob

TREE = [
    "a.log",
    "b.log",
    "b.log.1",
    ".hidden.log",
    "x/a.log",
    "x/y/a.log",
    "x/y/z/c.log",
    "x/.secret/a.log",
    "other/[odd].log",
]

PATTERNS = [
    "*.log",
    "?.log",
    "[ab].log",
    "[!a].log",
    "*.log*",
    "a.log",
    "nothing.log",
    "*/a.log",
    "**/a.log",
    "**/*.log",
    "x/**/c.log",
    "x/**",
    "**/y/**/*.log",
    "**",
    ".hidden*",
    "x/.s*/a.log",
    "other/[[]odd].log",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def expand(pattern: Glob) -> set[str]:
    errors: dict[str, OSError] = {}
    found = set(pattern.expand(errors.__setitem__))
    assert not errors
    return {path for path in found if Path(path).is_file()}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_in_the_standard_library(tree: Path, pattern: str) -> None:
    found = expand(Glob(pattern, base=tree))
    expected = {
        str(tree / name)
        for name in glob.glob(pattern, root_dir=tree, recursive=True)
        if (tree / name).is_file()
    }
    assert found == expected
    for name in TREE:
        path = str(tree / name)
        assert Glob(pattern, base=tree).matches(path) == (path in expected)


def test_absolute_relative_home_and_parent(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    expected = {str(tree / "a.log")}
    assert expand(Glob(str(tree / "a*"), base=Path("/"))) == expected
    assert expand(Glob("../a.log", base=tree / "x")) == expected
    assert expand(Glob("~/a.log", base=Path("/"))) == expected


def test_a_bare_name_excludes_at_any_depth(tree: Path) -> None:
    pattern = Glob("*.log.1", base=tree, name_suffices=True)
    assert pattern.matches(str(tree / "x" / "y" / "z.log.1"))
    assert not pattern.matches(str(tree / "b.log"))


def test_link_loops_end(tree: Path) -> None:
    (tree / "x" / "loop").symlink_to(tree)
    (tree / "x" / "y" / "loop").symlink_to(tree / "x")
    (tree / "other" / "loop").symlink_to(tree)
    found = expand(Glob("**/*.log", base=tree))
    assert {os.path.realpath(path) for path in found} >= {str(tree / "x/y/z/c.log")}
    assert len(found) < 20


def test_the_folder_that_must_exist() -> None:
    assert Glob("/var/log/nginx/*.log", base=Path("/")).root == Path("/var/log/nginx")
    assert Glob("/var/**/x.log", base=Path("/")).root == Path("/var")
    assert Glob("/var/log/app/x.log", base=Path("/")).root == Path("/var/log/app")
